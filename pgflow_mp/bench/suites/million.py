"""A million items, or ten: cost per item and memory over 10,000. Takes minutes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

import msgspec

from pgflow_mp.bench.arena import Arena, Timing
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, take_turns
from pgflow_mp.bench.served import Memory
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.suites.parent_memory import growth_bar, mebibytes
from pgflow_mp.bench.suites.scaling import BASE, SHAPES, Shape, cost_bar

MILLION: Final = 1_000_000
COLUMNS: Final = (
    "flow",
    "storage",
    f"at {BASE:,}",
    "large",
    "run",
    "start_flow",
    "parent CPU/item",
    "server CPU/item",
    f"over {BASE:,}",
    "parent",
    "largest child",
)


@dataclass(frozen=True, slots=True)
class Found:
    """Runs of BASE items before and after the large one, which are measured with memory; MiB at most."""

    small: list[Timing]
    small_memory: Memory
    large: Timing
    large_memory: Memory

    @property
    def seconds(self) -> Samples:
        return Samples(tuple(timing.total for timing in self.small))


def run(stage: Stage) -> SuiteResult:
    """Each shape: 10,000 items before and after the large number, in one database a storage."""
    size = stage.size(MILLION // 10, MILLION)
    result = SuiteResult("million", f"{size:,} items over {BASE:,}")
    rows = []
    for shape in (SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[4]):
        for storage, found in _measure(stage, shape, size).items():
            rows.append(_row(shape, storage, size, found))
            result.bars += _bars(shape, storage, size, found)
            result.samples.setdefault(storage, {})[shape.name] = {
                str(BASE): list(found.seconds.values),
                str(size): [found.large.total],
                "start": found.large.start,
                "parent bytes": [found.small_memory.parent, found.large_memory.parent],
            }
    result.tables.append(Table("no-op items", COLUMNS, rows))
    return result


def _measure(stage: Stage, shape: Shape, size: int) -> dict[str, Found]:
    base, large = (msgspec.json.encode(shape.input(count)) for count in (BASE, size))

    def watched(arena: Arena, input: bytes) -> tuple[Timing, Memory]:
        with arena.watching_memory() as memory:
            timing = arena.run(shape.flow, input)
        return timing, memory

    with stage.arenas(shape.flow) as arenas:
        for arena in arenas.values():
            arena.warm_up(shape.flow, shape.input(500))
        before = take_turns(arenas, lambda arena: watched(arena, base), 3)
        stage.say(f"{shape.name}: {size:,} items")
        during = take_turns(arenas, lambda arena: watched(arena, large), 1)
        after = take_turns(arenas, lambda arena: watched(arena, base), 2)
    found = {}
    for storage in arenas:
        timings = [timing for timing, _ in before[storage] + after[storage]]
        memories = [memory for _, memory in before[storage]]
        most = Memory(max(memory.parent for memory in memories), max(memory.child for memory in memories))
        found[storage] = Found(timings, most, *during[storage][0])
    return found


def _bars(shape: Shape, storage: str, size: int, found: Found) -> list[Bar]:
    growth = found.large_memory.parent - found.small_memory.parent
    what = f"{shape.name}, {storage}: the parent's memory grows from {BASE:,} to {size:,}"
    large = Samples((found.large.total,))
    return [cost_bar(storage, shape, size, found.seconds, large), growth_bar(what, growth)]


def _row(shape: Shape, storage: str, size: int, found: Found) -> tuple[str, ...]:
    tasks, large = shape.tasks(size), found.large
    cpu = (large.parent_cpu + large.server_cpu) / tasks
    before = statistics.median(timing.parent_cpu + timing.server_cpu for timing in found.small)
    return (
        shape.name,
        storage,
        f"{shape.tasks(BASE) / found.seconds.median:,.0f}/s",
        f"{tasks / large.total:,.0f}/s",
        f"{large.total:,.1f} s",
        f"{large.start:.2f} s",
        f"{large.parent_cpu / tasks * 1e6:.2f} µs",
        f"{large.server_cpu / tasks * 1e6:.2f} µs",
        f"{cpu / (before / shape.tasks(BASE)):.2f}" if before else "",
        mebibytes(found.large_memory.parent),
        mebibytes(found.large_memory.child),
    )
