"""joblib with its default backend loky, which batches by measured time."""

from __future__ import annotations

import importlib
import time
from typing import Any, Final

from pgflow_mp.bench.peers import Peer, PeerTask

PEER: Final = Peer(
    title="joblib (loky)",
    packages=("joblib",),
    variants=("batch_size auto",),
    needs=(),
    results="in memory",
    durable="no",
    lacks="no queue, no retry; a crashed process fails the call",
)


def measure(task: PeerTask) -> float:
    """Seconds until all results are back."""
    joblib: Any = importlib.import_module("joblib")
    delayed = joblib.delayed
    with joblib.Parallel(n_jobs=task.lanes) as parallel:
        parallel(delayed(task.call)(item) for item in task.items[:200])
        started = time.perf_counter()
        done = parallel(delayed(task.call)(item) for item in task.items)
        seconds = time.perf_counter() - started
    if len(done) != len(task.items):
        raise RuntimeError(f"{len(done)} results")
    return seconds
