"""What one no-op item costs in CPU: the worker's parent, the server, everything."""

from __future__ import annotations

from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.results import Bar, SuiteResult, Table
from pgflow_mp.bench.stage import Stage

LIMIT = 40.0


def run(stage: Stage) -> SuiteResult:
    """Microseconds per item of tiny payloads."""
    result = SuiteResult("overhead", "CPU per no-op item")
    count = 10_000 if stage.quick else 50_000
    items = list(range(count))
    with stage.arena("bench_map") as arena:
        arena.warm_up("bench_map", items[:2000])
        timings = [arena.run("bench_map", items) for _ in range(stage.repeats(3, 5))]

    def per_item(values: list[float]) -> Samples:
        return Samples(tuple(value / count * 1e6 for value in values))

    parent = per_item([timing.parent_cpu for timing in timings])
    server = per_item([timing.server_cpu for timing in timings])
    wall = per_item([timing.total for timing in timings])
    rows = [
        (name, f"{samples.median:.1f} µs", f"{samples.low:.1f} to {samples.high:.1f}")
        for name, samples in (("parent", parent), ("server", server), ("wall clock", wall))
    ]
    result.tables.append(Table(f"{count:,} items", ("", "per item", "runs"), rows))
    result.bars.append(Bar.at_most("parent CPU per item, µs", parent.median, LIMIT, "{:.1f}"))
    result.samples = {
        "parent": list(parent.values),
        "server": list(server.values),
        "wall": list(wall.values),
    }
    return result
