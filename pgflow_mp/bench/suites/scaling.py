"""No-op items: throughput and cost per item against the number of items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Bar, Chart, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, interleave, slope
from pgflow_mp.bench.stage import Stage


class Shape(NamedTuple):
    """A flow, its input for N items, and how many tasks that makes."""

    flow: str
    name: str
    input: Callable[[int], Any]
    tasks: Callable[[int], int]


def _numbers(count: int) -> list[int]:
    return list(range(count))


SHAPES: Final = (
    Shape("bench_map", "map", _numbers, lambda n: n),
    Shape("bench_array_map", "array -> map", lambda n: n, lambda n: n + 1),
    Shape("bench_map_map", "map -> map", _numbers, lambda n: 2 * n),
    Shape("bench_map_single", "map -> single", _numbers, lambda n: n + 1),
    Shape("bench_map_map_single", "map -> map -> single", _numbers, lambda n: 2 * n + 1),
)
BASE: Final = 10_000
LIMIT: Final = 1.3


def run(stage: Stage) -> SuiteResult:
    """All shapes, all sizes."""
    sizes = [100, 1_000, 10_000] if stage.quick else [100, 1_000, 10_000, 100_000]
    shapes = (SHAPES[0], SHAPES[2], SHAPES[4]) if stage.quick else SHAPES
    result = SuiteResult("scaling", "No-op items against the number of items")
    times = measure(stage, shapes, sizes, lambda n: stage.repeats(1, 3) if n > 1000 else 5)
    report(result, shapes, sizes, times)
    if sizes[-1] > BASE:
        for shape in shapes:
            result.bars.append(cost_bar(shape, sizes[-1], times))
        result.notes.append("The limit of 1.3 is for 1,000,000 items: python -m pgflow_mp bench million")
    return result


Times = dict[tuple[str, int], Samples]


def measure(
    stage: Stage, shapes: tuple[Shape, ...], sizes: list[int], repeats: Callable[[int], int]
) -> Times:
    """Whole-run seconds by (flow, size), in one database per size."""
    times: Times = {}
    for size in sizes:
        with stage.arena(*[shape.flow for shape in shapes]) as arena:
            for shape in shapes:
                arena.warm_up(shape.flow, shape.input(200))
            stage.say(f"{size:,} items")
            variants = {(shape.flow, size): _runner(arena, shape, size) for shape in shapes}
            times |= interleave(variants, repeats(size))
    return times


def _runner(arena: Arena, shape: Shape, size: int) -> Callable[[], float]:
    given = shape.input(size)
    return lambda: arena.run(shape.flow, given).total


def report(result: SuiteResult, shapes: tuple[Shape, ...], sizes: list[int], times: Times) -> None:
    """Table and chart."""
    rows = []
    for size in sizes:
        cells = [f"{size:,}"]
        for shape in shapes:
            samples = times[shape.flow, size]
            rate = shape.tasks(size) / samples.median
            cells.append(f"{rate:,.0f}/s ±{samples.spread / 2:.0%}")
        rows.append(tuple(cells))
    slopes = ["slope of time"]
    series = []
    for shape in shapes:
        large = [(float(n), times[shape.flow, n].median) for n in sizes if n >= 1000]
        slopes.append(f"{slope(large):.2f}" if len(large) > 1 else "")
        points = [(float(n), shape.tasks(n) / times[shape.flow, n].median) for n in sizes]
        series.append(Series(f"{shape.name} (slope {slopes[-1]})" if slopes[-1] else shape.name, points))
        result.samples[shape.name] = {str(n): list(times[shape.flow, n].values) for n in sizes}
    rows.append(tuple(slopes))
    columns = ("items", *(shape.name for shape in shapes))
    result.tables.append(Table("tasks per second, whole runs", columns, rows))
    result.charts.append(Chart("Throughput against the number of items", "items", "tasks/s", series))


def cost_bar(shape: Shape, size: int, times: Times) -> Bar:
    """Cost per task at ``size`` over that at BASE."""
    large = times[shape.flow, size].median / shape.tasks(size)
    small = times[shape.flow, BASE].median / shape.tasks(BASE)
    return Bar.at_most(f"{shape.name}: cost per item, {size:,} over {BASE:,}", large / small, LIMIT, "{:.2f}")
