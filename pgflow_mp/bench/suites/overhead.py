"""What one no-op item costs in CPU: the worker's parent, by its threads, and the server."""

from __future__ import annotations

from pgflow_mp.bench.arena import Timing
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage

LIMIT = 40.0


def run(stage: Stage) -> SuiteResult:
    """Microseconds per item of tiny payloads."""
    result = SuiteResult("overhead", "CPU per no-op item")
    count = 10_000 if stage.quick else 50_000
    items = list(range(count))
    with stage.arena("bench_map") as arena:
        arena.warm_up("bench_map", items[:2000])
        worker, timings, by_thread = arena.workers[0], list[Timing](), list[dict[str, float]]()
        for _ in range(stage.repeats(3, 5)):
            before = worker.threads()
            timings.append(arena.run("bench_map", items))
            after = worker.threads()
            by_thread.append({purpose: after[purpose] - before[purpose] for purpose in after})

    def per_item(values: list[float]) -> Samples:
        return Samples(tuple(value / count * 1e6 for value in values))

    parent = per_item([timing.parent_cpu for timing in timings])
    server = per_item([timing.server_cpu for timing in timings])
    wall = per_item([timing.total for timing in timings])
    threads = {purpose: per_item([each[purpose] for each in by_thread]) for purpose in by_thread[0]}
    rows = [
        (name, f"{samples.median:.1f} µs", f"{samples.low:.1f} to {samples.high:.1f}")
        for name, samples in (
            ("parent", parent),
            *((f"  {purpose}", samples) for purpose, samples in threads.items()),
            ("server", server),
            ("wall clock", wall),
        )
    ]
    result.tables.append(Table(f"{count:,} items", ("", "per item", "runs"), rows))
    result.bars.append(Bar.at_most("parent CPU per item, µs", parent.median, LIMIT, "{:.1f}"))
    result.samples = {
        "parent": list(parent.values),
        "server": list(server.values),
        "wall": list(wall.values),
        **{f"parent: {purpose}": list(samples.values) for purpose, samples in threads.items()},
    }
    return result
