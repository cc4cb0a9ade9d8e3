"""How fast start_flow makes tasks, and how soon it answers for large inputs."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from pgflow_mp.bench.arena import connected
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage
from pgflow_mp.db import engine
from pgflow_mp.loading.finding import load_flows

LIMIT: Final = 100_000
WINDOW: Final = 20_000
_SPAWNED: Final = (
    "select spawned_tasks from pgflow.step_states where run_id = %s::uuid and step_slug = 'items'"
)


def run(stage: Stage) -> SuiteResult:
    """No worker: start_flow alone, then the windows that follow, made by the engine's own function."""
    result = SuiteResult("spawn", "Making tasks")
    sizes = [WINDOW, 100_000] if stage.quick else [WINDOW, 100_000, 1_000_000]
    rows = []
    with stage.database() as dsn, connected(dsn) as conn:
        (flow,) = (f for f in load_flows("pgflow_mp.bench.bench_flows") if f.slug == "bench_map")
        engine.ensure_flow_compiled(conn, flow.slug, msgspec.json.encode(flow.shape()))
        engine.start_flow(conn, flow.slug, msgspec.json.encode(list(range(1000))))
        for size in sizes:
            stage.say(f"{size:,} items")
            given = msgspec.json.encode(list(range(size)))
            starts, windows = [], []
            for _ in range(stage.repeats(3, 5) if size <= 100_000 else 3):
                start, spawned, window = _spawn(conn, given, size)
                starts.append(start)
                windows += [window] if window else []
            rate = Samples(tuple(starts)).per(spawned)
            if size == WINDOW:
                what = f"start_flow of {size:,} items: tasks/s"
                result.bars.append(Bar.at_least(what, rate.median, LIMIT, "{:,.0f}"))
            window_rate = f"{WINDOW / Samples(tuple(windows)).median:,.0f}/s" if windows else ""
            rows.append(
                (
                    f"{size:,}",
                    f"{Samples(tuple(starts)).median * 1000:,.0f} ms",
                    f"{spawned:,}",
                    f"{rate.median:,.0f}/s",
                    window_rate,
                )
            )
            result.samples[str(size)] = {"start": starts, "window": windows}
    columns = ("items", "start_flow", "tasks spawned by it", "rate", "next window of 20,000")
    result.tables.append(Table("integers", columns, rows))
    return result


def _spawn(conn: engine.Connection, given: bytes, size: int) -> tuple[float, int, float]:
    """Seconds of start_flow, tasks that it made, seconds of the next window; nothing of it is kept."""
    began = time.perf_counter()
    run_id = engine.start_flow(conn, "bench_map", given)
    start = time.perf_counter() - began
    spawned: int = (conn.execute(_SPAWNED, (run_id,)).fetchone() or (0,))[0]
    window = 0.0
    if spawned + WINDOW <= size:
        began = time.perf_counter()
        conn.execute(
            "select pgflow._spawn_tasks('bench_map', %s::uuid, 'items', %s::int, %s::int)",
            (run_id, spawned, spawned + WINDOW),
        )
        window = time.perf_counter() - began
    engine.cancel_run(conn, run_id)
    return start, spawned, window
