"""The call pattern of pgflow's own worker, on our SQL: a stand-in, not the reference itself.

Polls ten messages, starts their tasks, completes each in a statement of its own, four at a time, and
waits for all of them before it polls again. Our SQL is faster than the reference's, so that it is too.

Threads: each has a connection of its own, and nothing else is shared.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from pgflow_mp.bench.arena import connected
from pgflow_mp.bench.peers import Peer, PeerTask
from pgflow_mp.db import engine
from pgflow_mp.loading.finding import load_flows

BATCH, CONNECTIONS = 10, 4

PEER: Final = Peer(
    title="one call per task, on our SQL",
    packages=(),
    variants=("batch 10, 4 connections",),
    needs=("schema",),
    results="in PostgreSQL",
    durable="yes",
    lacks="stands in for pgflow's own worker; handlers run in the polling process",
    slow=("batch 10, 4 connections",),
)


def measure(task: PeerTask) -> float:
    """Seconds from start_flow to completed."""
    with connected(task.dsn) as conn:
        (flow,) = (flow for flow in load_flows("pgflow_mp.bench.bench_flows") if flow.slug == "bench_burn")
        engine.ensure_flow_compiled(conn, flow.slug, msgspec.json.encode(flow.shape()))
        worker_id = str(uuid.uuid4())
        engine.register_worker(conn, worker_id, flow.slug, "reference")
        pool = [connected(task.dsn) for _ in range(CONNECTIONS)]
        try:
            _drive(conn, pool, task, task.items[:50], worker_id)
            started = time.perf_counter()
            _drive(conn, pool, task, task.items, worker_id)
            return time.perf_counter() - started
        finally:
            for each in pool:
                each.close()


def _drive(
    conn: engine.Connection, pool: list[engine.Connection], task: PeerTask, items: list[int], worker_id: str
) -> None:
    run_id = engine.start_flow(conn, "bench_burn", msgspec.json.encode(items))

    def complete(place: int, rows: list[tuple[int, bytes]]) -> None:
        for index, given in rows:
            output = task.call(msgspec.json.decode(given))
            pool[place].execute(
                "select pgflow.complete_task(%s::uuid, 'items', %s::int, %s::jsonb)",
                (run_id, index, msgspec.json.encode(output).decode()),
            )

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        while engine.run_status(conn, run_id) == "started":
            messages = conn.execute(
                "select msg_id from pgmq.read_with_poll('bench_burn', 5, %s::int, 2, 100)", (BATCH,)
            ).fetchall()
            rows = conn.execute(
                "select task_index, input from pgflow.start_tasks('bench_burn', %s::bigint[], %s::uuid)",
                ([message[0] for message in messages], worker_id),
            ).fetchall()
            shares = [rows[place::CONNECTIONS] for place in range(CONNECTIONS)]
            list(threads.map(complete, range(CONNECTIONS), shares))
