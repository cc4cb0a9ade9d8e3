"""A main loop with stand-ins for executor and threads, which keep what they are told."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from pgflow_mp.db.engine import Settled
from pgflow_mp.executors.events import Outcomes
from pgflow_mp.executors.messages import Chunk, Item, Outcome
from pgflow_mp.worker import inbox
from pgflow_mp.worker.batches import Batch, ItemTimes
from pgflow_mp.worker.course import Course
from pgflow_mp.worker.crew import Crew
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.groups import Group
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.loop import Loop
from pgflow_mp.worker.planner import ClaimRequest
from pgflow_mp.worker.progress import SafeObserver
from pgflow_mp.worker.pulse import Pulse
from pgflow_mp.worker.releases import Release
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.startup import StepPolicy
from pgflow_mp.worker.stats import Stats

RUN, OTHER = "run-1", "run-2"


class FakeExecutor:
    """Two lanes that take chunks and never finish one by themselves."""

    capacity = 2
    paused = False

    def __init__(self) -> None:
        self.taken: list[tuple[int, Chunk, list[float | None]]] = []
        self.open: dict[int, int] = {}
        self.full = False
        self.ended: list[tuple[int, int]] = []
        self.more = False

    def rooms(self) -> list[tuple[int, int]]:
        held = [list(self.open.values()).count(lane) for lane in range(2)]
        return [] if self.full else [(lane, 2 - count) for lane, count in enumerate(held) if count < 2]

    def submit(self, lane: int, chunk: Chunk, timeouts: Sequence[float | None]) -> bool:
        self.taken.append((lane, chunk, list(timeouts)))
        self.open[chunk.seq] = lane
        return True

    def cancel(self, unwanted: Callable[[int, int], bool]) -> None:
        chunks = [chunk for _, chunk, _ in self.taken if chunk.seq in self.open]
        self.ended += [(c.seq, p) for c in chunks for p in range(c.size) if unwanted(c.seq, p)]

    def relieve(self, after: float) -> bool:
        return self.more

    def tick(self, now: float) -> None: ...


class FakeSettler:
    """Keeps what is to be recorded; nothing of it ever is."""

    saturated = heavy = busy = False
    unsettled = released = 0

    def __init__(self) -> None:
        self.groups: list[Any] = []
        self.back: list[Release] = []
        self.flushed = 0

    def add(self, groups: Sequence[Group], size: int, patience: float = 1.0) -> None:
        self.groups += groups

    def release(self, release: Release) -> None:
        self.back.append(release)

    def flush(self) -> None:
        self.flushed += 1

    def holds(self, worker_id: str) -> bool:
        return False


class Told:
    """Keeps every call by name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, arguments))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]


class Bench:
    """A loop for the flows ``f`` (and ``g``) with stand-ins around it."""

    def __init__(self, slugs: Sequence[str] = ("f",), run_id: str | None = None) -> None:
        self.executor, self.settler = FakeExecutor(), FakeSettler()
        self.claimer, self.upkeep, self.observer = Told(), Told(), Told()
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stats, self.course = Stats(), Course(run_id=run_id)
        identities = Identities({slug: slug for slug in slugs})
        crew = cast(Crew, _Crew(self.claimer, self.settler, Told(), self.upkeep))
        self.loop = Loop(
            WorkerSettings(dsn="unused", targets=("unused.py",)),
            cast(Any, self.executor),
            crew,
            identities,
            Dispatcher(ItemTimes()),
            {("f", "s"): StepPolicy(max_attempts=3, base_delay=1)},
            {slug: [slug] for slug in slugs},
            events=self.events,
            observer=SafeObserver(cast(Any, self.observer)),
            stats=self.stats,
            course=self.course,
        )
        self._messages = iter(range(1, 10_000))

    def hear(self, *events: object) -> float:
        """Tell the loop what happened, and let it give its instructions; the pause that it wants."""
        for event in events:
            self.events.put(event)
        self.loop.take_events(0.0)
        return self.loop.instruct(time.monotonic())

    @property
    def requests(self) -> list[ClaimRequest]:
        return [request for (request,) in self.claimer.of("request")]

    def batch(self, count: int, *, run: str = RUN, flow: str = "f", attempt: int = 1) -> Batch:
        items = [Item(i, attempt, next(self._messages), 0, 0, b"1", None) for i in range(count)]
        worker_id = self.loop.identities.of(flow)
        return Batch(flow, worker_id, [run], ["s"], [5.0], items, 7.0, time.monotonic())

    def claimed(self, batch: Batch | None, flow: str = "f") -> float:
        worker_id = batch.worker_id if batch is not None else self.loop.identities.of(flow)
        asked = ClaimRequest(flow, flow, worker_id, 10)
        return self.hear(inbox.Claimed(flow, flow, worker_id, batch, asked, 0.01))

    def done(self, seq: int, *outcomes: Outcome, done: bool = True) -> float:
        if done:
            self.executor.open.pop(seq, None)
        return self.hear(Outcomes(0, 1, seq, list(outcomes), done))

    def quick(self) -> None:
        """Let the loop know that items of the step take a millisecond."""
        self.loop.dispatcher.times.observe("f", "s", 0.1, 100)


class _Crew:
    def __init__(self, claimer: object, settler: object, heartbeat: object, upkeep: object) -> None:
        self.claimer, self.settler, self.heartbeat, self.upkeep = claimer, settler, heartbeat, upkeep
        self.pulse = Pulse("the main loop")


def settled(run: str, worker_id: str, run_status: str, step_status: str = "started") -> inbox.BatchSettled:
    result = Settled(1, [], step_status, run_status)
    return inbox.BatchSettled([inbox.SettledCall(run, "s", worker_id, False, result, 0, 0.01)], False)
