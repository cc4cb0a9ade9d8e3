"""Runs that are in some states, sought for so long as a reader may be kept waiting."""

from __future__ import annotations

from itertools import islice
from typing import Final, Unpack

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads.lists import Mark
from pgflow_mp.observe.read_reports import PAGE, mark_of, pages_of_runs
from pgflow_mp.observe.run_reports import RunReport, Sought

_ROUNDS: Final = 3
"""So often runs are read in one search."""


def search_runs(
    conn: Connection, limit: int = PAGE, *, before: Mark | None = None, **sought: Unpack[Sought]
) -> tuple[list[RunReport], Mark | None]:
    """What ``read_runs`` answers, or less of it, and behind which run to go on, None at the end.

    No more than some hundred runs are looked at, however rare those that are wanted are.
    """
    found: list[RunReport] = []
    pages = pages_of_runs(conn, limit + 1, before, **sought)
    for page, behind in islice(pages, _ROUNDS):
        found, before = found + page, behind
        if len(found) > limit:
            return found[:limit], mark_of(found[limit - 1])
    return found, before
