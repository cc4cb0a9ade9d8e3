"""concurrent.futures.ProcessPoolExecutor, nothing around it."""

from __future__ import annotations

from typing import Final

from pgflow_mp.bench.peers import Peer, PeerTask
from pgflow_mp.bench.pools import BarePool

PEER: Final = Peer(
    title="ProcessPoolExecutor",
    packages=(),
    variants=("one item per dispatch", "map, chunksize 100"),
    needs=(),
    results="in memory",
    durable="no",
    lacks="no queue, no retry; a crashed process fails every item",
)


def measure(task: PeerTask) -> float:
    """Seconds until all results are back."""
    with BarePool(task.lanes) as pool:
        if task.variant == "one item per dispatch":
            return pool.one_each(task.call, task.items)
        chunk = 100 if not task.burns else 20
        return pool.chunked(task.call, task.items, chunk)
