"""Runs, newest first, chosen by filters, a page at a time; ticked or chosen ones can be acted upon."""

from __future__ import annotations

from typing import Final, cast

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads.lists import Mark
from pgflow_mp.errors import InputError
from pgflow_mp.observe.run_reports import STATUSES, RunReport, RunState
from pgflow_mp.observe.run_search import search_runs
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn

PAGE: Final = 50
FILTERS: Final = ("flow", "state", "tag", "key", "since", "until")


class RunFilter:
    """Which runs are meant, as a query says it."""

    def __init__(self, asked: PageQuery) -> None:
        self.flow = asked.text("flow")
        self.state = cast("RunState | None", asked.choice("state", tuple(STATUSES)))
        self.tags, self.key = (asked.text("tag") or "").replace(",", " ").split(), asked.text("key")
        self.since, self.until = asked.moment("since"), asked.moment("until")
        at, run = asked.moment("after"), asked.identity("run")
        if (at is None) != (run is None):
            raise InputError("This address of a further page lacks a part")
        self.mark = None if at is None or run is None else (at, run)

    def read(self, conn: Connection, limit: int) -> tuple[list[RunReport], Mark | None]:
        """So many of them, newest first, or fewer where they are rare; and behind which to go on."""
        return search_runs(
            conn,
            limit,
            flow=self.flow,
            states=None if self.state is None else [self.state],
            since=self.since,
            until=self.until,
            tags=self.tags,
            key=self.key,
            before=self.mark,
        )


def runs(conn: Connection, asked: PageQuery) -> Drawn:
    """A page of runs."""
    wanted = RunFilter(asked)
    found, after = wanted.read(conn, PAGE)
    values = {
        "runs": found,
        "states": list(STATUSES),
        "filters": {name: asked.query.get(name, "") for name in FILTERS},
        "filtered": any(asked.query.get(name) for name in FILTERS),
        "first": asked.link(after=None, run=None) if wanted.mark else None,
        "next": asked.link(after=after[0].isoformat(), run=after[1]) if after else None,
        "far": after is not None and len(found) < PAGE,
        "asked": asked,
    }
    return Drawn("runs.html", {"runs": "parts/runs.html"}, values)
