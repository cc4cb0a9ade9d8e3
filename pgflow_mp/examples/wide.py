"""A wide diamond: one root, twelve steps side by side, three joins, and a report at the end.

    python -m pgflow_mp run wide
    python -m pgflow_mp run wide --input '{"values": [3, 1, 4, 1, 5, 9, 2, 6]}'

All twelve figures are computed at the same time, each as soon as ``sample`` is there; each join
starts as soon as its own parents have finished.
"""

from __future__ import annotations

import statistics

import msgspec

from pgflow_mp import Flow, PermanentError

DEFAULT_INPUT = {"values": [2.5, 3.5, 3.5, 4.0, 5.25, 6.0, 7.75, 8.0, 9.5, 20.0]}


class Numbers(msgspec.Struct):
    """Input of the run."""

    values: list[float]


class Center(msgspec.Struct):
    """Where the sample lies."""

    mean: float
    median: float
    mode: float


class Spread(msgspec.Struct):
    """How far the sample reaches."""

    range: float
    middle_half: float
    variance: float
    deviation: float


class Size(msgspec.Struct):
    """How much there is."""

    count: int
    total: float
    squares: float


class Report(msgspec.Struct):
    """Output of the run."""

    size: Size
    center: Center
    spread: Spread
    lopsided: bool


flow = Flow("wide")


@flow.array
def sample(numbers: Numbers) -> list[float]:
    """Sort the values. Too few of them will not get more by trying again: a permanent error."""
    if len(numbers.values) < 2:
        raise PermanentError("The sample needs at least two values")
    return sorted(numbers.values)


@flow.step(depends_on=[sample])
def count(sample: list[float]) -> int:
    return len(sample)


@flow.step(depends_on=[sample])
def total(sample: list[float]) -> float:
    return sum(sample)


@flow.step(depends_on=[sample])
def squares(sample: list[float]) -> float:
    return sum(value * value for value in sample)


@flow.step(depends_on=[sample])
def mean(sample: list[float]) -> float:
    return statistics.fmean(sample)


@flow.step(depends_on=[sample])
def median(sample: list[float]) -> float:
    return statistics.median(sample)


@flow.step(depends_on=[sample])
def mode(sample: list[float]) -> float:
    return statistics.mode(sample)


@flow.step(depends_on=[sample])
def minimum(sample: list[float]) -> float:
    return sample[0]


@flow.step(depends_on=[sample])
def maximum(sample: list[float]) -> float:
    return sample[-1]


@flow.step(depends_on=[sample])
def lower_quartile(sample: list[float]) -> float:
    return statistics.quantiles(sample, method="inclusive")[0]


@flow.step(depends_on=[sample])
def upper_quartile(sample: list[float]) -> float:
    return statistics.quantiles(sample, method="inclusive")[2]


@flow.step(depends_on=[sample])
def variance(sample: list[float]) -> float:
    return statistics.variance(sample)


@flow.step(depends_on=[sample])
def deviation(sample: list[float]) -> float:
    return statistics.stdev(sample)


@flow.step(depends_on=[count, total, squares])
def size(count: int, total: float, squares: float) -> Size:
    """First join."""
    return Size(count=count, total=total, squares=squares)


@flow.step(depends_on=[mean, median, mode])
def center(mean: float, median: float, mode: float) -> Center:
    """Second join."""
    return Center(mean=mean, median=median, mode=mode)


@flow.step(depends_on=[minimum, maximum, lower_quartile, upper_quartile, variance, deviation])
def spread(
    minimum: float,
    maximum: float,
    lower_quartile: float,
    upper_quartile: float,
    variance: float,
    deviation: float,
) -> Spread:
    """Third join."""
    return Spread(
        range=maximum - minimum,
        middle_half=upper_quartile - lower_quartile,
        variance=variance,
        deviation=deviation,
    )


@flow.step(depends_on=[size, center, spread])
def report(size: Size, center: Center, spread: Spread) -> Report:
    """The far end of the diamond."""
    lopsided = abs(center.mean - center.median) > spread.deviation / 4
    return Report(size=size, center=center, spread=spread, lopsided=lopsided)
