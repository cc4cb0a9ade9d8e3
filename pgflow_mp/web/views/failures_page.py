"""What failed of a step: all groups of alike errors, or the items of one of them."""

from __future__ import annotations

from itertools import islice
from typing import Final

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.observe import grouping
from pgflow_mp.observe.reports import RunFailures
from pgflow_mp.observe.run_reports import RunDetails
from pgflow_mp.web.kept import kept
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.views.run_page import failures_of, known_run
from pgflow_mp.web.views.step_page import known_step

PAGE: Final = 50
_GROUPS: Final = 100


def failures(conn: Connection, asked: PageQuery) -> Drawn:
    """Groups, or with ``error=`` the items whose error has this text."""
    run = known_run(conn, asked)
    step = known_step(run, asked.pieces["step"])
    text, start = asked.text("error"), asked.number("start", 0)
    items, more = [], False
    if text is not None:
        steps = engine.run_progress(conn, run.run_id)
        found = grouping.iter_items(conn, run.run_id, steps, step=step.step_slug, text=text, start=start)
        items = list(islice(found, PAGE + 1))
        more, items = len(items) > PAGE, items[:PAGE]
    values = {
        "run": run,
        "step": step,
        "text": text,
        "items": items,
        "failures": _groups(conn, run, step.step_slug) if text is None else None,
        "first": asked.link(start=None) if start else None,
        "next": asked.link(start=items[-1].index + 1) if more else None,
        "asked": asked,
    }
    return Drawn("failures.html", {}, values, over=True)


def _groups(conn: Connection, run: RunDetails, step: str) -> RunFailures:
    key = ("groups", conn.info.dsn, run.run_id, step, run.status, run.finished_at, not run.counts.failed)
    return kept(key, lambda: failures_of(conn, run, _GROUPS, step))
