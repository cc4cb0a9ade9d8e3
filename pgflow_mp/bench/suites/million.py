"""A million items: cost per item and memory over 10,000. Takes many minutes."""

from __future__ import annotations

import statistics

from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.suites.parent_memory import BAR_BYTES, mebibytes
from pgflow_mp.bench.suites.scaling import BASE, SHAPES, Times, cost_bar

MILLION = 1_000_000


def run(stage: Stage) -> SuiteResult:
    """Each shape: 10,000 items before and after the million, in one database."""
    size = MILLION // 10 if stage.quick else MILLION
    result = SuiteResult("million", f"{size:,} items over {BASE:,}")
    rows = []
    for shape in (SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[4]):
        stage.say(f"{shape.name}: {size:,} items")
        with stage.arena(shape.flow) as arena:
            arena.warm_up(shape.flow, shape.input(500))
            with arena.watching_memory() as small_memory:
                small = [arena.run(shape.flow, shape.input(BASE)) for _ in range(3)]
            with arena.watching_memory() as large_memory:
                timing = arena.run(shape.flow, shape.input(size))
            small += [arena.run(shape.flow, shape.input(BASE)) for _ in range(2)]
        times: Times = {
            (shape.flow, BASE): Samples(tuple(each.total for each in small)),
            (shape.flow, size): Samples((timing.total,)),
        }
        result.bars.append(cost_bar(shape, size, times))
        growth = large_memory.parent - small_memory.parent
        result.bars.append(
            Bar(
                f"{shape.name}: the parent's memory grows from {BASE:,} to {size:,}",
                mebibytes(growth),
                f"at most {mebibytes(BAR_BYTES)}",
                growth <= BAR_BYTES,
            )
        )
        tasks = shape.tasks(size)
        cpu = (timing.parent_cpu + timing.server_cpu) / tasks
        cpu_before = statistics.median(each.parent_cpu + each.server_cpu for each in small)
        growth_of_cpu = cpu / (cpu_before / shape.tasks(BASE)) if cpu_before else 1.0
        rows.append(
            (
                shape.name,
                f"{shape.tasks(BASE) / times[shape.flow, BASE].median:,.0f}/s",
                f"{tasks / timing.total:,.0f}/s",
                f"{timing.total:,.1f} s",
                f"{timing.start:.2f} s",
                f"{timing.parent_cpu / tasks * 1e6:.1f} µs",
                f"{timing.server_cpu / tasks * 1e6:.1f} µs",
                f"{growth_of_cpu:.2f}",
                mebibytes(large_memory.parent),
                mebibytes(large_memory.child),
            )
        )
        result.samples[shape.name] = {
            str(BASE): [each.total for each in small],
            str(size): [timing.total],
            "start": timing.start,
        }
    columns = (
        "flow",
        f"at {BASE:,}",
        f"at {size:,}",
        "run",
        "start_flow",
        "parent CPU/task",
        "server CPU/task",
        f"over {BASE:,}",
        "parent",
        "largest child",
    )
    result.tables.append(Table("no-op tasks", columns, rows))
    return result
