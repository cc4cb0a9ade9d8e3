"""What is handed back to the database, uncharged: whoever has room takes it."""

from __future__ import annotations

from typing import NamedTuple

from pgflow_mp.db import engine, item_ranges
from pgflow_mp.db.engine import Connection


class TaskRelease(NamedTuple):
    """Tasks that a worker id holds, by message."""

    flow: str
    worker_id: str
    msg_ids: list[int]

    def __bool__(self) -> bool:
        return bool(self.msg_ids)

    def send(self, conn: Connection) -> int:
        """Hand them back; how many were still held."""
        return engine.release_tasks(conn, self.flow, self.worker_id, self.msg_ids)


class RangeRelease(NamedTuple):
    """Stretches of items of one map in ranges that a worker id holds."""

    flow: str
    run: str
    step: str
    worker_id: str
    lease_nos: list[int]
    firsts: list[int]
    counts: list[int]

    def __bool__(self) -> bool:
        return bool(self.firsts)

    def send(self, conn: Connection) -> int:
        """Hand them back; how many items were still held."""
        return item_ranges.release_ranges(
            conn, self.run, self.step, self.worker_id, self.lease_nos, self.firsts, self.counts
        )


Release = TaskRelease | RangeRelease
