"""PgQueuer with asyncpg and uvloop; work that needs a CPU goes to a process pool."""

from __future__ import annotations

import asyncio
import importlib
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from pgflow_mp.bench import burning
from pgflow_mp.bench.peers import Peer, PeerTask

PEER: Final = Peer(
    title="PgQueuer",
    packages=("pgqueuer", "asyncpg", "uvloop"),
    variants=("batch_size 10", "batch_size 100", "batch_size 1000"),
    needs=("postgres",),
    results="none",
    durable="yes",
    lacks="stores no results; handlers run in the worker's event loop unless you bring a pool",
)


def measure(task: PeerTask) -> float:
    """Seconds from enqueue until the queue is drained."""
    uvloop: Any = importlib.import_module("uvloop")
    return float(uvloop.run(_measure(task)))


async def _measure(task: PeerTask) -> float:
    asyncpg: Any = importlib.import_module("asyncpg")
    db: Any = importlib.import_module("pgqueuer.db")
    queries: Any = importlib.import_module("pgqueuer.queries")
    conn = await asyncpg.connect(task.url)
    pool = ProcessPoolExecutor(task.lanes) if task.burns else None
    try:
        if not await conn.fetchval("select to_regclass('pgqueuer')"):
            await queries.Queries(db.AsyncpgDriver(conn)).install()
        await _drain(task, task.items[:200], pool)
        started = time.perf_counter()
        done = await _drain(task, task.items, pool)
        seconds = time.perf_counter() - started
    finally:
        await conn.close()
        if pool is not None:
            pool.shutdown()
    if done != len(task.items):
        raise RuntimeError(f"{done} jobs")
    return seconds


async def _drain(task: PeerTask, items: list[int], pool: ProcessPoolExecutor | None) -> int:
    asyncpg: Any = importlib.import_module("asyncpg")
    db: Any = importlib.import_module("pgqueuer.db")
    pgqueuer: Any = importlib.import_module("pgqueuer")
    mode: Any = importlib.import_module("pgqueuer.types").QueueExecutionMode
    conn = await asyncpg.connect(task.url)
    try:
        queue = pgqueuer.PgQueuer(db.AsyncpgDriver(conn))
        loop, done = asyncio.get_running_loop(), 0

        async def item(job: Any) -> None:
            nonlocal done
            value = int(job.payload)
            if pool is None:
                burning.noop(value)
            else:
                await loop.run_in_executor(pool, burning.burn, value)
            done += 1

        queue.entrypoint("item")(item)
        count = len(items)
        await queue.qm.queries.enqueue(["item"] * count, [str(i).encode() for i in items], [0] * count)
        size = int(task.variant.split()[-1])
        await queue.qm.run(batch_size=size, mode=mode.drain)
        return done
    finally:
        await conn.close()
