"""Items that burn CPU, against a bare ProcessPoolExecutor with the same chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from pgflow_mp.bench import burning
from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Bar, Chart, Point, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, interleave, ratio
from pgflow_mp.bench.pools import BarePool, same_chunks
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES, TASKS


class Case(NamedTuple):
    """Items of one length, or a mix; ``mean`` in seconds, ``bars`` the least efficiency by storage.

    ``items`` gives those of a round: where the long ones of a mix lie decides how evenly any scheduler can
    share them out, so each round has other places.
    """

    name: str
    size: int
    mean: float
    bars: dict[str, float]
    items: Callable[[int], list[int]]


def run(stage: Stage) -> SuiteResult:
    """Efficiency = the bare pool's time over ours, round by round.

    Both get new processes every other round: one may be faster than the next for as long as it lives.
    """
    result = SuiteResult("item-times", "CPU-bound items against a bare process pool with the same chunks")
    rows = []
    points: dict[str, list[Point]] = {storage: [] for storage in stage.storages}
    for case in _cases(stage):
        chunk = same_chunks(case.mean, case.size, stage.lanes)
        stage.say(f"{case.name}: {case.size:,} items, chunks of {chunk}")
        times = {name: Samples(()) for name in (*stage.storages, BARE)}
        for generation in range(stage.repeats(1, 3)):
            with stage.arenas("bench_burn") as arenas, BarePool(stage.lanes) as pool:
                for arena in arenas.values():
                    arena.warm_up("bench_burn", case.items(0)[: max(50, case.size // 10)], times=1)
                for number in range(2):
                    items = case.items(2 * generation + number + 1)
                    more = _side_by_side(arenas, pool, items, chunk, backwards=number == 1)
                    times = {name: Samples(times[name].values + more[name].values) for name in times}
        for storage in stage.storages:
            efficiency = ratio(times[BARE], times[storage])
            rows.append(
                (
                    case.name,
                    storage,
                    f"{case.size:,}",
                    f"{times[storage].median:.2f} s",
                    f"{times[BARE].median:.2f} s",
                    f"{efficiency.median:.1%}",
                    f"{efficiency.low:.1%} to {efficiency.high:.1%}",
                )
            )
            if not case.name.startswith("mix"):
                points[storage].append((case.mean * 1000, efficiency.median))
            if storage in case.bars:
                what = f"{case.name} items, {storage}: efficiency"
                result.bars.append(Bar.at_least(what, efficiency.median, case.bars[storage], "{:.1%}"))
        result.samples[case.name] = {name: list(samples.values) for name, samples in times.items()}
    columns = ("item", "storage", "items", "ours", "bare pool", "efficiency", "rounds")
    result.tables.append(Table(f"{stage.lanes} lanes", columns, rows))
    result.charts.append(
        Chart(
            "Efficiency against item time",
            "ms per item",
            "bare pool's time / ours",
            [Series(storage, found) for storage, found in points.items()],
            y_scale="linear",
            reference=(1.0, "bare pool"),
        )
    )
    return result


def _side_by_side(
    arenas: dict[str, Arena], pool: BarePool, items: list[int], chunk: int, *, backwards: bool
) -> dict[str, Samples]:
    def run_in(arena: Arena) -> Callable[[], float]:
        return lambda: arena.run("bench_burn", items).total

    variants = {storage: run_in(arena) for storage, arena in arenas.items()}
    variants[BARE] = lambda: pool.chunked(burning.burn, items, chunk)
    return interleave(dict(reversed(variants.items())) if backwards else variants, 1)


_LENGTHS: Final[tuple[tuple[float, dict[str, float]], ...]] = (
    (0.0001, {RANGES: 0.93}),
    (0.001, {TASKS: 0.90, RANGES: 0.98}),
    (0.01, {TASKS: 0.98, RANGES: 0.99}),
    (0.1, {}),
)
_MIX: Final = {TASKS: 0.95, RANGES: 0.99}
SHORT, LONG = 0.001, 1.0
BARE: Final = "bare pool"


def _always(items: list[int]) -> Callable[[int], list[int]]:
    return lambda _: items


def _cases(stage: Stage) -> list[Case]:
    wall = 1.0 if stage.quick else 4.0
    cases = []
    for seconds, bars in _LENGTHS:
        if stage.quick and seconds == 0.1:
            continue
        count = max(20, int(wall * stage.lanes / seconds))
        items = [stage.loops_for(seconds)] * min(count, 60_000)
        cases.append(Case(f"{seconds * 1000:g} ms", len(items), seconds, bars, _always(items)))
    count = 200 if stage.quick else 1000
    short, long = stage.loops_for(SHORT), stage.loops_for(LONG)
    mean = 0.99 * SHORT + 0.01 * LONG
    cases.append(
        Case(
            "mix: 99 % 1 ms, 1 % 1 s",
            count,
            mean,
            _MIX,
            lambda number: burning.heavy_tail(count, short, long, seed=number),
        )
    )
    return cases
