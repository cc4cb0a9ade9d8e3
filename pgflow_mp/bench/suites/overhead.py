"""What one no-op item costs in CPU: the worker's parent, by its threads, and the server."""

from __future__ import annotations

from typing import Final

from pgflow_mp.bench.arena import Arena, Timing
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, take_turns
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES, TASKS

PARENT: Final = {TASKS: 40.0, RANGES: 1.0}
SERVER: Final = {RANGES: 3.0}
"""The most microseconds of CPU an item, by storage."""


def run(stage: Stage) -> SuiteResult:
    """Microseconds per item of tiny payloads."""
    result = SuiteResult("overhead", "CPU per no-op item")
    counts = {storage: _count(stage, storage) for storage in stage.storages}
    with stage.arenas("bench_map") as arenas:
        for arena in arenas.values():
            arena.warm_up("bench_map", list(range(2000)))
        places = {storage: (arena, counts[storage]) for storage, arena in arenas.items()}
        found = take_turns(places, lambda place: _measure(*place), stage.repeats(3, 5))
    for storage, timings in found.items():
        _report(result, storage, counts[storage], timings)
    return result


def _count(stage: Stage, storage: str) -> int:
    """As many that a run takes seconds: what a run costs whatever its size is divided among them."""
    return stage.size(10_000, 50_000) if storage == TASKS else stage.size(100_000, 500_000)


Measured = tuple[Timing, dict[str, float]]


def _measure(arena: Arena, count: int) -> Measured:
    worker = arena.workers[0]
    before = worker.threads()
    timing = arena.run("bench_map", list(range(count)))
    after = worker.threads()
    return timing, {purpose: after[purpose] - before[purpose] for purpose in after}


def _report(result: SuiteResult, storage: str, count: int, measured: list[Measured]) -> None:
    def per_item(values: list[float]) -> Samples:
        return Samples(tuple(value / count * 1e6 for value in values))

    parent = per_item([timing.parent_cpu for timing, _ in measured])
    server = per_item([timing.server_cpu for timing, _ in measured])
    wall = per_item([timing.total for timing, _ in measured])
    threads = {
        purpose: per_item([by_thread[purpose] for _, by_thread in measured]) for purpose in measured[0][1]
    }
    rows = [
        (name, f"{samples.median:.2f} µs", f"{samples.low:.2f} to {samples.high:.2f}")
        for name, samples in (
            ("parent", parent),
            *((f"  {purpose}", samples) for purpose, samples in threads.items()),
            ("server", server),
            ("wall clock", wall),
        )
    ]
    result.tables.append(Table(f"{count:,} items, {storage}", ("", "per item", "runs"), rows))
    what = f"parent CPU per item, {storage}, µs"
    result.bars.append(Bar.at_most(what, parent.median, PARENT[storage], "{:.2f}"))
    if storage in SERVER:
        what = f"server CPU per item, {storage}, µs"
        result.bars.append(Bar.at_most(what, server.median, SERVER[storage], "{:.2f}"))
    result.samples[storage] = {
        "parent": list(parent.values),
        "server": list(server.values),
        "wall": list(wall.values),
        **{f"parent: {purpose}": list(samples.values) for purpose, samples in threads.items()},
    }
