"""Callbacks that waited for the run's lock while it failed (contract 0.17 6.1 and 6.2)."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from .helpers import Db, fail, flow, run_row, start, step, task, worker


@pytest.mark.parametrize(
    "call",
    [
        "complete_task(%(run)s, 'b', 0, '\"late\"')",
        "complete_task(%(run)s, 'source', 0, '\"no array\"')",
        "fail_task(%(run)s, 'b', 0, 'late')",
    ],
)
def test_a_callback_that_waited_while_the_run_failed_changes_nothing(
    conn: psycopg.Connection[Any], dsn: str, call: str
) -> None:
    db = Db(conn)
    flow(db, "f", step("a", max_attempts=1), "b", "source", step("m", "source", step_type="map"))
    run = start(db, "f")
    worker(db, "f")
    db.do("select pgflow.start_tasks('f', '{1,2,3}', %s, 'f')", "11111111-1111-1111-1111-111111111111")
    answers: list[Any] = []

    def late() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("listen pgflow_events")
            answers.append(
                other.execute(
                    f"select status, output, error_message from pgflow.{call}".encode(), {"run": run}
                ).fetchone()
            )
            answers.append([n.payload for n in other.notifies(timeout=0.1) if "late" in n.payload])

    with conn.transaction():
        fail(db, run, "a", "boom")
        thread = threading.Thread(target=late)
        thread.start()
        waiting = "select count(*) from pg_locks where not granted and locktype in ('transactionid', 'tuple')"
        deadline = time.monotonic() + 10
        while db.value(waiting) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert db.value(waiting) > 0
    thread.join(10)
    assert answers == [("cancelled", None, None), []]
    assert run_row(db, run).status == "failed"
    assert task(db, run, "b").status == "cancelled"
    assert db.value("select count(*) from pgmq.q_f") == 0


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(
            "select from pgflow.step_tasks for update", "update pgmq.q_f set vt = vt", id="a claim goes on"
        ),
        pytest.param(
            "select from pgflow.flows for key share", "select pgflow.start_flow('f', '{}')", id="a run starts"
        ),
        pytest.param(
            "select from pgflow.runs for update",
            "select from pgflow.flows for key share",  # as the second change of a run in one transaction does
            id="a run ends",
        ),
    ],
)
def test_a_flow_is_deleted_after_whoever_is_at_work_on_it(
    conn: psycopg.Connection[Any], dsn: str, first: str, then: str
) -> None:
    db = Db(conn)
    flow(db, "f", "a")
    start(db, "f")
    errors: list[Exception] = []

    def delete() -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("select pgflow.delete_flow_and_data('f')")
        except psycopg.Error as error:
            errors.append(error)

    with conn.transaction():
        db.do(first)
        thread = threading.Thread(target=delete)
        thread.start()
        waiting = "select count(*) from pg_locks where not granted"
        deadline = time.monotonic() + 10
        while db.value(waiting) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert db.do(then) == 1
    thread.join(10)
    assert errors == []
    assert db.value("select to_regclass('pgmq.q_f')") is None
    assert db.value("select count(*) from pgflow.flows") == 0
