"""What is handed back to the database, uncharged: whoever has room takes it."""

from __future__ import annotations

from typing import NamedTuple

from pgflow_mp.db import engine
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


Release = TaskRelease
