#!/usr/bin/env python3
"""Fail if we have become slower: ratios to yardsticks that are measured in the same run.

Compared with a bare process pool and with the pinned SQL queue of baseline.sql, round by round, so that
the speed of the machine cancels out. A ratio whose median is below 75 % of the one in gate.json gets as many
rounds again, and once more; then the gate fails.
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
from pgflow_mp.bench.measure import Samples, interleave, ratio
from pgflow_mp.bench.pools import BarePool, same_chunks
from pgflow_mp.bench.stage import Stage, open_server
from pgflow_mp.db import engine

STORED = Path(__file__).with_name("gate.json")
LOSS = 0.25
ITEMS = 10_000
BURN = 0.001
BURNS = 1_000
LANES = 2

RATIOS = {
    "no-op run / pool, one item per dispatch": ("run", "pool"),
    "no-op run / SQL baseline": ("run", "baseline"),
    "engine's SQL / SQL baseline": ("engine", "baseline"),
    "engine's SQL / SQL baseline, by CPU": ("engine CPU", "baseline CPU"),
    "1 ms run / pool, same chunks": ("burn", "burn pool"),
}
"""Name of a ratio: what is ours, what it is compared with, both as items per second.

CPU is that of the server's process: it hardly changes when others use the machine.
"""


def measure(
    stage: Stage, rounds: int, attempts: int, wanted: Mapping[str, float]
) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Ratios, seconds per item; more rounds, up to ``attempts`` times as many, while a ratio is low."""
    items = list(range(ITEMS))
    burns = [stage.loops_for(BURN)] * BURNS
    chunk = same_chunks(BURN, BURNS, LANES)
    with contextlib.ExitStack() as stack:
        arena = stack.enter_context(stage.arena("bench_map", "bench_burn", lanes=LANES))
        pool = stack.enter_context(BarePool(LANES))
        yardstick = stack.enter_context(
            baseline.install(stack.enter_context(stage.database(with_schema=False)))
        )
        conn, worker_id = drains.prepare(stack.enter_context(stage.database()))
        stack.enter_context(conn)
        cpu: dict[str, list[float]] = {"baseline CPU": [], "engine CPU": []}

        def clock(name: str, connection: engine.Connection, work: Callable[[], float]) -> float:
            server = psutil.Process(connection.info.backend_pid)
            before = sum(server.cpu_times()[:2])
            seconds = work()
            cpu[name].append((sum(server.cpu_times()[:2]) - before) / ITEMS)
            return seconds / ITEMS

        variants: dict[str, Callable[[], float]] = {
            "run": lambda: arena.run("bench_map", items).total / ITEMS,
            "pool": lambda: pool.one_each(work.noop, items) / ITEMS,
            "baseline": lambda: clock("baseline CPU", yardstick, lambda: baseline.drain(yardstick, items)),
            "engine": lambda: clock("engine CPU", conn, lambda: drains.drain(conn, worker_id, items)),
            "burn": lambda: arena.run("bench_burn", burns).total / BURNS,
            "burn pool": lambda: pool.chunked(work.burn, burns, chunk) / BURNS,
        }
        interleave(variants, 1)  # warm up
        for values in cpu.values():
            values.clear()
        seconds = {name: Samples(()) for name in variants}
        for _ in range(attempts):
            more = interleave(variants, rounds)
            seconds = {name: Samples(seconds[name].values + more[name].values) for name in variants}
            every = seconds | {name: Samples(tuple(values)) for name, values in cpu.items()}
            ratios = {name: ratio(every[theirs], every[ours]) for name, (ours, theirs) in RATIOS.items()}
            if not losses(ratios, wanted):
                break
    return ratios, every


def losses(ratios: Mapping[str, Samples], wanted: Mapping[str, float]) -> list[str]:
    """The ratios that fell by more than LOSS."""
    return [name for name, found in ratios.items() if found.median < (1 - LOSS) * wanted.get(name, 0.0)]


def main(arguments: list[str] | None = None) -> int:
    """0 if no ratio fell by more than a quarter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds before the first verdict (3)")
    parser.add_argument("--update", action="store_true", help="store the ratios of this run in gate.json")
    args = parser.parse_args(arguments)
    wanted: dict[str, float] = {} if args.update else json.loads(STORED.read_text(encoding="utf-8"))
    with open_server(None, print) as dsn:
        stage = Stage(dsn, LANES, True, work.loops_per_second(), print)
        ratios, seconds = measure(stage, args.rounds, 1 if args.update else 3, wanted)
    bad = losses(ratios, wanted)
    for name, found in seconds.items():
        print(f"      {name}: {1 / found.median:,.0f} items/s")
    for name, found in ratios.items():
        stored = f"stored {wanted[name]:.2f}" if name in wanted else "new"
        verdict = "LOST" if name in bad else "ok"
        rounds = f"{found.low:.2f} to {found.high:.2f} in {len(found.values)} rounds"
        print(f"{verdict:<5} {name}: {found.median:.2f} ({stored}; {rounds})")
    if args.update:
        text = json.dumps({name: round(found.median, 3) for name, found in ratios.items()}, indent=2)
        STORED.write_text(text + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
