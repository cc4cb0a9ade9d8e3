"""Runs that our worker shares with clients of pgflow 0.14 and 0.17, by the calls that those make."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from worker_flows import LOG
from worker_harness import Tasks, eventually, execute, output, run_row, settings, start, threaded

from pgflow_mp.db import definitions
from pgflow_mp.errors import ShapeMismatch
from pgflow_mp.testing.audit import audit_run
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.worker import Worker

OLD_CLAIM = "select * from pgflow.start_tasks(%(flow)s, %(ids)s, %(worker)s::uuid)"
NEW_CLAIM = (
    "select * from pgflow.start_tasks(flow_slug => %(flow)s, msg_ids => %(ids)s::bigint[],"
    " worker_id => %(worker)s::uuid, queue_name => %(queue)s::text, step_slug => %(step)s::text)"
)


class Client(threading.Thread):
    """A worker that speaks SQL as one of TypeScript does; the (step, index) of what it did are in ``did``."""

    def __init__(
        self, dsn: str, flow: str, claim: str, handler: Callable[[Any], Any], step: str | None = None
    ) -> None:
        super().__init__()
        self._dsn, self._claim, self._handler = dsn, claim, handler
        queue = flow.lower() if step is None else f"{flow}__{step}".lower()
        self._names = {"flow": flow, "queue": queue, "step": step, "worker": str(uuid.uuid4())}
        self._polled = flow if claim is OLD_CLAIM else queue
        self.did: list[tuple[str, int]] = []
        self.enough = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute(
                "insert into pgflow.workers (queue_name, worker_id, function_name)"
                " values (%(polled)s, %(worker)s, 'ts') returning *",
                {**self._names, "polled": self._polled},
            )
            while not self.enough.is_set():
                ids = conn.execute(
                    "select array_agg(msg_id) from pgmq.read_with_poll(queue_name => %s, vt => 5, qty => 10,"
                    " max_poll_seconds => 1, poll_interval_ms => 20)",
                    (self._polled,),
                ).fetchone()
                if ids is None or ids[0] is None:
                    continue
                cursor = conn.execute(self._claim.encode(), {**self._names, "ids": ids[0]})
                for _, run_id, step, value, _, index, flow_input in cursor.fetchall():
                    output = self._handler(value if flow_input is None else flow_input)
                    conn.execute(
                        "select pgflow.complete_task(%s::uuid, %s, %s::int, %s::jsonb)",
                        (run_id, step, index, json.dumps(output)),
                    )
                    self.did.append((step, index))


def lines(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.mark.parametrize("items", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_one_run_is_served_by_three_kinds_of_worker_and_every_item_done_once(
    dsn: str, log: Path, items: int
) -> None:
    run_id = start(dsn, "doubled", list(range(items)))
    clients = [Client(dsn, "doubled", claim, lambda n: 2 * n) for claim in (OLD_CLAIM, NEW_CLAIM)]
    with threaded(Worker(settings(dsn, "doubled", batch_size=5))):
        eventually(lambda: lines(log), timeout=30)
        for client in clients:
            client.start()
        try:
            eventually(lambda: run_row(dsn, run_id).status != "started", timeout=60)
        finally:
            for client in clients:
                client.enough.set()
                client.join(10)
    assert output(dsn, run_id) == {"slowly_doubled": [2 * n for n in range(items)]}
    done = lines(log) + Counter(f"double {index}" for client in clients for _, index in client.did)
    assert done == Counter(f"double {index}" for index in range(items))
    assert min(len(lines(log)), *(len(client.did) for client in clients)) > 0
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []


def test_a_flow_with_a_queue_for_each_step_runs_to_its_end(dsn: str) -> None:
    run_id, report = execute(dsn, "stepwise", [1, 2, 3])
    assert report.run_status == "completed"
    assert output(dsn, run_id) == {"total": 12}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
        names = conn.execute(
            "select queue_name from pgflow.workers where function_name <> 'retired' order by 1"
        )
        assert [row[0] for row in names] == ["stepwise__double_each", "stepwise__total"]
        assert conn.execute("select count(*) from pgmq.list_queues()").fetchone() == (2,)


def test_a_failed_run_of_step_queues_is_retried_in_its_queues(dsn: str) -> None:
    run_id, report = execute(dsn, "stepwise", [1, "x", 3])
    assert report.run_status == "failed"
    statuses = Tasks(dsn, run_id).statuses("double_each")
    assert statuses["failed"] == 1
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert audit_run(conn, run_id) == []
        conn.execute("update pgflow.step_tasks set input = '2' where task_index = 1")
        conn.execute("select pgflow.retry_failed_tasks(%s)", (run_id,))
    report = Worker(_settings(dsn)).run(run_id=run_id)
    assert report.run_status == "completed"
    assert output(dsn, run_id) == {"total": 12}


def test_a_step_that_another_worker_serves_alone_is_part_of_the_same_run(dsn: str, log: Path) -> None:
    run_id = start(dsn, "stepwise", list(range(40)))
    client = Client(dsn, "stepwise", NEW_CLAIM, lambda n: 2 * n, "double_each")
    client.start()
    try:
        eventually(lambda: len(client.did) > 5)
        report = Worker(_settings(dsn, batch_size=2)).run(run_id=run_id)
    finally:
        client.enough.set()
        client.join(10)
    assert report.run_status == "completed"
    assert output(dsn, run_id) == {"total": 2 * sum(range(40))}
    assert {step for step, _ in client.did} == {"double_each"}


def test_a_changed_queue_mode_is_told_and_replaced_only_where_that_is_asked_for(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "select pgflow.create_flow('stepwise'), pgflow.add_step('stepwise', 'double_each',"
            " step_type => 'map'), pgflow.add_step('stepwise', 'total', array['double_each'])"
        )
    with pytest.raises(ShapeMismatch) as caught:
        Worker(_settings(dsn)).run(idle_exit=True)
    assert str(caught.value).splitlines()[:4] == [
        "Flow 'stepwise' queue routing mismatch with database.",
        "Changing queue mode or step routes in production requires a new concrete flow slug.",
        "Differences:",
        "  - Queue mode differs: database has 'flow', worker expects 'step'",
    ]
    Worker(_settings(dsn, compile="recreate")).run(idle_exit=True)
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert definitions.queues(conn, "stepwise") == ["stepwise__double_each", "stepwise__total"]


def _settings(dsn: str, **options: Any) -> WorkerSettings:
    return settings(dsn, "stepwise", **options)
