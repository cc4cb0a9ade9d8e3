"""What has happened to runs and their steps, as the tables tell it: nothing here depends on who listened."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from pgflow_mp.db.engine import Connection


class EventRow(NamedTuple):
    """A run, or a step of it, came to have a status. ``place`` is its order within them, from 1."""

    run_id: str
    flow_slug: str
    step_slug: str | None
    step_index: int | None
    status: str
    at: datetime
    place: int


def run_events(conn: Connection, run_ids: Collection[str]) -> list[EventRow]:
    """All events of those runs that there are, in no order."""
    rows = conn.execute(
        "select run_id, flow_slug, step_slug, step_index, status, at, place "
        "from pgflow.run_events(%s::uuid[])",
        (list(run_ids),),
        binary=True,
    ).fetchall()
    return [EventRow._make(row) for row in rows]
