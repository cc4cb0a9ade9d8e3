"""Taking over from those that are gone: the calls of whoever does the upkeep of a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from pgflow_mp.db.engine import Connection


class WatchedWorker(NamedTuple):
    """A worker's last sign of life, and for how many seconds it may give none."""

    worker_id: str
    last_heartbeat: datetime
    dead_after: float
    stopped: bool


def requeue_stalled_tasks(conn: Connection) -> int:
    """Requeue tasks that ran into the stall threshold (contract sql section 14.1); how many."""
    row = conn.execute("select pgflow.requeue_stalled_tasks()").fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def fail_stalled_tasks(conn: Connection) -> int:
    """Count the tasks that ``requeue_stalled_tasks`` gave up before as failed ones of their steps; how many.

    Nothing else does: without it the runs of such tasks never end.
    """
    row = conn.execute("select pgflow.fail_stalled_tasks()").fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def recover_dead_workers(conn: Connection) -> int:
    """Requeue the tasks of workers that broke their heartbeat promise by the server's clock; how many."""
    row = conn.execute("select pgflow.recover_dead_workers()").fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def watched_workers(conn: Connection) -> list[WatchedWorker]:
    """The workers that may have to be taken over from, the living among them."""
    rows = conn.execute(
        "select worker_id, last_heartbeat_at, dead_after, stopped from pgflow.watched_workers()", binary=True
    ).fetchall()
    return [WatchedWorker._make(row) for row in rows]


def recover_workers(conn: Connection, workers: Sequence[WatchedWorker]) -> int:
    """Requeue the tasks of these workers, if they gave no sign of life since; how many."""
    row = conn.execute(
        "select pgflow.recover_workers(%s::uuid[], %s::timestamptz[])",
        ([worker.worker_id for worker in workers], [worker.last_heartbeat for worker in workers]),
    ).fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def retire_worker(conn: Connection, worker_id: str) -> int:
    """Requeue what a worker id that was given up still holds; how many tasks."""
    row = conn.execute("select pgflow.retire_worker(%s::uuid)", (worker_id,)).fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def free_tasks_of_all_workers(conn: Connection) -> int:
    """Queue again what any worker holds, where it is certain that none is alive; how many."""
    row = conn.execute(
        "select pgflow._take_over(array_agg(w.worker_id), "
        "array_agg(w.worker_id) filter (where w.stopped_at is null)) "
        "from pgflow.workers w where w.recovered_at is null"
    ).fetchone()
    return int(row[0]) if row is not None else 0
