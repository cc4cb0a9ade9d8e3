"""Letting workers end what they run and stop."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import WHICH_FLOWS, FlowNotFound

_NO_FLOW = "PF016"


class Drained(NamedTuple):
    """What a worker registered for one of its queues."""

    worker_id: str
    queue: str
    name: str


def drain_workers(conn: Connection, flow: str | None = None, worker: str | None = None) -> list[Drained]:
    """Have the workers of a flow, or the one of this name or id, drain; those that did not yet.

    For the schema's owner, and with the access "operator". Raises FlowNotFound.
    """
    try:
        rows = conn.execute("select * from pgflow.drain_workers(%s, %s)", (flow, worker)).fetchall()
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate == _NO_FLOW:
            raise FlowNotFound(f'There is no flow "{flow}" in this database', hint=WHICH_FLOWS) from None
        raise
    return [Drained(str(row[0]), row[1], row[2]) for row in rows]
