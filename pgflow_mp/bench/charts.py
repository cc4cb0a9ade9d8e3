"""Line charts as inline SVG, drawn by hand so that a page needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Final

from pgflow_mp.bench.findings import Chart

WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 36, 46
_COLOURS: Final = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")

Scale = Callable[[float], float]


def svg(chart: Chart) -> str:
    """The chart as one ``<svg>`` element; every point has its figures as a tooltip."""
    xs = [x for series in chart.series for x, _ in series.points]
    ys = [y for series in chart.series for _, y in series.points]
    if chart.reference is not None:
        ys.append(chart.reference[0])
    if not xs:
        return ""
    x_ticks, x_of = _axis(xs, chart.x_scale, _LEFT, WIDTH - _RIGHT)
    if chart.y_scale == "linear":
        ys.append(0.0)
    y_ticks, y_of = _axis(ys, chart.y_scale, HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">',
        f'<text x="{_LEFT}" y="18" class="title">{escape(chart.title)}</text>',
    ]
    for tick in x_ticks:
        x = x_of(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}" class="tick mid">{number(tick)}</text>')
    for tick in y_ticks:
        y = y_of(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="tick end">{number(tick)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" class="tick mid">{escape(chart.x)}</text>')
    parts.append(
        f'<text x="14" y="{HEIGHT / 2}" class="tick mid" transform="rotate(-90 14 {HEIGHT / 2})">'
        f"{escape(chart.y)}</text>"
    )
    if chart.reference is not None:
        y = y_of(chart.reference[0])
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="limit"/>')
        label = escape(chart.reference[1])
        parts.append(f'<text x="{WIDTH - _RIGHT - 4}" y="{y - 5:.1f}" class="tick end">{label}</text>')
    for place, series in enumerate(chart.series):
        parts += _line(chart, place, [(x_of(x), y_of(y), x, y) for x, y in series.points])
    parts += _legend(chart)
    return "\n".join([*parts, "</svg>"])


def _line(chart: Chart, place: int, points: list[tuple[float, float, float, float]]) -> list[str]:
    colour = _COLOURS[place % len(_COLOURS)]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in points)
    dots = [
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"><title>'
        f"{escape(chart.series[place].name)}: {number(x)} {escape(chart.x)}, {number(y)} {escape(chart.y)}"
        "</title></circle>"
        for px, py, x, y in points
    ]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _legend(chart: Chart) -> list[str]:
    parts = []
    for place, series in enumerate(chart.series):
        y = HEIGHT - _BOTTOM - 12 - 16 * (len(chart.series) - 1 - place)
        x = WIDTH - _RIGHT - 210
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="{y - 8}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="{y + 1}" class="tick">{escape(series.name)}</text>')
    return parts


def _axis(values: list[float], scale: str, first: float, last: float) -> tuple[list[float], Scale]:
    """Ticks, and where a value lies between the pixels ``first`` and ``last``."""
    if scale == "log":
        low = math.floor(math.log10(max(1e-12, min(values))))
        high = math.ceil(math.log10(max(1e-12, *values)))
        high = max(high, low + 1)
        ticks = [10.0**power for power in range(low, high + 1)]

        def place(value: float) -> float:
            return first + (math.log10(max(1e-12, value)) - low) / (high - low) * (last - first)

        return ticks, place
    lowest, step = min(values), _step(max(values) - min(values))
    bottom = math.floor(lowest / step) * step
    top = max(math.ceil(max(values) / step) * step, bottom + step)
    ticks = [bottom + step * i for i in range(round((top - bottom) / step) + 1)]
    return ticks, lambda value: first + (value - bottom) / (top - bottom) * (last - first)


def _step(span: float) -> float:
    """A round number of which about five make up ``span``."""
    raw = (span or 1.0) / 5
    base: float = 10.0 ** math.floor(math.log10(raw))
    return next(factor * base for factor in (1, 2, 5, 10) if factor * base >= raw * 0.999)


def number(value: float) -> str:
    """1k, 25M, 0.1: short enough for an axis."""
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"
