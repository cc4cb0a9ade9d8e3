"""One item: what it was given, what came out or went wrong, and how to execute it again."""

from __future__ import annotations

from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import InputError
from pgflow_mp.observe import read_reports
from pgflow_mp.observe.text import essence
from pgflow_mp.web.commands import command_line
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.views.run_page import known_run
from pgflow_mp.web.views.step_page import known_step

CHARS: Final = 20_000
"""Of an input and of an output; the whole of them is in the download."""


def item(conn: Connection, asked: PageQuery) -> Drawn:
    """The page of an item."""
    run = known_run(conn, asked)
    step = known_step(run, asked.pieces["step"])
    found = read_reports.read_items(conn, run.run_id, step.step_slug, 1, start=asked.index, chars=CHARS)
    if not found or found[0].index != asked.index:
        trouble = InputError(
            f'Step "{step.step_slug}" has no item {asked.index} yet',
            hint="Its items are made when the step starts, in windows if there are very many.",
        )
        raise trouble
    one = found[0]
    here = [str(asked.index), "FLOW"]  # the file or module, which the database does not know
    values = {
        "run": run,
        "step": step,
        "item": one,
        "line": essence(one.error, 300, beside=(step.step_slug, one.index)) if one.error else "",
        "shared": step.storage == "ranges" and one.status == "completed",
        "whole": CHARS,
        "replay": command_line("replay", run.run_id, step.step_slug, *here, options=asked.options),
        "asked": asked,
    }
    return Drawn("item.html", {"item": "parts/item.html"}, values, over=one.finished_at is not None)
