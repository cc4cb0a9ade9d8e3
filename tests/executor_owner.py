"""Drives any executor in tests as a worker does, and audits what it reports."""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import engine_clusters
import pytest
from lane_harness import FLOWS, chunk_of, outcomes_of, range_of

from pgflow_mp.executors.choosing import factory
from pgflow_mp.executors.events import (
    ExecutorLost,
    ExecutorSaid,
    LaneDied,
    LaneFailedToStart,
    Outcomes,
    RangeOutcomes,
)
from pgflow_mp.executors.lanes.executor import lanes
from pgflow_mp.executors.messages import AnyChunk, Outcome, Setup
from pgflow_mp.executors.protocol import Executor, ExecutorFactory, Limits

SPAWN = multiprocessing.get_context("spawn")


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=SPAWN)


MAKERS: dict[str, Callable[[], ExecutorFactory]] = {
    "lanes": lambda: lanes,
    "processes": lambda: factory(processes()),
    "remade processes": lambda: factory(processes),
    "threads": lambda: factory(ThreadPoolExecutor(2)),
    "threads by word": lambda: factory("threads", 2),
    "inline": lambda: factory("inline"),
    "dask": engine_clusters.on_dask,
    "ray": engine_clusters.on_ray,
    "mpi": engine_clusters.on_mpi,
}
"""A new executor needs a line here, and nothing else of this file."""
UNDER_MPI = "PGFLOW_TEST_MPI" in os.environ
CHUNKS: dict[str, Callable[..., AnyChunk]] = {"tasks": chunk_of, "ranges": range_of}
ALIKE = ("processes", "threads", "threads by word")
"""Those that differ from another one in nothing that concerns ranges."""

AT_ONCE = ("inline",)
"""Those that have run a chunk when submit() returns."""


MEMORY: int | None = None
"""Bytes for each process."""


class Owner:
    """Does what a worker does, and keeps what it is told. An item that is reported twice fails the test."""

    def __init__(self, kind: str, target: str = FLOWS, *, storage: str = "tasks") -> None:
        self.kind = kind
        self.chunk = CHUNKS[storage]
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.executor: Executor = MAKERS[kind]()(Setup(target=target), Limits(2, MEMORY), self.events.put)
        self.outcomes: dict[int, dict[int, Outcome]] = defaultdict(dict)
        self.done: set[int] = set()
        self.deaths: list[LaneDied] = []
        self.lost: list[ExecutorLost] = []
        self.said: list[ExecutorSaid] = []
        self._next = 0

    def collect(self) -> None:
        while not self.events.empty():
            event = self.events.get()
            if isinstance(event, LaneDied):
                self.deaths.append(event)
                if event.verdict is not None and event.seq is not None:
                    self._keep(event.seq, event.verdict)
            elif isinstance(event, LaneFailedToStart):
                self.on_failed(event)
            elif isinstance(event, ExecutorLost):
                self.lost.append(event)
            elif isinstance(event, ExecutorSaid):
                self.said.append(event)
            elif isinstance(event, Outcomes | RangeOutcomes):
                assert isinstance(event, Outcomes) is (self.chunk is chunk_of)
                for outcome in outcomes_of(event):
                    self._keep(event.seq, outcome)
                if event.done:
                    assert event.seq not in self.done
                    self.done.add(event.seq)

    def on_failed(self, event: LaneFailedToStart) -> None:
        raise AssertionError(event.text)

    def _keep(self, seq: int, outcome: Outcome) -> None:
        assert seq not in self.done, f"chunk {seq} was closed before"
        assert outcome.position not in self.outcomes[seq], f"item {outcome.position} was reported twice"
        self.outcomes[seq][outcome.position] = outcome

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            self.executor.tick(time.monotonic())
            self.collect()
            time.sleep(0.005)

    def submit(self, *orders: Any, timeout: float | None = None, step: str = "act", **names: Any) -> int:
        self.until(self.executor.rooms)
        self._next += 1
        chunk = self.chunk(self._next, orders, step=step, **names)
        assert self.executor.submit(self.executor.rooms()[0][0], chunk, [timeout])
        return chunk.seq

    def run(self, *orders: Any, **options: Any) -> list[Outcome]:
        seq = self.submit(*orders, **options)
        self.until(lambda: seq in self.done)
        return self.of(seq)

    def of(self, seq: int) -> list[Outcome]:
        found = self.outcomes[seq]
        assert sorted(found) == list(range(len(found)))
        return [found[position] for position in sorted(found)]


def marks(kind: str) -> list[pytest.MarkDecorator]:
    """What tests of engines are marked with: they take seconds, and need their package."""
    if kind == "mpi":
        return [pytest.mark.slow, pytest.mark.skipif(not UNDER_MPI, reason="test_mpi.py runs these")]
    return [pytest.mark.slow, engine_clusters.needs(kind)] if kind in engine_clusters.ENGINES else []


KINDS = [pytest.param(kind, marks=marks(kind)) for kind in MAKERS]


def kinds(outcomes: list[Outcome]) -> list[int]:
    return [int(outcome.kind) for outcome in outcomes]
