"""One item through a worker that is warm, and what the start of a worker takes."""

from __future__ import annotations

import time

from pgflow_mp.bench.findings import Chart, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, percentile
from pgflow_mp.bench.served import ServedWorker
from pgflow_mp.bench.stage import Stage


def run(stage: Stage) -> SuiteResult:
    """Runs of one item after another; then workers started for a run that waits."""
    result = SuiteResult("latency", "Latency of a single item, and cold start")
    times = []
    with stage.arena("bench_map") as arena:
        arena.warm_up("bench_map", [1], times=10)
        for _ in range(40 if stage.quick else 300):
            times.append(arena.run("bench_map", [1]).total)
        arena.workers.pop().stop()
        cold = []
        for _ in range(stage.repeats(2, 5)):
            run_id = arena.start("bench_map", [1])
            began = time.perf_counter()
            worker = ServedWorker(arena.dsn, ("bench_map",), workers=stage.lanes)
            try:
                arena.wait(run_id)
                cold.append(time.perf_counter() - began)
            finally:
                worker.stop()
    shares = (0.5, 0.9, 0.99)
    rows = [(f"p{share * 100:.0f}", f"{percentile(times, share) * 1000:.1f} ms") for share in shares]
    rows.append(("slowest", f"{max(times) * 1000:.1f} ms"))
    rows.append(("cold: process start to completed", f"{Samples(tuple(cold)).median * 1000:.0f} ms"))
    result.tables.append(Table("start_flow to completed, one item", ("", "time"), rows))
    steps = [i / 50 for i in range(1, 50)] + [0.99, 0.999]
    points = [(share * 100, percentile(times, share) * 1000) for share in steps]
    result.charts.append(
        Chart("Latency of one item", "percentile", "ms", [Series("warm worker", points)], x_scale="linear")
    )
    result.samples = {"warm": times, "cold": cold}
    return result
