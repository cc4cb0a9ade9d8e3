"""Limits over several workers at work: counted by the handlers themselves."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from worker_harness import adapted, compiled, eventually, kill, process, run_row, settings, start, threaded

from pgflow_mp.db.engine import Connection
from pgflow_mp.observe import read_reports, wording
from pgflow_mp.observe.run_reports import RunDetails
from pgflow_mp.testing.audit import audit_run
from pgflow_mp.worker.worker import Worker


def prepared(dsn: str, storage: str, **limits: Any) -> None:
    compiled(dsn, "naps")
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.set_step_policy('naps', 'nap', storage => %s)", (storage,))
        names = "".join(f", {name} => %s" for name in limits)
        conn.execute(f"select pgflow.set_limit('naps'{names})".encode(), list(limits.values()))


def counted(log: Path) -> tuple[int, int]:
    """How many items ran at one moment at most, and how many have ended."""
    now = most = ended = 0
    for line in log.read_text().splitlines():
        now += 1 if line.startswith("start") else -1
        ended += line.startswith("end")
        most = max(most, now)
    return most, ended


@pytest.mark.parametrize("storage", [pytest.param("tasks", marks=pytest.mark.slow), "ranges"])
def test_three_workers_run_no_more_than_so_many_at_once(dsn: str, log: Path, storage: str) -> None:
    prepared(dsn, storage, at_once=3)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(threaded(Worker(settings(dsn, "naps"))))
        run_id = start(dsn, "naps", [0.05] * 24)
        eventually(lambda: run_row(dsn, run_id).status == "completed", timeout=30)
    assert counted(log) == (3, 24)
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
        held = conn.execute("select sum(held)::int from pgflow.list_limits()").fetchone()
    assert held == (0,)


@pytest.mark.slow
def test_a_limit_is_changed_while_workers_run(dsn: str, log: Path) -> None:
    prepared(dsn, "ranges", at_once=1)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(threaded(Worker(settings(dsn, "naps"))))
        run_id = start(dsn, "naps", [0.05] * 30)
        eventually(lambda: counted(log)[1] >= 3, timeout=20)
        assert counted(log)[0] == 1
        with psycopg.connect(dsn) as conn:
            conn.execute("select pgflow.set_limit('naps', at_once => 4)")
        eventually(lambda: run_row(dsn, run_id).status == "completed", timeout=30)
    assert 2 <= counted(log)[0] <= 4


@pytest.mark.parametrize(
    "limits", [{"rate": 20.0}, pytest.param({"rate": 2.0, "burst": 1}, marks=pytest.mark.slow)]
)
def test_workers_keep_to_a_rate(dsn: str, log: Path, limits: dict[str, Any]) -> None:
    items = int(limits["rate"] * 1.5)
    prepared(dsn, "ranges", **limits)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(threaded(Worker(settings(dsn, "naps"))))
        run_id = start(dsn, "naps", [0.0] * items)
        begun = time.monotonic()
        eventually(lambda: run_row(dsn, run_id).status == "completed", timeout=30)
    taken = time.monotonic() - begun
    # the step after the map is handed out by the same rate
    least = (items + 1 - limits.get("burst", 2)) / limits["rate"] - 0.9 / limits["rate"]
    assert least <= taken


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_what_a_killed_worker_held_is_given_back(dsn: str, log: Path, storage: str) -> None:
    prepared(dsn, storage, at_once=4)
    workers = [process(dsn, "naps", dead_after=1.0, heartbeat_interval=0.2) for _ in range(3)]
    run_id = start(dsn, "naps", [0.2] * 60)
    eventually(lambda: counted(log)[1] >= 8, timeout=30)
    kill(workers.pop())
    eventually(lambda: run_row(dsn, run_id).status == "completed", timeout=60)
    for worker in workers:
        kill(worker)
    starts = log.read_text().count("start")
    most, ended = counted(log)
    # What ran in the killed worker never ended: it counts for ever in the log.
    assert most <= 4 + starts - ended
    assert ended >= 60
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []


@pytest.mark.slow
def test_rates_over_ten_seconds_are_right_within_a_few_percent(dsn: str, log: Path) -> None:
    prepared(dsn, "ranges", rate=50.0)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(threaded(Worker(settings(dsn, "naps"))))
        run_id = start(dsn, "naps", [0.0] * 1000)
        eventually(lambda: counted(log)[1] >= 10, timeout=30)
        before, begun = counted(log)[1], time.monotonic()
        time.sleep(10)
        after, taken = counted(log)[1], time.monotonic() - begun
        with psycopg.connect(dsn) as conn:
            conn.execute("select pgflow.cancel_run(%s)", (run_id,))
    assert 0.95 <= (after - before) / taken / 50 <= 1.05


def test_a_worker_takes_what_it_has_the_labels_for_and_who_has_none_is_told(dsn: str, log: Path) -> None:
    compiled(dsn, "chain")
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.set_requirements('chain', 'as_text', '{gpu}')")
    run_id = start(dsn, "chain", [1, 2, 3])
    with threaded(Worker(settings(dsn, "chain", compile="skip"))), adapted(dsn) as conn:
        found = eventually(lambda: unserved(conn, run_id), timeout=20)
        assert found.lacking == {"as_text": ["gpu"]}
        assert wording.sentence_of_run(found).endswith("no worker has what as_text requires (gpu)")
        assert wording.state_of_run(found) == "queued, no fit worker"
        with threaded(Worker(settings(dsn, "chain", compile="skip", labels=("gpu", "more")))):
            eventually(lambda: run_row(dsn, run_id).status == "completed", timeout=20)
            (flow,) = read_reports.read_flows(conn)
            assert (flow.workers, flow.unserved, flow.lacking) == (2, [], {})
    with adapted(dsn) as conn:
        holders = conn.execute(
            "select w.labels from pgflow.items i join pgflow.workers w on w.worker_id = i.worker_id "
            "where i.step_slug = 'as_text' group by 1"
        ).fetchall()
    assert holders == [(["gpu", "more"],)]


def unserved(conn: Connection, run_id: str) -> RunDetails | None:
    """The run, once one of its steps waits for a worker that there is not."""
    run = read_reports.read_run(conn, run_id)
    assert run is not None
    return run if run.unserved == ["as_text"] and not run.counts.running else None
