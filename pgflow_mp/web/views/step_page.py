"""The items of a step by index, chosen by status."""

from __future__ import annotations

from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import FlowNotFound
from pgflow_mp.observe import read_reports
from pgflow_mp.observe.run_reports import RunDetails, StepReport
from pgflow_mp.web.questions import PageQuery, way
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.views.run_page import known_run

PAGE: Final = 50
STATUSES: Final = ("queued", "started", "completed", "failed", "cancelled", "skipped")
"""Of ``pgflow.items``."""
_CHARS: Final = 120


def known_step(run: RunDetails, slug: str) -> StepReport:
    """The step of a run. Raises FlowNotFound."""
    step = run.step(slug)
    if step is None:
        raise FlowNotFound(
            f'Step "{slug}" does not exist in flow "{run.flow_slug}"',
            hint=f"Its steps are {', '.join(each.step_slug for each in run.steps)}.",
        )
    return step


def step(conn: Connection, asked: PageQuery) -> Drawn:
    """A page of items, from an index on."""
    run = known_run(conn, asked)
    found = known_step(run, asked.pieces["step"])
    status, start = asked.choice("status", STATUSES), asked.number("start", 0)
    items = read_reports.read_items(
        conn,
        run.run_id,
        found.step_slug,
        PAGE + 1,
        start=start,
        statuses=None if status is None else [status],
        chars=_CHARS,
    )
    more, items = len(items) > PAGE, items[:PAGE]
    values = {
        "run": run,
        "step": found,
        "items": items,
        "status": status,
        "start": start,
        "statuses": STATUSES,
        "first": asked.link(start=None) if start else None,
        "next": asked.link(start=items[-1].index + 1) if more else None,
        "download": way("runs", run.run_id, "steps", found.step_slug, "items.jsonl"),
        "asked": asked,
    }
    return Drawn("step.html", {"items": "parts/items.html"}, values, over=run.finished_at is not None)
