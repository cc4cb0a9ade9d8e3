"""The bare ProcessPoolExecutor that everything is compared with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any

from pgflow_mp.bench import burning
from pgflow_mp.worker.chunks import chunk_size


class BarePool:
    """A warm pool without database, results in a list."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._pool = ProcessPoolExecutor(lanes, mp_context=get_context("forkserver"))

    def __enter__(self) -> BarePool:
        list(self._pool.map(burning.nap, [20.0] * self.lanes * 2))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> float:
        """Seconds for pool.map with chunks."""
        started = time.perf_counter()
        done = list(self._pool.map(function, items, chunksize=chunk))
        return _checked(started, done, items)

    def one_each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> float:
        """Seconds for one submit an item."""
        started = time.perf_counter()
        futures = [self._pool.submit(function, item) for item in items]
        done = [future.result() for future in futures]
        return _checked(started, done, items)


def same_chunks(item_seconds: float, count: int, lanes: int) -> int:
    """The chunk that our dispatcher takes for items of this length, evened out over the lanes."""
    turns = math.ceil(count / (lanes * chunk_size(item_seconds, count, lanes)))
    return math.ceil(count / (lanes * turns))


def _checked(started: float, done: list[Any], items: Sequence[Any]) -> float:
    seconds = time.perf_counter() - started
    if len(done) != len(items):
        raise RuntimeError(f"the pool returned {len(done)} of {len(items)} results")
    return seconds
