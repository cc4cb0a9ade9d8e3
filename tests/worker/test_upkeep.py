"""What a worker does for the whole database (``heartbeat.Upkeep``), without the worker around it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from worker_harness import adapted, eventually, run_row, start

from pgflow_mp.db import engine
from pgflow_mp.worker import heartbeat
from pgflow_mp.worker.heartbeat import Upkeep
from pgflow_mp.worker.inbox import Said


@contextlib.contextmanager
def upkeep(dsn: str) -> Iterator[list[Any]]:
    """Upkeep that runs; the list is what it says."""
    said: list[Any] = []
    thread = Upkeep(dsn, said.append, run_id=None)
    thread.start()
    try:
        yield said
    finally:
        thread.stop()
        thread.join(20)
        thread.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round of each kind comes at once, the second not while a test runs."""
    monkeypatch.setattr(heartbeat, "_REQUEUE_EVERY", 0.3)
    monkeypatch.setattr(heartbeat, "_LEAST_REST", 1_000_000)


def stalled(dsn: str, requeued: int) -> str:
    """A run of two tasks, one of which was requeued so often and stalls again."""
    run_id = start(dsn, "naps", [0.0, 0.0])
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "update pgflow.step_tasks set status = 'started', attempts_count = 1, requeued_count = %s,"
            " queued_at = now() - interval '2 days', started_at = now() - interval '1 day'"
            " where task_index = 0",
            (requeued,),
        )
    return run_id


def texts(said: list[Any]) -> list[str]:
    return [what.text for what in said if isinstance(what, Said)]


def test_a_task_that_stalls_is_requeued(dsn: str) -> None:
    run_id = stalled(dsn, 2)
    with upkeep(dsn) as said:
        eventually(lambda: texts(said))
    assert texts(said) == ["requeued 1 stalled tasks"]
    assert run_row(dsn, run_id).status == "started"


def test_a_task_that_stalls_too_often_fails_its_step_and_run_in_the_same_round(dsn: str) -> None:
    run_id = stalled(dsn, 3)
    with upkeep(dsn) as said:
        eventually(lambda: texts(said))
    assert texts(said) == ["gave up 1 tasks that stalled too often"]
    assert run_row(dsn, run_id).status == "failed"
    with adapted(dsn) as conn:
        nap = engine.run_progress(conn, run_id)[0]
    assert (nap.status, nap.error_message) == (
        "failed",
        "Task 0 of step nap stalled 4 times: no worker reported a result in time",
    )
