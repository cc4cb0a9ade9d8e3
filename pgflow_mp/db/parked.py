"""What is left of runs besides the tasks that workers hold back, and how workers tell each other.

A worker says in a table how many tasks of a run it holds back, which counts for as long as the worker lives.
Sessions will not do for that: behind a pooler they are not the worker's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import psycopg

from pgflow_mp.db.engine import Connection

Held = Mapping[tuple[str, str], int]
"""Numbers of tasks by worker id and run."""


def report_parked(conn: Connection, mine: Collection[str], held_back: Held) -> dict[str, int]:
    """Tell what these ids of one worker hold back. By run, how many tasks are neither done nor held back.

    0 or less if none are. Tasks that are yet to be spawned count. Runs that nobody knows, or that we may not
    see, are missing.
    """
    workers, runs = [worker for worker, _ in held_back], [run for _, run in held_back]
    try:
        rows = conn.execute(
            "select run_id::text, tasks_left "
            "from pgflow.report_parked(%s::uuid[], %s::uuid[], %s::uuid[], %s::int[])",
            (list(mine), workers, runs, list(held_back.values())),
        ).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return {}
    return {run: int(left) for run, left in rows}
