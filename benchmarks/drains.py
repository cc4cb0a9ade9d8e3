"""Driving our SQL without a worker: what the engine alone can do."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

import msgspec

from pgflow_mp.bench import stored
from pgflow_mp.bench.arena import connected
from pgflow_mp.db import engine, wire

BATCH = 500
LEASE = 1_000
FLOW = "bench_map"


def prepare(dsn: str, how: str = stored.TASKS) -> tuple[engine.Connection, str]:
    """A connection to a database that knows the flow, and a worker id that is registered there."""
    conn = connected(dsn)
    stored.store(conn, [FLOW], how)
    worker_id = str(uuid.uuid4())
    engine.register_worker(conn, worker_id, FLOW, "benchmark", dead_after=3600)
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


def drain_ranges(conn: engine.Connection, worker_id: str, count: int) -> float:
    """Seconds from start_flow with so many integers until the run has completed, lease by lease."""
    began = time.perf_counter()
    run_id = engine.start_flow(conn, FLOW, msgspec.json.encode(list(range(count))))
    known: list[int] = []
    while rows := conn.execute(_CLAIM, (FLOW, worker_id, LEASE, known[-64:]), binary=True).fetchall():
        known += [page for _, _, _, page, _ in rows if page is not None]
        for step, first, items, page, lease in rows:
            if page is None:
                output = msgspec.json.encode(list(range(first, first + items)))
                conn.execute(
                    _COMPLETE,
                    (run_id, step, worker_id, [lease], [first], [items], wire.RawJsonArray([output])),
                )
    seconds = time.perf_counter() - began
    if engine.run_status(conn, run_id) != "completed":
        raise RuntimeError("the run has not completed")
    return seconds


_CLAIM = """
select step_slug, task_index, items, msg_id, attempt
from pgflow.claim_work(%s, %s::uuid, 0, %s, %s::bigint[])
"""
_COMPLETE = """
select * from pgflow.complete_ranges(%s::uuid, %s, %s::uuid, %s::int[], %s::int[], %s::int[], %s)
"""
