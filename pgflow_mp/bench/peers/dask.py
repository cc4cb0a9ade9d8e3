"""Dask distributed on this machine: one thread per worker process, as its docs advise for Python code."""

from __future__ import annotations

import dataclasses
import importlib
import time
from typing import Any, Final

from pgflow_mp.bench import burning
from pgflow_mp.bench.peers import Peer, PeerTask

PEER: Final = Peer(
    title="Dask distributed",
    packages=("distributed",),
    variants=("one future an item", "lists of 100"),
    needs=(),
    results="in worker memory",
    durable="no",
    lacks="the scheduler's state is lost with its process; lists of 100 fail as one",
    slow=("one future an item",),
)


def measure(task: PeerTask) -> float:
    """Seconds until all results are gathered."""
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=task.lanes, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        _gather(client, dataclasses.replace(task, items=task.items[:200]))
        started = time.perf_counter()
        done = _gather(client, task)
        seconds = time.perf_counter() - started
    if done != len(task.items):
        raise RuntimeError(f"{done} results")
    return seconds


def _gather(client: Any, task: PeerTask) -> int:
    if task.variant == "one future an item":
        return len(client.gather(client.map(task.call, task.items, pure=False)))
    lists = client.gather(client.map(burning.CHUNKED[task.function], task.lists, pure=False))
    return sum(map(len, lists))
