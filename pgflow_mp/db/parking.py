"""What is left of runs besides the tasks that workers hold back, and how workers tell each other.

A worker says how many tasks of a run it holds back by an advisory lock of its session, which nobody waits
for: the lock's key is the run and that number. It costs no row, and is gone when the worker is.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import psycopg

from pgflow_mp.db.engine import Connection

_LEFT: Final = """
with told as materialized (
  select classid::int8 as key, sum(objid::int8) as tasks
  from pg_catalog.pg_locks
  where locktype = 'advisory' and objsubid = 2 and mode = 'ShareLock' and granted
    and database = (select oid from pg_catalog.pg_database where datname = current_database())
  group by classid
)
select a.run_id::text, case
    when bool_or(s.status = 'failed') then 0 -- the run is over
    else coalesce(sum(s.remaining_tasks) filter (where s.status = 'started'), 0)
      - greatest(a.tasks, max(coalesce(t.tasks, 0)))
  end
from unnest(%s::uuid[], %s::int8[], %s::int8[]) a (run_id, key, tasks)
cross join lateral pgflow.run_progress(a.run_id) s
left join told t on t.key = a.key
group by a.run_id, a.tasks
"""


class Lookout:
    """One session's view. ``held_back`` are numbers of tasks by run."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._told: dict[str, int] = {}

    def left(self, held_back: Mapping[str, int]) -> dict[str, int]:
        """By run, how many of its tasks are neither done nor held back by anybody: 0 or less if none.

        Tasks that are yet to be spawned count. Runs that nobody knows, or that we may not see, are missing.
        """
        self._tell(held_back)
        if not held_back:
            return {}
        arguments = (list(held_back), [_key(run) for run in held_back], list(held_back.values()))
        try:
            rows = self._conn.execute(_LEFT, arguments).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return {}
        return {run: int(left) for run, left in rows}

    def _tell(self, held_back: Mapping[str, int]) -> None:
        for run, tasks in list(self._told.items()):
            if held_back.get(run) != tasks:
                self._lock("pg_advisory_unlock_shared", run, self._told.pop(run))
        for run, tasks in held_back.items():
            if run not in self._told:
                self._lock("pg_try_advisory_lock_shared", run, tasks)
                self._told[run] = tasks

    def _lock(self, function: str, run: str, tasks: int) -> None:
        key = _key(run)
        signed = key - (1 << 32) if key >= 1 << 31 else key
        self._conn.execute(f"select {function}(%s::int4, %s::int4)", (signed, tasks))


def _key(run: str) -> int:
    return zlib.crc32(f"pgflow: tasks held back of run {run}".encode())
