"""Sleeping items in more and more lanes: does one parent feed them all?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pgflow_mp.bench import burning
from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Bar, Chart, Point, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, interleave
from pgflow_mp.bench.pools import BarePool, same_chunks
from pgflow_mp.bench.stage import Stage

ITEM: Final = 0.01
LIMIT: Final = 0.95
BARE: Final = "bare pool"


def run(stage: Stage) -> SuiteResult:
    """The ideal is N * 10 ms / lanes; a bare pool of as many processes stands beside it."""
    result = SuiteResult("lanes", "Sleeping items of 10 ms in many lanes")
    counts = [2, 16] if stage.quick else [1, 2, 4, 8, 16]
    each = 300 if stage.quick else 500
    rows = []
    points: dict[str, list[Point]] = {storage: [] for storage in stage.storages}
    for lanes in counts:
        stage.say(f"{lanes} lanes")
        times = _measure(stage, lanes, [ITEM * 1000] * (each * lanes))
        ideal = each * ITEM
        bare = times[BARE].per(ideal)
        for storage in stage.storages:
            share = times[storage].per(ideal)
            rows.append(
                (
                    str(lanes),
                    storage,
                    f"{each * lanes:,}",
                    f"{each * lanes / times[storage].median:,.0f}/s",
                    f"{times[storage].median:.2f} s",
                    f"{ideal:.2f} s",
                    f"{share.median:.1%}",
                    f"{bare.median:.1%}",
                )
            )
            points[storage].append((float(lanes), share.median))
        result.samples[str(lanes)] = {name: list(samples.values) for name, samples in times.items()}
    columns = ("lanes", "storage", "items", "rate", "run", "ideal", "of ideal", "bare pool of ideal")
    result.tables.append(Table("whole runs", columns, rows))
    for storage in stage.storages:
        what = f"{counts[-1]} lanes of 10 ms sleeping items, {storage}: of ideal"
        result.bars.append(Bar.at_least(what, points[storage][-1][1], LIMIT, "{:.1%}"))
    result.charts.append(
        Chart(
            "Sleeping items: share of the ideal",
            "lanes",
            "ideal / measured",
            [Series(storage, found) for storage, found in points.items()],
            y_scale="linear",
            reference=(LIMIT, "bar"),
        )
    )
    return result


def _measure(stage: Stage, lanes: int, items: list[float]) -> dict[str, Samples]:
    chunk = same_chunks(ITEM, len(items), lanes)
    with stage.arenas("bench_nap", lanes=lanes) as arenas, BarePool(lanes) as pool:
        for arena in arenas.values():
            arena.warm_up("bench_nap", items[: 40 * lanes], times=2)

        def run_in(arena: Arena) -> Callable[[], float]:
            return lambda: arena.run("bench_nap", items).total

        variants = {storage: run_in(arena) for storage, arena in arenas.items()}
        variants[BARE] = lambda: pool.chunked(burning.nap, items, chunk)
        return interleave(variants, stage.repeats(2, 5))
