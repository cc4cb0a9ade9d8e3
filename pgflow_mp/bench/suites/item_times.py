"""Items that burn CPU, against a bare ProcessPoolExecutor with the same chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from pgflow_mp.bench import burning
from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Bar, Chart, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, interleave, ratio
from pgflow_mp.bench.pools import BarePool, same_chunks
from pgflow_mp.bench.stage import Stage


class Case(NamedTuple):
    """Items of one length, or a mix; ``mean`` in seconds, ``bar`` the least efficiency.

    ``items`` gives those of a round: where the long ones of a mix lie decides how evenly any scheduler can
    share them out, so each round has other places.
    """

    name: str
    size: int
    mean: float
    bar: float | None
    items: Callable[[int], list[int]]


def run(stage: Stage) -> SuiteResult:
    """Efficiency = the bare pool's time over ours, round by round.

    Both get new processes every other round: one may be faster than the next for as long as it lives.
    """
    result = SuiteResult("item-times", "CPU-bound items against a bare process pool with the same chunks")
    rows, points = [], []
    for case in _cases(stage):
        chunk = same_chunks(case.mean, case.size, stage.lanes)
        stage.say(f"{case.name}: {case.size:,} items, chunks of {chunk}")
        times = {"ours": Samples(()), "bare": Samples(())}
        for generation in range(stage.repeats(1, 3)):
            with stage.arena("bench_burn") as arena, BarePool(stage.lanes) as pool:
                arena.warm_up("bench_burn", case.items(0)[: max(50, case.size // 10)], times=1)
                for number in range(2):
                    items = case.items(2 * generation + number + 1)
                    more = _side_by_side(arena, pool, items, chunk, backwards=number == 1)
                    times = {name: Samples(times[name].values + more[name].values) for name in times}
        efficiency = ratio(times["bare"], times["ours"])
        rows.append(
            (
                case.name,
                f"{case.size:,}",
                f"{times['ours'].median:.2f} s",
                f"{times['bare'].median:.2f} s",
                f"{efficiency.median:.1%}",
                f"{efficiency.low:.1%} to {efficiency.high:.1%}",
            )
        )
        if not case.name.startswith("mix"):
            points.append((case.mean * 1000, efficiency.median))
        if case.bar is not None:
            bar = Bar.at_least(f"{case.name} items: efficiency", efficiency.median, case.bar, "{:.1%}")
            result.bars.append(bar)
        result.samples[case.name] = {name: list(samples.values) for name, samples in times.items()}
    columns = ("item", "items", "ours", "bare pool", "efficiency", "rounds")
    result.tables.append(Table(f"{stage.lanes} lanes", columns, rows))
    result.charts.append(
        Chart(
            "Efficiency against item time",
            "ms per item",
            "bare pool's time / ours",
            [Series("efficiency", points)],
            y_scale="linear",
            reference=(1.0, "bare pool"),
        )
    )
    return result


def _side_by_side(
    arena: Arena, pool: BarePool, items: list[int], chunk: int, *, backwards: bool
) -> dict[str, Samples]:
    def ours() -> float:
        return arena.run("bench_burn", items).total

    def bare() -> float:
        return pool.chunked(burning.burn, items, chunk)

    return interleave({"bare": bare, "ours": ours} if backwards else {"ours": ours, "bare": bare}, 1)


_LENGTHS: Final = ((0.0001, None), (0.001, 0.90), (0.01, 0.98), (0.1, None))
SHORT, LONG = 0.001, 1.0


def _always(items: list[int]) -> Callable[[int], list[int]]:
    return lambda _: items


def _cases(stage: Stage) -> list[Case]:
    wall = 1.0 if stage.quick else 4.0
    cases = []
    for seconds, bar in _LENGTHS:
        if stage.quick and seconds == 0.1:
            continue
        count = max(20, int(wall * stage.lanes / seconds))
        items = [stage.loops_for(seconds)] * min(count, 60_000)
        cases.append(Case(f"{seconds * 1000:g} ms", len(items), seconds, bar, _always(items)))
    count = 200 if stage.quick else 1000
    short, long = stage.loops_for(SHORT), stage.loops_for(LONG)
    mean = 0.99 * SHORT + 0.01 * LONG
    cases.append(
        Case(
            "mix: 99 % 1 ms, 1 % 1 s",
            count,
            mean,
            0.95,
            lambda number: burning.heavy_tail(count, short, long, seed=number),
        )
    )
    return cases
