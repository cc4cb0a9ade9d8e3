"""What a suite reports: tables, charts, bars and raw numbers. Plain data, for screen, JSON and page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit and what was measured against it. ``holds`` is None if this run cannot tell."""

    what: str
    measured: str
    limit: str
    holds: bool | None

    @classmethod
    def at_least(cls, what: str, value: float, limit: float, form: str = "{:.3g}") -> Bar:
        """A bar that is passed from above."""
        return cls(what, form.format(value), "at least " + form.format(limit), value >= limit)

    @classmethod
    def at_most(cls, what: str, value: float, limit: float, form: str = "{:.3g}") -> Bar:
        """A bar that is passed from below."""
        return cls(what, form.format(value), "at most " + form.format(limit), value <= limit)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under ``columns``; all but the first column are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line."""

    name: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over ``x``. ``reference`` is a horizontal line with its label."""

    title: str
    x: str
    y: str
    series: list[Series]
    x_scale: Literal["log", "linear"] = "log"
    y_scale: Literal["log", "linear"] = "log"
    reference: tuple[float, str] | None = None


@dataclass(slots=True)
class SuiteResult:
    """One suite's results. ``samples`` holds every single measurement, by a name that says what it is."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
