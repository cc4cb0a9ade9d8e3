"""Repeating measurements side by side, and what is said about them: medians, ratios, spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")
P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Samples:
    """Repeated measurements of one thing, in the order they were taken."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def per(self, amount: float) -> Samples:
        """``amount`` divided by each value: rates from times."""
        return Samples(tuple(amount / value for value in self.values))


def take_turns(places: Mapping[K, P], measure: Callable[[P], T], repeats: int) -> dict[K, list[T]]:
    """Measure in every place ``repeats`` times, once in each per round, every second round backwards.

    Whatever disturbs the machine for a while then disturbs all of them.
    """
    found: dict[K, list[T]] = {name: [] for name in places}
    for number in range(repeats):
        names = list(places) if number % 2 == 0 else list(reversed(list(places)))
        for name in names:
            found[name].append(measure(places[name]))
    return found


def interleave(variants: Mapping[K, Callable[[], float]], repeats: int) -> dict[K, Samples]:
    """Run every variant ``repeats`` times, taking turns."""
    found = take_turns(variants, lambda variant: variant(), repeats)
    return {name: Samples(tuple(values)) for name, values in found.items()}


def ratio(over: Samples, under: Samples) -> Samples:
    """``over / under`` of each round: neighbours in time are compared with each other."""
    return Samples(tuple(a / b for a, b in zip(over.values, under.values, strict=True)))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of a straight line through the points' logarithms: 1 means that y grows like x."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(y) for _, y in points]
    return statistics.linear_regression(xs, ys).slope


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0..1) of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
