"""One item through a worker that is warm, and what the start of a worker takes."""

from __future__ import annotations

import time

from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.findings import Chart, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, percentile, take_turns
from pgflow_mp.bench.served import ServedWorker
from pgflow_mp.bench.stage import Stage


def run(stage: Stage) -> SuiteResult:
    """Runs of one item after another; then workers started for a run that waits."""
    result = SuiteResult("latency", "Latency of a single item, and cold start")
    with stage.arenas("bench_map") as arenas:
        for arena in arenas.values():
            arena.warm_up("bench_map", [1], times=10)
        times = take_turns(arenas, lambda arena: arena.run("bench_map", [1]).total, stage.repeats(40, 300))
        for arena in arenas.values():
            arena.workers.pop().stop()
        cold = take_turns(arenas, lambda arena: _cold(arena, stage.lanes), stage.repeats(2, 5))
    rows = [
        (f"p{share * 100:.0f}", *(_ms(percentile(found, share)) for found in times.values()))
        for share in (0.5, 0.9, 0.99)
    ]
    rows.append(("slowest", *(_ms(max(found)) for found in times.values())))
    starts = (_ms(Samples(tuple(found)).median) for found in cold.values())
    rows.append(("cold: process start to completed", *starts))
    result.tables.append(Table("start_flow to completed, one item", ("", *times), rows))
    steps = [i / 50 for i in range(1, 50)] + [0.99, 0.999]
    series = [
        Series(f"warm worker, {storage}", [(share * 100, percentile(found, share) * 1000) for share in steps])
        for storage, found in times.items()
    ]
    result.charts.append(Chart("Latency of one item", "percentile", "ms", series, x_scale="linear"))
    result.samples = {storage: {"warm": times[storage], "cold": cold[storage]} for storage in times}
    return result


def _cold(arena: Arena, lanes: int) -> float:
    run_id = arena.start("bench_map", [1])
    began = time.perf_counter()
    worker = ServedWorker(arena.dsn, ("bench_map",), workers=lanes)
    try:
        arena.wait(run_id)
        return time.perf_counter() - began
    finally:
        worker.stop()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
