#!/usr/bin/env python3
"""Fail if we have become slower: ratios to yardsticks that are measured in the same run.

Compared with a bare process pool, with the pinned SQL queue of baseline.sql, and maps in ranges with maps in
tasks, round by round, so that the speed of the machine cancels out. A ratio whose median is below the one in
gate.json by more than its tolerance gets as many rounds again, and once more; then the gate fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import baseline
import drains
import psutil

from pgflow_mp.bench import burning as work
from pgflow_mp.bench.arena import Arena
from pgflow_mp.bench.measure import Samples, interleave, ratio
from pgflow_mp.bench.pools import BarePool, same_chunks
from pgflow_mp.bench.stage import Stage, open_server
from pgflow_mp.bench.stored import RANGES, TASKS
from pgflow_mp.bench.suites.open_transaction import open_transaction
from pgflow_mp.db import engine

STORED = Path(__file__).with_name("gate.json")
LOSS = 0.25
ITEMS = 10_000
MANY = 100_000
TEXTS = [f"{number:098d}" for number in range(12_500)]  # more than a megabyte, which is loaded
BURNS = {0.001: 3_000, 0.0001: 20_000}
LANES = 2

RATIOS = {
    "no-op run / pool, one item per dispatch": ("run", "pool"),
    "no-op run / SQL baseline": ("run", "baseline"),
    "engine's SQL / SQL baseline": ("engine", "baseline"),
    "engine's SQL / SQL baseline, by CPU": ("engine CPU", "baseline CPU"),
    "1 ms run / pool, same chunks": ("1 ms run", "1 ms pool"),
    "ranges: no-op run / tasks": ("ranges run", "run"),
    "ranges: no-op run / pool, chunks of 100": ("ranges run", "pool of 100s"),
    "ranges: 0.1 ms run / pool, same chunks": ("0.1 ms ranges run", "0.1 ms pool"),
    "ranges: 1 ms run / pool, same chunks": ("1 ms ranges run", "1 ms pool"),
    "ranges: SQL / SQL baseline": ("ranges SQL", "baseline"),
    "ranges: SQL / SQL baseline, by CPU": ("ranges SQL CPU", "baseline CPU"),
    "ranges: beside an open transaction / without": ("ranges beside one", "ranges run"),
    "ranges: write-ahead log of tasks / of ranges": ("ranges WAL", "run WAL"),
    "ranges: texts in and out / their write-ahead log": ("texts WAL", "texts' own bytes"),
}
"""Name of a ratio: what is ours, what it is compared with, both as items per second.

CPU is that of the server's process: it hardly changes when others use the machine. WAL is bytes, not seconds.
"""
TOLERANCE = {
    "1 ms run / pool, same chunks": 0.15,
    "ranges: 0.1 ms run / pool, same chunks": 0.15,
    "ranges: 1 ms run / pool, same chunks": 0.15,
    "ranges: beside an open transaction / without": 0.15,
    "ranges: write-ahead log of tasks / of ranges": 0.15,
    "ranges: texts in and out / their write-ahead log": 0.2,
}
"""What may be lost where LOSS would be most of what there is."""


class Meter:
    """What is measured beside seconds: CPU of one server process, and WAL, by the name of the variant."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def clear(self) -> None:
        """Forget what was found while warming up."""
        self.found.clear()

    def cpu(self, name: str, connection: engine.Connection, items: int, work: Callable[[], float]) -> float:
        """Seconds an item of ``work``, all of which that connection does."""
        server = psutil.Process(connection.info.backend_pid)
        before = sum(server.cpu_times()[:2])
        seconds = work()
        spent = sum(server.cpu_times()[:2]) - before
        self.found.setdefault(f"{name} CPU", []).append(spent / items)
        return seconds / items

    def wal(self, name: str, arena: Arena, count: int) -> float:
        """Seconds an item of a run."""
        before = arena.wal_bytes()
        seconds = arena.run("bench_map", list(range(count))).total
        self.found.setdefault(f"{name} WAL", []).append((arena.wal_bytes() - before) / count)
        return seconds / count

    def texts(self, arena: Arena) -> float:
        """Seconds an item of a run that returns texts as it was given them."""
        before = arena.wal_bytes()
        seconds = arena.run("bench_echo", TEXTS, loaded=TEXTS).total
        self.found.setdefault("texts WAL", []).append((arena.wal_bytes() - before) / len(TEXTS))
        self.found.setdefault("texts' own bytes", []).append(2.0 * (len(TEXTS[0]) + 2))
        return seconds / len(TEXTS)


def measure(
    stage: Stage, rounds: int, attempts: int, wanted: Mapping[str, float]
) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Ratios, seconds per item; more rounds, up to ``attempts`` times as many, while a ratio is low."""
    with contextlib.ExitStack() as stack:
        meter = Meter()
        variants = _variants(stage, stack, meter)
        interleave(variants, 1)  # warm up
        meter.clear()
        seconds = {name: Samples(()) for name in variants}
        for _ in range(attempts):
            more = interleave(variants, rounds)
            seconds = {name: Samples(seconds[name].values + more[name].values) for name in variants}
            every = seconds | {name: Samples(tuple(values)) for name, values in meter.found.items()}
            ratios = {name: ratio(every[theirs], every[ours]) for name, (ours, theirs) in RATIOS.items()}
            if not losses(ratios, wanted):
                break
    return ratios, every


def _variants(stage: Stage, stack: contextlib.ExitStack, meter: Meter) -> dict[str, Callable[[], float]]:
    """What is measured: each answers seconds an item."""
    items, many = list(range(ITEMS)), list(range(MANY))
    arenas = stack.enter_context(stage.arenas("bench_map", "bench_burn", "bench_echo", lanes=LANES))
    tasks, ranges = arenas[TASKS], arenas[RANGES]
    pool = stack.enter_context(BarePool(LANES))
    yardstick = stack.enter_context(baseline.install(stack.enter_context(stage.database(with_schema=False))))
    by_task, task_worker = drains.prepare(stack.enter_context(stage.database()), TASKS)
    by_range, range_worker = drains.prepare(stack.enter_context(stage.database()), RANGES)
    stack.enter_context(by_task)
    stack.enter_context(by_range)

    def beside_one() -> float:
        with open_transaction(ranges.dsn):
            return ranges.run("bench_map", many).total / MANY

    variants: dict[str, Callable[[], float]] = {
        "run": lambda: meter.wal("run", tasks, ITEMS),
        "pool": lambda: pool.one_each(work.noop, items) / ITEMS,
        "ranges run": lambda: meter.wal("ranges", ranges, MANY),
        "ranges beside one": beside_one,
        "texts": lambda: meter.texts(ranges),
        "pool of 100s": lambda: pool.chunked(work.noop, many, 100) / MANY,
        "baseline": lambda: meter.cpu("baseline", yardstick, ITEMS, lambda: baseline.drain(yardstick, items)),
        "engine": lambda: meter.cpu(
            "engine", by_task, ITEMS, lambda: drains.drain(by_task, task_worker, items)
        ),
        "ranges SQL": lambda: meter.cpu(
            "ranges SQL", by_range, MANY, lambda: drains.drain_ranges(by_range, range_worker, MANY)
        ),
    }
    for seconds, count in BURNS.items():
        name, burns = f"{seconds * 1000:g} ms", [stage.loops_for(seconds)] * count
        variants |= {
            f"{name} run": _burn(tasks, burns),
            f"{name} ranges run": _burn(ranges, burns),
            f"{name} pool": _pool(pool, burns, same_chunks(seconds, count, LANES)),
        }
    return {name: variants[name] for name in variants if name != "0.1 ms run"}


def _burn(arena: Arena, burns: list[int]) -> Callable[[], float]:
    return lambda: arena.run("bench_burn", burns).total / len(burns)


def _pool(pool: BarePool, burns: list[int], chunk: int) -> Callable[[], float]:
    return lambda: pool.chunked(work.burn, burns, chunk) / len(burns)


def losses(ratios: Mapping[str, Samples], wanted: Mapping[str, float]) -> list[str]:
    """The ratios that fell by more than LOSS, or what they have for it."""
    return [
        name
        for name, found in ratios.items()
        if found.median < (1 - TOLERANCE.get(name, LOSS)) * wanted.get(name, 0.0)
    ]


def main(arguments: list[str] | None = None) -> int:
    """0 if no ratio fell by more than its tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds before the first verdict (3)")
    parser.add_argument("--update", action="store_true", help="store the ratios of this run in gate.json")
    args = parser.parse_args(arguments)
    wanted: dict[str, float] = {} if args.update else json.loads(STORED.read_text(encoding="utf-8"))
    with open_server(None, print) as dsn:
        stage = Stage(dsn, LANES, True, work.loops_per_second(), print, (TASKS, RANGES))
        ratios, seconds = measure(stage, args.rounds, 1 if args.update else 3, wanted)
    bad = losses(ratios, wanted)
    for name, found in seconds.items():
        is_bytes = name.endswith(("WAL", "bytes"))
        print(_bytes(name, found) if is_bytes else f"      {name}: {1 / found.median:,.0f} items/s")
    for name, found in ratios.items():
        stored = f"stored {wanted[name]:.2f}" if name in wanted else "new"
        verdict = "LOST" if name in bad else "ok"
        rounds = f"{found.low:.2f} to {found.high:.2f} in {len(found.values)} rounds"
        print(f"{verdict:<5} {name}: {found.median:.2f} ({stored}; {rounds})")
    if args.update:
        text = json.dumps({name: round(found.median, 3) for name, found in ratios.items()}, indent=2)
        STORED.write_text(text + "\n", encoding="utf-8")
    return 1 if bad else 0


def _bytes(name: str, found: Samples) -> str:
    return f"      {name}: {found.median:,.0f} bytes an item"


if __name__ == "__main__":
    raise SystemExit(main())
