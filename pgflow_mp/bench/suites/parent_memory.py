"""Resident memory of the worker's parent and of its children, against the number of items."""

from __future__ import annotations

from typing import Final

from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.stage import Stage

BAR_BYTES: Final = 50 << 20
"""The parent may grow by this much from 10,000 to 1,000,000 items."""


def mebibytes(count: float) -> str:
    """A size in MiB."""
    return f"{count / 2**20:.1f} MiB"


def run(stage: Stage) -> SuiteResult:
    """One worker, growing runs; the largest sizes seen during each."""
    sizes = [1_000, 10_000, 30_000] if stage.quick else [1_000, 10_000, 100_000, 300_000]
    result = SuiteResult("memory", "Memory against the number of items")
    rows, parents = [], {}
    with stage.arena("bench_map") as arena:
        arena.warm_up("bench_map", list(range(200)))
        for size in sizes:
            stage.say(f"{size:,} items")
            with arena.watching_memory() as memory:
                arena.run("bench_map", list(range(size)))
            parents[size] = memory.parent
            rows.append((f"{size:,}", mebibytes(memory.parent), mebibytes(memory.child)))
    result.tables.append(Table("largest resident size", ("items", "parent", "largest child"), rows))
    growth = parents[sizes[-1]] - parents[10_000]
    result.bars.append(
        Bar(
            f"the parent grows from 10,000 to {sizes[-1]:,} items",
            mebibytes(growth),
            f"at most {mebibytes(BAR_BYTES)}",
            growth <= BAR_BYTES,
        )
    )
    result.samples["parent bytes"] = {str(size): value for size, value in parents.items()}
    return result
