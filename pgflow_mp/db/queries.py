"""Reads for reports, and the rare statement that needs rights on the tables."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from pgflow_mp.db.engine import Connection


class FailedTask(NamedTuple):
    """A task that failed for good, with the text that was recorded."""

    step: str
    task_index: int
    attempts: int
    error: str


def failed_tasks(conn: Connection, run_id: str | UUID, limit: int) -> tuple[list[FailedTask], int]:
    """The first ``limit`` failed tasks of a run, earliest first, and how many there are."""
    rows = conn.execute(
        "select step_slug, task_index, attempts_count, coalesce(error_message, 'Unknown error'), "
        "count(*) over () from pgflow.step_tasks where run_id = %s::uuid and status = 'failed' "
        "order by failed_at, step_slug, task_index limit %s",
        (str(run_id), limit),
    ).fetchall()
    return [FailedTask._make(row[:4]) for row in rows], (rows[0][4] if rows else 0)


def free_tasks_of_all_workers(conn: Connection) -> int:
    """Queue again what any worker holds, where it is certain that none is alive; how many."""
    conn.execute(
        "update pgflow.workers set dead_after = interval '0', last_heartbeat_at = clock_timestamp() "
        "where stopped_at is null"
    )
    row = conn.execute("select pgflow.recover_dead_workers()").fetchone()
    return int(row[0]) if row is not None else 0
