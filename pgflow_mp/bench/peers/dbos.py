"""DBOS: a workflow that enqueues one workflow an item and waits for their results, as its README shows."""

from __future__ import annotations

import importlib
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from pgflow_mp.bench import burning
from pgflow_mp.bench.peers import Peer, PeerTask

PEER: Final = Peer(
    title="DBOS",
    packages=("dbos",),
    variants=("queue",),
    needs=("postgres",),
    results="in PostgreSQL",
    durable="yes",
    lacks="handlers run in threads of one process unless you bring a pool",
    slow=("queue",),
)


def measure(task: PeerTask) -> float:
    """Seconds of the workflow."""
    DBOS: Any = importlib.import_module("dbos").DBOS
    DBOS(config={"name": "bench", "system_database_url": task.url, "run_admin_server": False})
    pool = ProcessPoolExecutor(task.lanes) if task.burns else None

    def one(value: int) -> int:
        return burning.noop(value) if pool is None else pool.submit(burning.burn, value).result()

    def every(items: list[int]) -> int:
        handles = [DBOS.enqueue_workflow("items", item_workflow, item) for item in items]
        return len([handle.get_result() for handle in handles])

    item_workflow, whole_workflow = DBOS.workflow()(one), DBOS.workflow()(every)
    DBOS.launch()
    try:
        DBOS.register_queue("items")
        whole_workflow(task.items[:50])
        started = time.perf_counter()
        done = whole_workflow(task.items)
        seconds = time.perf_counter() - started
    finally:
        DBOS.destroy(destroy_registry=True)
        if pool is not None:
            pool.shutdown()
    if done != len(task.items):
        raise RuntimeError(f"{done} results")
    return seconds
