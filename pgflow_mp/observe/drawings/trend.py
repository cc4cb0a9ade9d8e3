"""Numbers over time as lines: lanes in use, items a second, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pgflow_mp.observe.drawings.palette import HUES
from pgflow_mp.observe.drawings.svg import (
    count,
    drawing,
    element,
    label,
    places,
    seconds,
    ticks,
    time_ticks,
    title,
)
from pgflow_mp.observe.text import shorten_middle

_WIDTH: Final = 640.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 30.0, 160.0
_MOST_POINTS: Final = 560
"""One a pixel: of more, the means of those that share one are drawn."""


class Curve(NamedTuple):
    """A line by its points (seconds, value), in order of time; where ``None``, nothing is known."""

    name: str
    points: Sequence[tuple[float, float | None]]


def trend(
    curves: Sequence[Curve],
    *,
    name: str,
    unit: Callable[[float], str] = count,
    limit: tuple[float, str] | None = None,
    begin: float | None = None,
    end: float | None = None,
) -> str:
    """Draw the curves on an axis from 0; ``limit`` is a value that is marked and named, such as all lanes."""
    known = [(time, value) for curve in curves for time, value in curve.points if value is not None]
    if not known:
        return drawing(
            "trend", 400, 40, name, "nothing was recorded", [label(8, 24, "nothing was recorded", "faint")]
        )
    first = min(time for time, _ in known) if begin is None else begin
    last = max(time for time, _ in known) if end is None else end
    span = max(last - first, 1e-9)
    highest = max(value for _, value in known)
    levels = ticks(max(highest, limit[0] if limit else 0.0) or 1.0, 3)
    top = levels[-1]

    def x_of(time: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, max(0.0, (time - first) / span))

    def y_of(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * min(1.0, max(0.0, value / top))

    parts = []
    for level in levels:
        y = y_of(level)
        parts.append(
            element("path", class_="grid", d=f"M{places(_LEFT)} {places(y)}H{places(_WIDTH - _RIGHT)}")
        )
        parts.append(label(_LEFT - 6, y + 4, unit(level), "faint end"))
    for tick in time_ticks(span):
        x = x_of(first + tick)
        parts.append(label(x, _BOTTOM + 16, seconds(tick), "faint end" if x > _WIDTH - 40 else "faint mid"))
    if limit:
        y = y_of(limit[0])
        parts.append(
            element("path", class_="mark", d=f"M{places(_LEFT)} {places(y)}H{places(_WIDTH - _RIGHT)}")
        )
        parts.append(label(_WIDTH - _RIGHT, y - 4, limit[1], "faint end"))
    for number, curve in enumerate(curves):
        parts += _line(curve, number % HUES, x_of, y_of, filled=len(curves) == 1)
        parts.append(_named(curve.name, number))
    told = "; ".join(_described(curve, unit) for curve in curves)
    return drawing("trend", _WIDTH, _BOTTOM + 24, name, f"over {seconds(span)}: {told}", parts)


def _described(curve: Curve, unit: Callable[[float], str]) -> str:
    values = [value for _, value in curve.points if value is not None]
    if not values:
        return f"{curve.name}: not known"
    return f"{curve.name}: mean {unit(sum(values) / len(values))}, highest {unit(max(values))}"


def _named(name: str, number: int) -> str:
    x = _LEFT + 140 * number
    square = element("rect", class_=f"hue{number % HUES}", x=x, y=5, width=10, height=10, rx=2)
    return element("g", title(name) + square + label(x + 15, 14, shorten_middle(name, 18)))


def _line(
    curve: Curve, hue: int, x_of: Callable[[float], float], y_of: Callable[[float], float], *, filled: bool
) -> list[str]:
    """The line, broken where nothing is known, and a faint area below it."""
    parts: list[str] = []
    piece: list[tuple[float, float]] = []
    for time, value in [*_fewer(curve.points), (0.0, None)]:
        if value is not None:
            piece.append((x_of(time), y_of(value)))
            continue
        if piece:
            if len(piece) == 1:
                piece.append((piece[0][0] + 1.5, piece[0][1]))
            line = "L".join(f"{places(x)} {places(y)}" for x, y in piece)
            if filled:
                ground = places(_BOTTOM)
                closed = f"M{places(piece[0][0])} {ground}L{line}L{places(piece[-1][0])} {ground}z"
                parts.append(element("path", class_=f"area hue{hue}", d=closed))
            parts.append(element("path", class_=f"curve hue{hue}", d=f"M{line}"))
        piece = []
    return parts


def _fewer(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most one point a pixel, the mean of those it stands for."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    found: list[tuple[float, float | None]] = []
    for number in range(_MOST_POINTS):
        some = points[number * len(points) // _MOST_POINTS : (number + 1) * len(points) // _MOST_POINTS]
        values = [value for _, value in some if value is not None]
        found.append((some[0][0], sum(values) / len(values) if values else None))
    return found
