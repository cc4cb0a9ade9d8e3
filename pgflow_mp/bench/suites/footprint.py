"""What an item leaves behind: write-ahead log and disk, besides its payload; and CPU."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any, Final, NamedTuple

import msgspec

from pgflow_mp.bench.arena import Arena, Timing
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import take_turns
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES
from pgflow_mp.client.feeding_items import is_large

LIMIT: Final = 80.0
"""Bytes an item of ranges may take, of WAL and of disk each, besides the payload once in and once out."""


class Left(NamedTuple):
    """One run: bytes of WAL, bytes of disk by table (indexes and large values with it), times."""

    wal: int
    disk: Counter[str]
    timing: Timing


def run(stage: Stage) -> SuiteResult:
    """Runs of integers, and of texts of 100 bytes, that return what they receive."""
    result = SuiteResult("footprint", "What an item leaves behind")
    size = stage.size(50_000, 500_000)
    texts = [f"{number:098d}" for number in range(max(1, size // 4))]
    cases: tuple[tuple[str, str, list[Any]], ...] = (
        ("integers", "bench_map", list(range(size))),
        ("100-byte texts", "bench_echo", texts),
    )
    rows = []
    for name, flow, items in cases:
        stage.say(f"{len(items):,} {name}")
        given = msgspec.json.encode(items)
        payload = 2 * own_bytes(given, len(items)) / len(items)
        with stage.arenas(flow) as arenas:
            for arena in arenas.values():
                arena.warm_up(flow, items[:2000])
            found = take_turns(arenas, lambda arena: _leave(arena, flow, given, items), 3)  # noqa: B023
        for storage, runs in found.items():
            rows.append(_row(name, storage, len(items), payload, runs))
            result.samples.setdefault(storage, {})[name] = _figures(len(items), payload, runs)
            if storage == RANGES:
                result.bars += _bars(name, len(items), payload, runs)
            result.tables.append(_places(name, storage, len(items), runs))
    columns = (
        "payload",
        "storage",
        "items",
        "payload in and out",
        "WAL",
        "disk",
        "WAL besides",
        "disk besides",
        "parent CPU",
        "server CPU",
    )
    result.tables.insert(0, Table("an item, medians of three runs", columns, rows))
    result.notes.append(
        "Whole runs, from the list to completed, started as run() does: of a megabyte or more by loading it; "
        "start_flow would keep the array as the run's input besides. Disk is the growth of all tables "
        "of runs and queues, before anything is vacuumed or pruned."
    )
    return result


def own_bytes(given: bytes, count: int) -> int:
    """The bytes of so many elements in a compact JSON array: without brackets and commas."""
    return len(given) - count - 1


def _leave(arena: Arena, flow: str, given: bytes, items: list[Any]) -> Left:
    disk, wal = arena.disk_bytes(), arena.wal_bytes()
    timing = arena.run(flow, given, loaded=items if is_large(given) else None)
    return Left(arena.wal_bytes() - wal, arena.disk_bytes() - disk, timing)


def _medians(count: int, payload: float, runs: list[Left]) -> tuple[float, float, float, float]:
    """WAL and disk an item, and both besides the payload."""
    wal = statistics.median(left.wal for left in runs) / count
    disk = statistics.median(left.disk.total() for left in runs) / count
    return wal, disk, wal - payload, disk - payload


def _row(name: str, storage: str, count: int, payload: float, runs: list[Left]) -> tuple[str, ...]:
    cpu = [
        statistics.median(each) / count * 1e6
        for each in ([left.timing.parent_cpu for left in runs], [left.timing.server_cpu for left in runs])
    ]
    return (
        name,
        storage,
        f"{count:,}",
        f"{payload:,.0f} B",
        *(f"{value:,.0f} B" for value in _medians(count, payload, runs)),
        *(f"{value:.2f} µs" for value in cpu),
    )


def _bars(name: str, count: int, payload: float, runs: list[Left]) -> list[Bar]:
    _, _, wal, disk = _medians(count, payload, runs)
    return [
        Bar.at_most(f"{what} an item besides the payload, {name}, {RANGES}, bytes", value, LIMIT, "{:.0f}")
        for what, value in (("WAL", wal), ("disk", disk))
    ]


def _places(name: str, storage: str, count: int, runs: list[Left]) -> Table:
    """Which tables have grown, by at least half a byte an item."""
    grown = sorted(runs, key=lambda left: left.disk.total())[len(runs) // 2].disk
    rows = [(table, f"{value / count:,.1f} B") for table, value in grown.most_common() if 2 * value >= count]
    return Table(f"{name}, {storage}: disk an item", ("table", "growth"), rows)


def _figures(count: int, payload: float, runs: list[Left]) -> dict[str, Any]:
    return {
        "items": count,
        "payload": payload,
        "wal": [left.wal for left in runs],
        "disk": [dict(left.disk) for left in runs],
        "seconds": [left.timing.total for left in runs],
        "parent cpu": [left.timing.parent_cpu for left in runs],
        "server cpu": [left.timing.server_cpu for left in runs],
    }
