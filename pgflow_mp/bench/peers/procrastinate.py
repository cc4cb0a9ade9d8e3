"""Procrastinate: batch_defer, then a worker with many jobs at once; CPU work goes to a process pool."""

from __future__ import annotations

import asyncio
import importlib
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from pgflow_mp.bench import burning
from pgflow_mp.bench.peers import Peer, PeerTask

PEER: Final = Peer(
    title="Procrastinate",
    packages=("procrastinate",),
    variants=("concurrency 30",),
    needs=("postgres",),
    results="none",
    durable="yes",
    lacks="stores no results; handlers run in the worker's event loop unless you bring a pool",
    slow=("concurrency 30",),
)


def measure(task: PeerTask) -> float:
    """Seconds from batch_defer until the worker has caught up."""
    return asyncio.run(_measure(task))


async def _measure(task: PeerTask) -> float:
    procrastinate: Any = importlib.import_module("procrastinate")
    pool = ProcessPoolExecutor(task.lanes) if task.burns else None
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=task.dsn, max_size=40))
    done = 0

    async def item(value: int) -> None:
        nonlocal done
        if pool is None:
            burning.noop(value)
        else:
            await asyncio.get_running_loop().run_in_executor(pool, burning.burn, value)
        done += 1

    jobs = app.task(name="item")(item)

    async def drain(items: list[int]) -> None:
        for first in range(0, len(items), 1000):
            await jobs.batch_defer_async(*({"value": value} for value in items[first : first + 1000]))
        await app.run_worker_async(wait=False, concurrency=30, install_signal_handlers=False)

    async with app.open_async():
        await _install(app)
        await drain(task.items[:200])
        done, started = 0, time.perf_counter()
        await drain(task.items)
        seconds = time.perf_counter() - started
    if pool is not None:
        pool.shutdown()
    if done != len(task.items):
        raise RuntimeError(f"{done} jobs")
    return seconds


async def _install(app: Any) -> None:
    row = await app.connector.execute_query_one_async("select to_regclass('procrastinate_jobs') as found")
    if row["found"] is None:
        await app.schema_manager.apply_schema_async()
