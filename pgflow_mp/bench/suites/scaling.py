"""No-op items: throughput and cost per item against the number of items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Bar, Chart, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, interleave, slope
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES, RATIO, TASKS, rates


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
LIMITS: Final = {TASKS: 1.3, RANGES: 1.2}
"""What an item may cost in a large map, over one in a map of BASE items, by storage."""


def run(stage: Stage) -> SuiteResult:
    """All shapes, all sizes."""
    sizes = [100, 1_000, 10_000] if stage.quick else [100, 1_000, 10_000, 100_000]
    shapes = (SHAPES[0], SHAPES[2], SHAPES[4]) if stage.quick else SHAPES
    result = SuiteResult("scaling", "No-op items against the number of items")
    times = measure(stage, shapes, sizes, lambda n: stage.repeats(1, 3) if n > 1000 else 5)
    for storage in stage.storages:
        report(result, storage, shapes, sizes, times)
    if len(stage.storages) > 1:
        result.tables.append(_ratios(shapes, sizes, times))
    if sizes[-1] > BASE:
        for storage in stage.storages:
            for shape in shapes:
                small, large = times[storage, shape.flow, BASE], times[storage, shape.flow, sizes[-1]]
                result.bars.append(cost_bar(storage, shape, sizes[-1], small, large))
        result.notes.append("The limits are for 1,000,000 items and more: python -m pgflow_mp bench million")
    return result


Times = dict[tuple[str, str, int], Samples]


def measure(
    stage: Stage, shapes: tuple[Shape, ...], sizes: list[int], repeats: Callable[[int], int]
) -> Times:
    """Whole-run seconds by (storage, flow, size), in one database per storage and size."""
    times: Times = {}
    for size in sizes:
        with stage.arenas(*[shape.flow for shape in shapes]) as arenas:
            for arena in arenas.values():
                for shape in shapes:
                    arena.warm_up(shape.flow, shape.input(200))
            stage.say(f"{size:,} items")
            variants = {
                (storage, shape.flow, size): _runner(arena, shape, size)
                for shape in shapes
                for storage, arena in arenas.items()
            }
            times |= interleave(variants, repeats(size))
    return times


def _runner(arena: Arena, shape: Shape, size: int) -> Callable[[], float]:
    given = shape.input(size)
    return lambda: arena.run(shape.flow, given).total


def report(
    result: SuiteResult, storage: str, shapes: tuple[Shape, ...], sizes: list[int], times: Times
) -> None:
    """Table and chart."""
    rows = []
    for size in sizes:
        cells = [f"{size:,}"]
        for shape in shapes:
            samples = times[storage, shape.flow, size]
            rate = shape.tasks(size) / samples.median
            cells.append(f"{rate:,.0f}/s ±{samples.spread / 2:.0%}")
        rows.append(tuple(cells))
    slopes = ["slope of time"]
    series, seconds = [], {}
    for shape in shapes:
        medians = {n: times[storage, shape.flow, n].median for n in sizes}
        large = [(float(n), medians[n]) for n in sizes if n >= 1000]
        slopes.append(f"{slope(large):.2f}" if len(large) > 1 else "")
        points = [(float(n), shape.tasks(n) / medians[n]) for n in sizes]
        series.append(Series(f"{shape.name} (slope {slopes[-1]})" if slopes[-1] else shape.name, points))
        seconds[shape.name] = {str(n): list(times[storage, shape.flow, n].values) for n in sizes}
    result.samples[storage] = seconds
    rows.append(tuple(slopes))
    columns = ("items", *(shape.name for shape in shapes))
    result.tables.append(Table(f"items per second, whole runs, stored as {storage}", columns, rows))
    result.charts.append(
        Chart(f"Throughput against the number of items, stored as {storage}", "items", "items/s", series)
    )


def _ratios(shapes: tuple[Shape, ...], sizes: list[int], times: Times) -> Table:
    rows = []
    for size in sizes:
        cells = [f"{size:,}"]
        for shape in shapes:
            found = rates({storage: times[storage, shape.flow, size] for storage in (TASKS, RANGES)})
            cells.append(f"{found.median:.2f}" if found is not None else "")
        rows.append(tuple(cells))
    return Table(RATIO, ("items", *(shape.name for shape in shapes)), rows)


def cost_bar(storage: str, shape: Shape, size: int, small: Samples, large: Samples) -> Bar:
    """Cost per task at ``size`` (seconds ``large``) over that at BASE (``small``)."""
    cost = large.median / shape.tasks(size) / (small.median / shape.tasks(BASE))
    what = f"{shape.name}, {storage}: cost per item, {size:,} over {BASE:,}"
    return Bar.at_most(what, cost, LIMITS[storage], "{:.2f}")
