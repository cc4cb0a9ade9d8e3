"""How fast start_flow makes tasks, and how soon it answers for large inputs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from pgflow_mp.bench.arena import connected
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples, take_turns
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import store
from pgflow_mp.db import engine

LIMIT: Final = 100_000
WINDOW: Final = 20_000
_SPAWNED: Final = (
    "select spawned_tasks from pgflow.step_states where run_id = %s::uuid and step_slug = 'items'"
)


def run(stage: Stage) -> SuiteResult:
    """No worker: start_flow alone, then the windows of tasks that follow, made by the engine's own function.

    Of a map in ranges everything is there once start_flow has answered.
    """
    result = SuiteResult("spawn", "Starting a map")
    sizes = [WINDOW, 100_000] if stage.quick else [WINDOW, 100_000, 1_000_000]
    rows = []
    with contextlib.ExitStack() as stack:
        conns = {storage: stack.enter_context(_prepared(stage, storage)) for storage in stage.storages}
        for size in sizes:
            stage.say(f"{size:,} items")
            given = msgspec.json.encode(list(range(size)))
            rounds = stage.repeats(3, 5) if size <= 100_000 else 3
            found = take_turns(conns, lambda conn: _spawn(conn, given, size), rounds)  # noqa: B023
            for storage, spawns in found.items():
                starts = Samples(tuple(spawn.start for spawn in spawns))
                windows = [spawn.window for spawn in spawns if spawn.window]
                rate = starts.per(spawns[-1].items)
                if size == WINDOW:
                    what = f"start_flow of {size:,} items, {storage}: items/s"
                    result.bars.append(Bar.at_least(what, rate.median, LIMIT, "{:,.0f}"))
                rows.append(
                    (
                        f"{size:,}",
                        storage,
                        f"{starts.median * 1000:,.0f} ms",
                        f"{spawns[-1].items:,}",
                        f"{rate.median:,.0f}/s",
                        f"{WINDOW / Samples(tuple(windows)).median:,.0f}/s" if windows else "",
                    )
                )
                figures = {"start": list(starts.values), "window": windows}
                result.samples.setdefault(storage, {})[str(size)] = figures
    columns = ("items", "storage", "start_flow", "items ready", "rate", "next window of 20,000")
    result.tables.append(Table("integers", columns, rows))
    return result


class Spawn(NamedTuple):
    """Seconds of start_flow, items that can be claimed then, seconds of the next window of tasks, or 0."""

    start: float
    items: int
    window: float


@contextlib.contextmanager
def _prepared(stage: Stage, storage: str) -> Iterator[engine.Connection]:
    """A connection to a database that knows the flow, and has started a run of it before."""
    with stage.database() as dsn, connected(dsn) as conn:
        store(conn, ["bench_map"], storage)
        engine.start_flow(conn, "bench_map", msgspec.json.encode(list(range(1000))))
        yield conn


def _spawn(conn: engine.Connection, given: bytes, size: int) -> Spawn:
    """Nothing of the run is kept."""
    began = time.perf_counter()
    run_id = engine.start_flow(conn, "bench_map", given)
    start = time.perf_counter() - began
    spawned: int = (conn.execute(_SPAWNED, (run_id,)).fetchone() or (0,))[0]
    window = 0.0
    if 0 < spawned <= size - WINDOW:
        began = time.perf_counter()
        conn.execute(
            "select pgflow._spawn_tasks('bench_map', %s::uuid, 'items', %s::int, %s::int)",
            (run_id, spawned, spawned + WINDOW),
        )
        window = time.perf_counter() - began
    engine.cancel_run(conn, run_id)
    return Spawn(start, spawned or size, window)
