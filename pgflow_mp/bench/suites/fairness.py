"""A run of ten items that is started while a big map of the same flow runs."""

from __future__ import annotations

import time
from typing import Final

from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage
from pgflow_mp.db import engine

LIMIT: Final = 5.0
ITEM: Final = 0.0001  # seconds
ALONE: Final = "alone"
PRIORITIES: Final = {"same priority": 0, "priority 10": 10}


def run(stage: Stage) -> SuiteResult:
    """Seconds until the small run has completed, with and without priority."""
    size = 100_000 if stage.quick else 1_000_000
    result = SuiteResult("fairness", f"Ten items beside {size:,} of the same flow")
    small, large = [1] * 10, [stage.loops_for(ITEM)] * size
    cases = {(storage, name): list[float]() for storage in stage.storages for name in (ALONE, *PRIORITIES)}
    with stage.arenas("bench_burn") as arenas:
        for arena in arenas.values():
            arena.warm_up("bench_burn", large[:500])
        for _ in range(5):
            for storage, arena in arenas.items():
                cases[storage, ALONE].append(arena.run("bench_burn", small).total)
        for storage, arena in arenas.items():
            stage.say(f"starting {size:,} items, {storage}")
            big = arena.start("bench_burn", large)
            time.sleep(1.0)
            for _ in range(stage.repeats(2, 5)):
                for name, priority in PRIORITIES.items():
                    began = time.perf_counter()
                    arena.wait(arena.start("bench_burn", small, priority=priority))
                    cases[storage, name].append(time.perf_counter() - began)
            if engine.run_status(arena.conn, big) != "started":
                result.notes.append(
                    f"{storage}: the big run was too small for this machine, it ended too soon."
                )
            engine.cancel_run(arena.conn, big)
    rows = [
        (
            storage,
            name,
            f"{Samples(tuple(values)).median * 1000:,.0f} ms",
            f"{max(values) * 1000:,.0f} ms",
        )
        for (storage, name), values in cases.items()
    ]
    result.tables.append(Table("to completed", ("storage", "small run", "median", "slowest"), rows))
    for storage in stage.storages:
        slowest = max(max(cases[storage, name]) for name in PRIORITIES)
        what = f"10 items complete while {size:,} run, {storage}: slowest"
        result.bars.append(Bar(what, f"{slowest:.2f} s", f"at most {LIMIT:g} s", slowest <= LIMIT))
        result.samples[storage] = {name: cases[storage, name] for name in (ALONE, *PRIORITIES)}
    return result
