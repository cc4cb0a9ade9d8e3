"""Driving our SQL without a worker: what the engine alone can do."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

import msgspec

from pgflow_mp.bench.arena import connected
from pgflow_mp.db import engine
from pgflow_mp.loading.finding import load_flows

BATCH = 500
FLOW = "bench_map"


def prepare(dsn: str) -> tuple[engine.Connection, str]:
    """A connection to a database that knows the flow, and a worker id that is registered there."""
    conn = connected(dsn)
    (flow,) = (flow for flow in load_flows("pgflow_mp.bench.bench_flows") if flow.slug == FLOW)
    engine.ensure_flow_compiled(conn, FLOW, msgspec.json.encode(flow.shape()))
    worker_id = str(uuid.uuid4())
    engine.register_worker(conn, worker_id, FLOW, "benchmark")
    return conn, worker_id


def drain(conn: engine.Connection, worker_id: str, items: Sequence[object]) -> float:
    """Seconds from start_flow until the run has completed, by one connection."""
    began = time.perf_counter()
    run_id = engine.start_flow(conn, FLOW, msgspec.json.encode(items))
    while tasks := engine.claim_tasks(conn, FLOW, worker_id, BATCH):
        settle(conn, run_id, worker_id, tasks)
    seconds = time.perf_counter() - began
    if engine.run_status(conn, run_id) != "completed":
        raise RuntimeError("the run has not completed")
    return seconds


def settle(
    conn: engine.Connection, run_id: str, worker_id: str, tasks: list[engine.ClaimedTask]
) -> engine.Settled:
    """Complete tasks with their own inputs as results."""
    return engine.complete_tasks(
        conn,
        run_id,
        tasks[0].step_slug,
        [task.task_index for task in tasks],
        [task.input for task in tasks],
        worker_id,
        [task.attempt for task in tasks],
    )
