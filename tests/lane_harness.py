"""Drives a real lane pool in tests: feeds chunks, runs the watchdog, and audits what the events say."""

from __future__ import annotations

import json
import queue
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from pgflow_mp.executors.events import (
    LaneDied,
    LaneEvent,
    LaneFailedToStart,
    LaneReady,
    Outcomes,
    RangeOutcomes,
)
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.lanes.watchdog import Watchdog
from pgflow_mp.executors.messages import AnyChunk, Chunk, Item, Kind, Outcome, RangeChunk, Segment, Setup

FLOWS = str(Path(__file__).with_name("lane_flows.py"))


def chunk_of(
    seq: int, orders: Sequence[Any], *, flow: str = "misbehave", step: str = "act", batch: int = 0
) -> Chunk:
    """A chunk whose items are numbered 0, 1, ... and whose inputs are ``orders``."""
    items = [Item(i, 1, i, 0, 0, json.dumps(order).encode(), None) for i, order in enumerate(orders)]
    return Chunk(seq, flow, ["run"], [step], items, batch)


def range_of(
    seq: int,
    orders: Sequence[Any],
    *,
    flow: str = "misbehave",
    step: str = "act",
    first_index: int = 0,
    batch: int = 0,
) -> RangeChunk:
    """The same as a RangeChunk, over two pages that hold more than its elements."""
    middle = len(orders) // 2
    pages = [["before", *orders[:middle]], [*orders[middle:], "after"]]
    segments = [
        Segment(json.dumps(page).encode(), 2 * seq + number, 1 - number, len(page) - 1)
        for number, page in enumerate(pages)
    ]
    return RangeChunk(
        seq, flow, "run", step, first_index, len(orders), [s for s in segments if s.count], batch
    )


def outcomes_of(event: Outcomes | RangeOutcomes) -> list[Outcome]:
    """What an event reports, item by item."""
    if isinstance(event, Outcomes):
        return event.outcomes
    found = list(event.exceptions)
    for piece in event.pieces:
        bodies = msgspec.json.decode(b"[" + piece.body + b"]", type=list[msgspec.Raw])
        assert len(bodies) == piece.count
        found += [Outcome(piece.position + n, Kind.COMPLETED, bytes(b), 0.0) for n, b in enumerate(bodies)]
    for position, count in event.not_run:
        found += [Outcome(position + n, Kind.NOT_RUN, b"", 0.0) for n in range(count)]
    assert event.completed == sum(piece.count for piece in event.pieces)
    return found


class Harness:
    """A started pool with its events. Every item's outcome is kept; a second one for it fails the test."""

    def __init__(self, pool: LanePool, events: queue.SimpleQueue[LaneEvent]) -> None:
        self.pool = pool
        self.watchdog = Watchdog(pool)
        self.outcomes: dict[int, dict[int, Outcome]] = defaultdict(dict)
        self.deaths: list[LaneDied] = []
        self.ready: list[LaneReady] = []
        self.failed: list[LaneFailedToStart] = []
        self.done: set[int] = set()
        self.reports: list[RangeOutcomes] = []
        self.died_at: dict[int, float] = {}
        self.make: Callable[..., AnyChunk] = chunk_of
        self._events = events
        self._next = 0

    def tick(self) -> None:
        """One turn of an owner's loop."""
        self.pool.poll()
        self.watchdog.tick()
        self.collect()
        time.sleep(0.005)

    def collect(self) -> None:
        while not self._events.empty():
            self._note(self._events.get())

    def _note(self, event: LaneEvent) -> None:
        if isinstance(event, LaneReady):
            self.ready.append(event)
        elif isinstance(event, LaneFailedToStart):
            self.failed.append(event)
        elif isinstance(event, LaneDied):
            self.deaths.append(event)
            self.died_at[event.lane] = time.monotonic()
            if event.verdict is not None and event.seq is not None:
                self._keep(event.seq, event.verdict)
        elif isinstance(event, Outcomes | RangeOutcomes):
            assert event.seq not in self.done, f"chunk {event.seq} was closed before"
            for outcome in outcomes_of(event):
                self._keep(event.seq, outcome)
            if event.done:
                self.done.add(event.seq)
            if isinstance(event, RangeOutcomes):
                self.reports.append(event)

    def _keep(self, seq: int, outcome: Outcome) -> None:
        assert seq not in self.done, f"chunk {seq} was closed before"
        assert outcome.position not in self.outcomes[seq], f"item {outcome.position} was reported twice"
        self.outcomes[seq][outcome.position] = outcome

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> float:
        """Tick until the condition holds; the seconds it took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, f"not within {seconds} s"
            self.tick()
        return time.monotonic() - started

    def all_ready(self, seconds: float = 10.0) -> None:
        """Wait until every lane takes chunks."""
        self.until(lambda: len(self.pool.lanes()) == self.pool.size, seconds)
        self.collect()

    def submit(
        self, orders: Sequence[Any], *, lane: int = 0, timeout: float | None = None, **names: Any
    ) -> int:
        """Send a chunk to a lane as soon as it has room; its number."""
        self.until(lambda: self.pool.room(lane))
        seq = self.try_submit(orders, lane=lane, timeout=timeout, **names)
        assert seq is not None
        return seq

    def try_submit(
        self, orders: Sequence[Any], *, lane: int = 0, timeout: float | None = None, **names: Any
    ) -> int | None:
        """Send a chunk; its number, or None if the lane refuses it."""
        self._next += 1
        chunk = self.make(self._next, orders, **names)
        return chunk.seq if self.pool.submit(lane, chunk, [timeout]) else None

    def run(
        self, orders: Sequence[Any], *, lane: int = 0, timeout: float | None = None, **names: Any
    ) -> list[Outcome]:
        """Run one chunk to its end; the outcomes by position."""
        seq = self.submit(orders, lane=lane, timeout=timeout, **names)
        self.until(lambda: seq in self.done, 30.0)
        return self.of(seq)

    def of(self, seq: int) -> list[Outcome]:
        """The outcomes of a chunk by position; each exactly once."""
        found = self.outcomes[seq]
        assert sorted(found) == list(range(len(found)))
        return [found[position] for position in sorted(found)]


@contextmanager
def lanes(
    size: int = 1,
    *,
    target: str = FLOWS,
    setup: dict[str, Any] | None = None,
    make: Callable[..., AnyChunk] = chunk_of,
    **options: Any,
) -> Iterator[Harness]:
    """A pool of ``size`` lanes, ready; aborted at the end. ``make``: the chunks that it gets."""
    events: queue.SimpleQueue[LaneEvent] = queue.SimpleQueue()
    with LanePool(Setup(target=target, **(setup or {})), size, events.put, **options) as pool:
        harness = Harness(pool, events)
        harness.make = make
        pool.start()
        harness.all_ready()
        yield harness


def kinds(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(outcome.kind) for outcome in outcomes]


def text(outcome: Outcome) -> str:
    return outcome.body.decode()


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    """Whether the condition comes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
