"""Runs in a table, a line each, for the commands that list them."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.table import Column, Table
from rich.text import Text

from pgflow_mp.cli.screen import console, paint
from pgflow_mp.observe.text import duration
from pgflow_mp.observe.wording import state_of_run
from pgflow_mp.redaction import printable

if TYPE_CHECKING:
    from pgflow_mp.observe.run_reports import RunReport

NARROWEST: Final = 80
"""Columns: what is cut off in a narrower terminal cannot be copied."""
_ID_AS_GOOD: Final = 13  # characters that name a run as well as all 36, where flows have long names


def print_runs(runs: list[RunReport]) -> None:
    """A table of these runs on standard output, in this order."""
    has_keys, has_tags = any(run.key for run in runs), any(run.tags for run in runs)
    table = Table(
        Column("run", no_wrap=True),
        Column("flow", min_width=4),
        *([Column("key", min_width=4)] if has_keys else []),
        *([Column("tags", min_width=4)] if has_tags else []),
        Column("status", no_wrap=True),
        Column("items", justify="right", no_wrap=True),
        Column("started", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    screen = console(sys.stdout)
    screen.width = max(screen.width, NARROWEST)
    rows = []
    for run in runs:
        items = f"{run.items:,}" if run.done >= run.items else f"{run.done:,}/{run.items:,}"
        names = [run.flow_slug]
        names += [printable(run.key or "")] if has_keys else []
        names += [", ".join(run.tags)] if has_tags else []
        rows.append(
            (run.run_id, *names, state_of_run(run), items, ago(run.started_at), duration(run.seconds))
        )
    lacking = sum(max(map(len, column)) for column in zip(*rows, strict=True)) - screen.width
    lacking += 2 * (len(rows[0]) - 1)
    shown = 36 if lacking <= 0 else max(_ID_AS_GOOD, 36 - lacking)
    for run, (run_id, *names, status, count, began, took) in zip(runs, rows, strict=True):
        cells = [Text(name, no_wrap=True, overflow="ellipsis") for name in names]
        table.add_row(run_id[:shown], *cells, paint(status, run.state), count, began, took)
    screen.print(table)


def ago(when: datetime) -> str:
    """How long ago this was, roughly; a date where that is longer ago than two weeks."""
    seconds = (datetime.now(when.tzinfo) - when).total_seconds()
    for limit, unit, word in (
        (60, 1, "s"),
        (3600, 60, "min"),
        (86400, 3600, "h"),
        (14 * 86400, 86400, "days"),
    ):
        if seconds < limit:
            number = int(max(0, seconds) // unit)
            return f"{number} {word[:-1] if word == 'days' and number == 1 else word} ago"
    return f"{when.astimezone():%Y-%m-%d}"
