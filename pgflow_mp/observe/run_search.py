"""Runs that are in some states, sought for so long as a reader may be kept waiting."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists
from pgflow_mp.db.reads.lists import Mark
from pgflow_mp.observe.read_reports import PAGE, SOUGHT, mark_of, reports_of
from pgflow_mp.observe.run_reports import OPEN_STATES, RunReport, RunState

_ROUNDS: Final = 3
"""So often runs are read in one search."""


def search_runs(
    conn: Connection,
    limit: int = PAGE,
    *,
    flow: str | None = None,
    states: Collection[RunState] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tags: Sequence[str] = (),
    key: str | None = None,
    before: Mark | None = None,
) -> tuple[list[RunReport], Mark | None]:
    """What ``read_runs`` answers, or less of it, and behind which run to go on, None at the end.

    No more than some hundred runs are looked at, however rare those that are wanted are.
    """
    statuses = None
    if states is not None:
        statuses = sorted({"started" if state in OPEN_STATES else state for state in states})
    some = set(states or ()).intersection(OPEN_STATES)  # which of them a run is in, only its items tell
    found: list[RunReport] = []
    for _ in range(_ROUNDS):
        size = SOUGHT if some and len(some) < len(OPEN_STATES) else limit + 1
        entries = lists.list_runs(
            conn,
            size,
            flow=flow,
            statuses=statuses,
            since=since,
            until=until,
            tags=tags,
            key=key,
            before=before,
        )
        found += [each for each in reports_of(conn, entries) if states is None or each.state in states]
        if len(found) > limit:
            return found[:limit], mark_of(found[limit - 1])
        if len(entries) < size:
            return found, None
        before = (entries[-1].started_at, entries[-1].run_id)
    return found, before
