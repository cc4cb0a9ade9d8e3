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
    rows = []
    parents: dict[str, dict[int, int]] = {storage: {} for storage in stage.storages}
    with stage.arenas("bench_map") as arenas:
        for arena in arenas.values():
            arena.warm_up("bench_map", list(range(200)))
        for size in sizes:
            stage.say(f"{size:,} items")
            for storage, arena in arenas.items():
                with arena.watching_memory() as memory:
                    arena.run("bench_map", list(range(size)))
                parents[storage][size] = memory.parent
                rows.append((f"{size:,}", storage, mebibytes(memory.parent), mebibytes(memory.child)))
    columns = ("items", "storage", "parent", "largest child")
    result.tables.append(Table("largest resident size", columns, rows))
    for storage, found in parents.items():
        what = f"{storage}: the parent grows from 10,000 to {sizes[-1]:,} items"
        result.bars.append(growth_bar(what, found[sizes[-1]] - found[10_000]))
        result.samples[storage] = {"parent bytes": {str(size): value for size, value in found.items()}}
    return result


def growth_bar(what: str, growth: int) -> Bar:
    """The bar on bytes by which a parent has grown."""
    return Bar(what, mebibytes(growth), f"at most {mebibytes(BAR_BYTES)}", growth <= BAR_BYTES)
