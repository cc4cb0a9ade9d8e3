"""Payloads of growing size, in and out."""

from __future__ import annotations

import statistics

from pgflow_mp.bench.findings import Chart, Point, Series, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, take_turns
from pgflow_mp.bench.stage import Stage

_TOTAL = 40 << 20
_MOST = 10_000


def run(stage: Stage) -> SuiteResult:
    """Items that return the text they receive."""
    result = SuiteResult("payloads", "Payloads in and out")
    sizes = {"10 B": 10, "1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000}
    total = _TOTAL // 4 if stage.quick else _TOTAL
    rows = []
    points: dict[str, list[Point]] = {storage: [] for storage in stage.storages}
    for name, size in sizes.items():
        count = min(_MOST, total // size)
        stage.say(f"{count:,} items of {name}")
        text = "0123456789abcdef" * (size // 16 + 1)
        items = [f"{i:08d}{text}"[:size] for i in range(count)]
        with stage.arenas("bench_echo") as arenas:
            for arena in arenas.values():
                arena.warm_up("bench_echo", items[: count // 10])
            found = take_turns(arenas, lambda arena: arena.run("bench_echo", items), stage.repeats(1, 5))  # noqa: B023
        for storage, timings in found.items():
            samples = Samples(tuple(timing.total for timing in timings))
            rate = count / samples.median
            parent = statistics.median(timing.parent_cpu for timing in timings) / count
            server = statistics.median(timing.server_cpu for timing in timings) / count
            rows.append(
                (
                    name,
                    storage,
                    f"{count:,}",
                    f"{rate:,.0f}/s ±{samples.spread / 2:.0%}",
                    f"{rate * size / 1e6:,.1f} MB/s",
                    f"{parent * 1e6:,.1f} µs",
                    f"{server * 1e6:,.1f} µs",
                )
            )
            points[storage].append((float(size), rate))
            result.samples.setdefault(storage, {})[name] = list(samples.values)
    columns = ("payload", "storage", "items", "items", "each way", "parent CPU/item", "server CPU/item")
    result.tables.append(Table("whole runs", columns, rows))
    series = [Series(storage, found) for storage, found in points.items()]
    result.charts.append(Chart("Throughput against payload", "bytes each way", "items/s", series))
    return result
