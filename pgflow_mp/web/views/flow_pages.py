"""Flows, and one of them with its latest runs."""

from __future__ import annotations

from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists
from pgflow_mp.errors import FlowNotFound
from pgflow_mp.observe import read_reports
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.sentences import sentences

_PAGE: Final = 100
_RUNS: Final = 15


def flows(conn: Connection, asked: PageQuery) -> Drawn:
    """A page of flows by name."""
    after = asked.text("after") or ""
    found = read_reports.read_flows(conn, _PAGE + 1, after=after)
    more, found = len(found) > _PAGE, found[:_PAGE]
    values = {
        "flows": found,
        "first": asked.link(after=None) if after else None,
        "next": asked.link(after=found[-1].flow_slug) if more else None,
        "asked": asked,
    }
    return Drawn("flows.html", {"flows": "parts/flows.html"}, values)


def flow(conn: Connection, asked: PageQuery) -> Drawn:
    """One flow."""
    found = read_reports.read_flow(conn, asked.pieces["flow"])
    if found is None:
        raise FlowNotFound(
            f'There is no flow "{asked.pieces["flow"]}" in this database',
            hint="It was deleted, or is not yours to see.",
        )
    values = {
        "flow": found,
        "settings": lists.flow_settings(conn, found.flow_slug),
        "runs": read_reports.read_runs(conn, _RUNS, flow=found.flow_slug),
        "sentences": sentences([found], []),
        "asked": asked,
    }
    return Drawn("flow.html", {"flow": "parts/flow.html"}, values)
