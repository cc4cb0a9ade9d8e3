"""Celery with Redis as broker and result backend, prefork pool."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from typing import Any, Final

from pgflow_mp.bench.peers import Peer, PeerTask

PEER: Final = Peer(
    title="Celery + Redis",
    packages=("celery", "redis"),
    variants=("group", "chunks of 100"),
    needs=("redis",),
    results="in Redis, for a day",
    durable="Redis snapshots",
    lacks="what Redis had not saved is lost with it; chunks fail as one",
    slow=("group",),
)


def measure(task: PeerTask) -> float:
    """Seconds from apply_async to the last result."""
    os.environ["PGFLOW_BENCH_REDIS"] = task.redis
    from pgflow_mp.bench.peers import celery_app

    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "pgflow_mp.bench.peers.celery_app", "worker"),
            *("--pool", "prefork", "--concurrency", str(task.lanes), "--loglevel", "ERROR"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        function = getattr(celery_app, task.function)
        _run(function, task, task.items[:200])
        started = time.perf_counter()
        done = _run(function, task, task.items)
        seconds = time.perf_counter() - started
    finally:
        worker.terminate()
        worker.wait()
    if done != len(task.items):
        raise RuntimeError(f"{done} results")
    return seconds


def _run(function: Any, task: PeerTask, items: list[int]) -> int:
    celery: Any = importlib.import_module("celery")
    if task.variant == "group":
        done = celery.group(function.s(item) for item in items).apply_async().get()
        return len(done)
    size = 20 if task.burns else 100
    lists = function.chunks(zip(items, strict=False), size).group().apply_async().get()
    return sum(map(len, lists))
