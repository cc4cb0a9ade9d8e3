"""A run of ten items that is started while a big map of the same flow runs."""

from __future__ import annotations

import time

from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage
from pgflow_mp.db import engine

LIMIT = 5.0


def run(stage: Stage) -> SuiteResult:
    """Seconds until the small run has completed, with and without priority."""
    size = 100_000 if stage.quick else 1_000_000
    result = SuiteResult("fairness", f"Ten items beside {size:,} of the same flow")
    small = list(range(10))
    taken: dict[str, list[float]] = {"same priority": [], "priority 10": []}
    alone = []
    with stage.arena("bench_map") as arena:
        arena.warm_up("bench_map", list(range(500)))
        for _ in range(5):
            alone.append(arena.run("bench_map", small).total)
        stage.say(f"starting {size:,} items")
        big = arena.start("bench_map", list(range(size)))
        time.sleep(1.0)
        for _ in range(stage.repeats(2, 5)):
            for name, priority in (("same priority", 0), ("priority 10", 10)):
                began = time.perf_counter()
                arena.wait(arena.start("bench_map", small, priority=priority))
                taken[name].append(time.perf_counter() - began)
        during = engine.run_status(arena.conn, big) == "started"
        engine.cancel_run(arena.conn, big)
    cases = {"alone": alone, **taken}
    rows = [
        (name, f"{Samples(tuple(values)).median * 1000:,.0f} ms", f"{max(values) * 1000:,.0f} ms")
        for name, values in cases.items()
    ]
    result.tables.append(Table("seconds to completed", ("small run", "median", "slowest"), rows))
    if not during:
        result.notes.append("The big run ended before the last small one: it was too small for this machine.")
    slowest = max(value for values in taken.values() for value in values)
    what = f"10 items complete while {size:,} run: slowest"
    result.bars.append(Bar(what, f"{slowest:.2f} s", f"at most {LIMIT:g} s", slowest <= LIMIT))
    result.samples = {name: list(values) for name, values in cases.items()}
    return result
