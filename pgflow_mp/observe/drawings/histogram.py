"""How long items took: counts by time on a logarithmic axis, with the median, p99 and the tail behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from pgflow_mp.observe.drawings.svg import count, drawing, element, label, places, seconds, ticks, title
from pgflow_mp.observe.text import plural
from pgflow_mp.time_buckets import edge, quantile

_WIDTH: Final = 640.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 40.0, 190.0
_NAME: Final = 90.0
"""Pixels that the name of a mark needs."""
_PLACES: Final = (
    ((0, "mid"), (0, "mid")),
    ((0, "mid"), (0, "end")),
    ((0, "end"), (0, "mid")),
    ((0, "end"), (0, "start")),
    ((0, "end"), (1, "end")),
    ((1, "start"), (0, "start")),
)
"""Where the names of the median and of p99 may be, the best first: (row above the bars, anchor)."""


class _Bar(NamedTuple):
    """``items`` took at least ``low`` and less than ``high`` seconds."""

    low: float
    high: float
    items: int


def histogram(
    counts: Sequence[int], *, slowest: float | None = None, name: str = "Item times", what: str = "item"
) -> str:
    """Draw the ``counts`` of each bucket of ``time_buckets``, of so many of ``what``."""
    filled = [_Bar(edge(bucket), edge(bucket + 1), items) for bucket, items in enumerate(counts) if items > 0]
    if not filled:
        return drawing(
            "histogram",
            400,
            40,
            name,
            f"no {what} has ended",
            [label(8, 24, f"no {what} has ended", "faint")],
        )
    slowest = filled[-1].high if slowest is None else slowest
    p50, p99 = (min(slowest, quantile(counts, share) or 0.0) for share in (0.5, 0.99))
    low = math.log10(filled[0].low)
    high = math.log10(max(filled[-1].high, slowest))
    if high - low < 1:  # of times that are all alike a decade is shown
        low, high = (low + high - 1) / 2, (low + high + 1) / 2

    def x_of(time: float) -> float:
        share = (math.log10(max(time, 1e-9)) - low) / (high - low)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, max(0.0, share))

    levels = ticks(max(each.items for each in filled))
    parts = []
    for level in levels:
        y = _y_of(level / levels[-1])
        parts.append(
            element("path", class_="grid", d=f"M{places(_LEFT)} {places(y)}H{places(_WIDTH - _RIGHT)}")
        )
        parts.append(label(_LEFT - 6, y + 4, count(level), "faint end"))
    times = _round_times(low, high, _WIDTH - _LEFT - _RIGHT)
    for time in times:
        x = x_of(time)
        if x > _WIDTH - 2 * _RIGHT:  # as far to the right as there is room for it
            parts.append(label(min(_WIDTH, x + _RIGHT), _BOTTOM + 16, seconds(time), "faint end"))
        else:
            parts.append(label(x, _BOTTOM + 16, seconds(time), "faint mid"))
    for each in filled:
        left, right = x_of(each.low), x_of(each.high)
        y = min(_y_of(each.items / levels[-1]), _BOTTOM - 1.5)  # a single item in a million is seen
        told = f"{seconds(each.low)} to {seconds(each.high)}: {plural(each.items, what)}"
        bar = element(
            "rect",
            title(told),
            class_="bar tail" if each.low >= p99 else "bar",
            x=left,
            y=y,
            width=max(0.8, right - left - 0.6),
            height=_BOTTOM - y,
        )
        parts.append(bar)
    whole = sum(each.items for each in filled)
    parts += _marks((x_of(p50), f"p50 {seconds(p50)}"), (x_of(p99), f"p99 {seconds(p99)}"))
    tail = sum(each.items for each in filled if each.low >= p99)
    said = f"slowest {seconds(slowest)}" + (f"; {plural(tail, what)} beyond p99" if tail else "")
    parts.append(label(_WIDTH - _RIGHT, _BOTTOM + 34, said, "faint end"))
    parts.append(label(_LEFT, _BOTTOM + 34, f"{plural(whole, what)}, time on a logarithmic axis", "faint"))
    described = f"{plural(whole, what)}: p50 {seconds(p50)}, p99 {seconds(p99)}, {said}"
    return drawing("histogram", _WIDTH, _BOTTOM + 42, name, described, parts)


def _y_of(share: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share


def _marks(p50: tuple[float, str], p99: tuple[float, str]) -> list[str]:
    """Dashed lines with their names above; no name covers the other, no line crosses the other's name."""
    fits = (each for each in _PLACES if _fit(p50[0], *each[0], p99[0], *each[1]))
    parts = []
    for (x, text), (row, anchor) in zip((p50, p99), next(fits, _PLACES[-1]), strict=True):
        high = _TOP - 9 - 15 * row
        parts.append(element("path", class_="mark", d=f"M{places(x)} {places(high + 4)}V{places(_BOTTOM)}"))
        aside = {"start": -1, "mid": 0, "end": 1}[anchor]
        parts.append(label(x + aside, high, text, f"strong {anchor}"))
    return parts


def _fit(first: float, row: int, anchor: str, second: float, other_row: int, other_anchor: str) -> bool:
    (left, right), (other_left, other_right) = _extent(first, anchor), _extent(second, other_anchor)
    inside = left >= 0 and other_right <= _WIDTH
    return inside and (row != other_row or right <= other_left or other_right <= left)


def _extent(x: float, anchor: str) -> tuple[float, float]:
    left = x - {"start": 0.0, "mid": _NAME / 2, "end": _NAME}[anchor]
    return left, left + _NAME


def _round_times(low: float, high: float, pixels: float) -> list[float]:
    """Times that clocks have between two powers of ten, as many as have ``_NAME`` / 2 pixels each."""
    exact = [factor * 10.0**power for power in range(-7, 2) for factor in (1.0, 2.0, 5.0)]
    powers = [10.0**power for power in range(-7, 2)] + [60.0, 600.0, 3600.0, 36000.0, 864e3, 864e4]
    longer = [unit * factor for unit in (60, 600, 3600, 86400, 864000) for factor in (1.0, 2.0, 5.0)]
    found: list[float] = []
    for time in (*powers, *exact, *longer):
        place = math.log10(time)
        near = (abs(place - math.log10(other)) * pixels / (high - low) < _NAME / 2 for other in found)
        if low - 1e-9 <= place <= high + 1e-9 and not any(near):
            found.append(time)
    return sorted(found)
