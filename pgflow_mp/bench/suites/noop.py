"""Items that do nothing, stored and synced, against a bare pool with chunks of 100."""

from __future__ import annotations

import statistics
from typing import Final

import msgspec

from pgflow_mp.bench import burning
from pgflow_mp.bench.arena import Timing
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, ratio
from pgflow_mp.bench.pools import BarePool
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES, rates, times_bar

CHUNK: Final = 100
BARE: Final = f"bare pool, chunks of {CHUNK}"
OVER_TASKS: Final = 5.0
OF_THE_POOL: Final = 0.25


def run(stage: Stage) -> SuiteResult:
    """Whole runs of integers, and as many through a warm pool without a database."""
    size = stage.size(100_000, 1_000_000)
    result = SuiteResult("noop", f"{size:,} items that do nothing, results stored")
    items = list(range(size))
    given = msgspec.json.encode(items)
    timings: dict[str, list[Timing]] = {storage: [] for storage in stage.storages}
    bare: list[float] = []
    with stage.arenas("bench_map") as arenas, BarePool(stage.lanes) as pool:
        for arena in arenas.values():
            arena.warm_up("bench_map", items[:10_000])
        pool.chunked(burning.noop, items[:10_000], CHUNK)
        for number in range(3):
            stage.say(f"round {number + 1}")
            for storage in stage.storages if number % 2 == 0 else reversed(stage.storages):
                timings[storage].append(arenas[storage].run("bench_map", given))
            bare.append(pool.chunked(burning.noop, items, CHUNK))
    _report(result, size, timings, Samples(tuple(bare)))
    return result


def _report(result: SuiteResult, size: int, timings: dict[str, list[Timing]], bare: Samples) -> None:
    seconds = {name: Samples(tuple(each.total for each in found)) for name, found in timings.items()}
    result.samples = {name: list(found.values) for name, found in {**seconds, BARE: bare}.items()}
    rows = []
    for storage, found in seconds.items():
        share = ratio(bare, found)
        cpu = [
            statistics.median(each) / size * 1e6
            for each in (
                [timing.parent_cpu for timing in timings[storage]],
                [timing.server_cpu for timing in timings[storage]],
            )
        ]
        rows.append(
            (
                storage,
                f"{found.per(size).median:,.0f}/s ±{found.spread / 2:.0%}",
                f"{statistics.median(timing.start for timing in timings[storage]):.2f} s",
                f"{share.median:.1%} ({share.low:.1%} to {share.high:.1%})",
                f"{cpu[0]:.2f} µs",
                f"{cpu[1]:.2f} µs",
            )
        )
        if storage == RANGES:
            bar = Bar.at_least(f"no-op items/s, {storage} / {BARE}", share.median, OF_THE_POOL, "{:.2f}")
            result.bars.append(bar)
    rows.append((BARE, f"{bare.per(size).median:,.0f}/s ±{bare.spread / 2:.0%}", "", "", "", ""))
    columns = ("", "items", "start_flow", "of the bare pool", "parent CPU/item", "server CPU/item")
    result.tables.append(Table(f"{size:,} integers, whole runs", columns, rows))
    result.bars += times_bar("no-op items/s", seconds, OVER_TASKS)
    if (gain := rates(seconds)) is not None:
        result.notes.append(
            f"Ranges are {gain.median:.1f} times as fast ({gain.low:.1f} to {gain.high:.1f})."
        )
