"""What lanes did over time: a row each, a colour for each step, fainter where a lane was idle in between.

However many spans there are, the drawing is as large as its pixels: spans are summed by row, column and
step, and neighbouring columns that look alike are one stroke. More lanes than ``MOST_ROWS`` are shown by
worker, more workers than that as the first of them and one row for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from pgflow_mp.observe.drawings.palette import HUES
from pgflow_mp.observe.drawings.svg import drawing, element, label, places, seconds, time_ticks, title
from pgflow_mp.observe.text import plural, shorten_middle
from pgflow_mp.observe.work_reports import SpanReport

MOST_ROWS: Final = 48
_MOST_CELLS: Final = 18_000
"""Rows times columns: some 250 kB at the very worst."""
_LEFT: Final = 150.0
_WIDTH: Final = 960.0
_LEVELS: Final = (0.25, 0.5, 0.8)
"""Shares of a column that is busy, up to which it is drawn in three fainter shades."""


class _Row:
    """Busy seconds by column and step, and failures by column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes: set[tuple[str, int]] = set()
        self.columns: dict[int, dict[int, float]] = {}
        self.failed: dict[int, int] = {}
        self.busy = 0.0
        self.items = 0


def timeline(
    spans: Iterable[SpanReport], begin: datetime, end: datetime, name: str = "Lanes over time"
) -> str:
    """Draw what was done between ``begin`` and ``end``; what lies outside is cut off."""
    kept = [each for each in spans if each.ended_at >= begin and each.started_at <= end]
    if not kept or end <= begin:
        return drawing(
            "timeline", 400, 40, name, "nothing was recorded", [label(8, 24, "nothing was recorded", "faint")]
        )
    steps = list(dict.fromkeys(each.step_slug for each in sorted(kept, key=lambda each: each.started_at)))
    names = _row_names(kept)
    rows = {each: _Row(each) for each in dict.fromkeys(names.values())}
    columns = min(int(_WIDTH - _LEFT - 10), max(120, _MOST_CELLS // len(rows)))
    whole = (end - begin).total_seconds()
    width = whole / columns
    hue_of = {step: number for number, step in enumerate(steps)}
    for each in kept:
        _add(rows[names[each.worker, each.lane]], each, hue_of[each.step_slug], begin, width, columns)
    tall = 16.0 if len(rows) <= 16 else 12.0
    top = 24.0 + 16 * -(-min(len(steps), HUES + 1) // 4)
    bottom = top + tall * len(rows)
    parts = [*_legend(steps), *_axis(whole, top, bottom)]
    for number, row in enumerate(rows.values()):
        parts += _draw(row, top + tall * number, tall, width, columns, whole)
    described = (
        f"{plural(len({(each.worker, each.lane) for each in kept}), 'lane')} over {seconds(whole)}, "
        f"{plural(sum(each.items for each in kept), 'item')} of {plural(len(steps), 'step')}"
    )
    return drawing("timeline", _WIDTH, bottom + 24, name, described, parts)


def _row_names(spans: Sequence[SpanReport]) -> dict[tuple[str, int], str]:
    """The row of each lane: its own, its worker's, or that of all others."""
    lanes = sorted(
        {(each.worker, each.lane) for each in spans}, key=lambda each: (_natural(each[0]), each[1])
    )
    workers = list(dict.fromkeys(worker for worker, _ in lanes))
    if len(lanes) <= MOST_ROWS:
        named = _unlike(workers, 12)
        return {
            (worker, lane): f"{named[worker]} lane {lane}" if len(workers) > 1 else f"lane {lane}"
            for worker, lane in lanes
        }
    named = _unlike(workers if len(workers) <= MOST_ROWS else workers[: MOST_ROWS - 1], 20)
    others = plural(len(workers) - len(named), "other worker")
    return {(worker, lane): named.get(worker, others) for worker, lane in lanes}


def _unlike(workers: Sequence[str], limit: int) -> dict[str, str]:
    """Their names, shortened so that each has another one."""
    named = {worker: shorten_middle(worker, limit) for worker in workers}
    if len(set(named.values())) < len(named):
        named = {
            worker: f"{number}: {shorten_middle(worker, limit - 5)}"
            for number, worker in enumerate(workers, 1)
        }
    return named


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which host-9 comes before host-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,18})", name)]


def _add(row: _Row, span: SpanReport, step: int, begin: datetime, width: float, columns: int) -> None:
    row.lanes.add((span.worker, span.lane))
    row.items += span.items
    start, stop = (span.started_at - begin).total_seconds(), (span.ended_at - begin).total_seconds()
    share = 1.0 if stop <= start else min(1.0, max(0.0, span.seconds / (stop - start)))
    first, last = max(0.0, start / width), min(float(columns), stop / width)
    for column in range(int(first), min(columns, int(last) + 1)):
        inside = min(last, column + 1.0) - max(first, float(column))
        if inside > 0:
            by_step = row.columns.setdefault(column, {})
            by_step[step] = by_step.get(step, 0.0) + inside * share
            row.busy += inside * width * share
    if span.failed:
        column = min(columns - 1, max(0, int(last - 1e-9)))
        row.failed[column] = row.failed.get(column, 0) + span.failed


def _runs(row: _Row, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """(hue, level, first column, columns) of what looks alike; the step that took most has the column."""
    capacity = len(row.lanes)
    before: tuple[int, int, int, int] | None = None
    for column in range(columns):
        by_step = row.columns.get(column)
        if not by_step:
            continue
        step = max(by_step, key=lambda each: by_step[each])
        share = sum(by_step.values()) / capacity
        level = next((number for number, limit in enumerate(_LEVELS, 1) if share <= limit), 4)
        hue = step % HUES
        if before and before[:2] == (hue, level) and before[2] + before[3] == column:
            before = (*before[:3], before[3] + 1)
            continue
        if before:
            yield before
        before = (hue, level, column, 1)
    if before:
        yield before


def _draw(row: _Row, top: float, tall: float, width: float, columns: int, whole: float) -> list[str]:
    """A path for each colour and shade, a mark below failures, the row's name."""
    pixels = (_WIDTH - _LEFT - 10) / columns
    middle = places(top + tall / 2)
    paths: dict[tuple[int, int], list[str]] = {}
    for hue, level, first, many in _runs(row, columns):
        stroke = f"M{places(_LEFT + first * pixels)} {middle}h{places(many * pixels)}"
        paths.setdefault((hue, level), []).append(stroke)
    parts = [
        element(
            "path",
            class_=f"lane hue{hue}" + (f" full{level}" if level < 4 else ""),
            stroke_width=tall - 2,
            d="".join(strokes),
        )
        for (hue, level), strokes in paths.items()
    ]
    marks = "".join(
        f"M{places(_LEFT + column * pixels - 1)} {places(top + tall - 4)}h3v3h-3z"
        for column in sorted(row.failed)
    )
    if marks:
        parts.append(
            element("path", title(f"{plural(sum(row.failed.values()), 'failure')}"), class_="fail", d=marks)
        )
    share = row.busy / (whole * len(row.lanes))
    told = f"{row.name}: {plural(row.items, 'item')}, busy {share:.0%}"
    if row.failed:
        told += f", {plural(sum(row.failed.values()), 'failure')}"
    name = label(_LEFT - 8, top + tall - 3, shorten_middle(row.name, 20), "end" if tall > 12 else "end faint")
    return [element("g", title(told) + name + "".join(parts))]


def _axis(span: float, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in time_ticks(span):
        x = _LEFT + (_WIDTH - _LEFT - 10) * tick / span
        parts.append(element("path", class_="grid", d=f"M{places(x)} {places(top)}V{places(bottom + 4)}"))
        where = "faint mid" if x < _WIDTH - 30 else "faint end"
        parts.append(label(x, bottom + 17, seconds(tick), where))
    return parts


def _legend(steps: Sequence[str]) -> list[str]:
    """Up to four names a line; steps beyond the colours there are share them."""
    parts = []
    for number, step in enumerate(steps[: HUES + 1]):
        x, y = _LEFT + 200 * (number % 4), 14.0 + 16 * (number // 4)
        if number == HUES:
            parts.append(label(x, y, f"and {len(steps) - HUES} more in these colours", "faint"))
            break
        square = element("rect", class_=f"hue{number}", x=x, y=y - 9, width=10, height=10, rx=2)
        parts.append(element("g", title(step) + square + label(x + 15, y, shorten_middle(step, 26))))
    return parts
