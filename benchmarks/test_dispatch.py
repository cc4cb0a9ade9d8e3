"""Lanes: chunks to processes and outcomes back, without a database."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pgflow_mp.executors.events import LaneReady, Outcomes
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.messages import Chunk, Item, Setup

pytestmark = pytest.mark.benchmark(group="dispatch")
LANES, TOTAL = 2, 4_000


@pytest.fixture(scope="module")
def pool() -> Iterator[tuple[LanePool, queue.SimpleQueue[Any]]]:
    """Two lanes that are ready."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with LanePool(Setup("pgflow_mp.bench.bench_flows"), LANES, events.put) as pool:
        pool.start()
        ready = 0
        while ready < LANES:
            ready += isinstance(events.get(timeout=30), LaneReady)
        yield pool, events


@pytest.mark.parametrize("size", [1, 10, 100, 500])
def test_dispatch(
    benchmark: BenchmarkFixture, pool: tuple[LanePool, queue.SimpleQueue[Any]], size: int
) -> None:
    lanes, events = pool
    total = TOTAL if size > 1 else TOTAL // 4
    items = [Item(i, 1, i, 0, 0, b"1", None) for i in range(size)]

    def send_all() -> int:
        sent = done = 0
        while done < total:
            for lane, room in lanes.rooms():
                for _ in range(room):
                    if sent < total:
                        chunk = Chunk(time.perf_counter_ns(), "bench_map", ["run"], ["items"], items)
                        sent += size * lanes.submit(lane, chunk)
            event = events.get(timeout=10)
            if isinstance(event, Outcomes):
                done += len(event.outcomes)
        return done

    assert benchmark.pedantic(send_all, rounds=5, warmup_rounds=1) == total
    benchmark.extra_info["items"] = total
