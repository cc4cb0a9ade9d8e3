"""What was claimed and what is in the lanes, and how long items take. Plain bookkeeping."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pgflow_mp.executors.messages import AnyChunk, Chunk, Item
from pgflow_mp.worker.chunks import LARGEST, LARGEST_BYTES, LARGEST_OUTPUT, Stretch, by_bytes, compact
from pgflow_mp.worker.groups import AnyGroup, Group
from pgflow_mp.worker.releases import Release, TaskRelease

OVERHEAD: Final = 10e-6  # seconds a lane spends on an item besides its handler
_MEMORY: Final = 0.05  # weight of one item in the moving average

_numbers = itertools.count(1)


def next_number() -> int:
    """What tells a batch from all others of this process."""
    return next(_numbers)


class ItemTimes:
    """How long an item of each step takes: a moving average over about the last 20 to 50 items.

    And how many bytes of output it leaves. ``batches`` are the items that a step's handler takes at once, by
    flow and step, where that is a list.
    """

    def __init__(self, batches: Mapping[tuple[str, str], int] = MappingProxyType({})) -> None:
        self._batches = batches
        self._last: dict[str, str] = {}
        self._means: dict[tuple[str, str], float] = {}
        self._recent: dict[str, float] = {}
        self._bytes: dict[tuple[str, str], float] = {}

    def observe(
        self, flow: str, step: str, seconds: float, items: int, size: int = 0, overhead: float = OVERHEAD
    ) -> None:
        """``items`` items of a step took ``seconds`` together, their outputs have ``size`` bytes."""
        if items <= 0:
            return
        key, mean = (flow, step), seconds / items + overhead
        self._last[flow] = step
        self._bytes[key] = max(size / items, 0.9 * self._bytes.get(key, 0.0))
        weight = 1.0 - (1.0 - _MEMORY) ** items
        known = self._means.get(key, mean)
        self._means[key] = known + weight * (mean - known)
        recent = self._recent.get(flow, mean)
        self._recent[flow] = recent + weight * (mean - recent)

    def of(self, flow: str, step: str) -> float | None:
        """Seconds per item, None before the first was seen."""
        return self._means.get((flow, step))

    def output_bytes(self, flow: str, step: str) -> float:
        """Bytes of an item's output of late: rather too many than too few."""
        return self._bytes.get((flow, step), 0.0)

    def batch(self, flow: str, step: str) -> int:
        """Items that the step's handler takes at once; 0: one by one."""
        return self._batches.get((flow, step), 0)

    def recent_batch(self, flow: str) -> int:
        """The same of the step that was seen last; before any was, the most of the flow's steps."""
        if flow in self._last:
            return self.batch(flow, self._last[flow])
        return max((size for (slug, _), size in self._batches.items() if slug == flow), default=0)

    def recent(self, flow: str) -> float | None:
        """Seconds per item of late, whatever the step."""
        return self._recent.get(flow)


def input_of(item: Item) -> bytes:
    """What a task is given: an element, its parents' outputs, or else the run's input; raw JSON."""
    return item.flow_input if item.flow_input is not None else item.input


class AnyBatch:
    """What is held of one claim, item by item: a Batch of tasks or a RangeBatch.

    ``runs`` and ``steps`` are those of its items, ``timeouts`` are seconds per entry of ``steps``.
    ``done[i]`` tells that item i needs nothing more of us, ``open`` counts those that do; ``next`` is the
    first that was not handed to a lane yet. ``size`` is in bytes of input. ``limit`` is the most items that
    a handler of batches may be given at once (0: as its step says). ``number`` tells it from all others.

    Threads: the main loop's.
    """

    flow: str
    worker_id: str
    runs: list[str]
    steps: list[str]
    timeouts: list[float | None]
    size: int
    next: int
    done: bytearray
    open: int
    limit: int
    number: int

    def __len__(self) -> int:
        return len(self.done)

    @property
    def waiting(self) -> int:
        """Items that no lane has."""
        return len(self.done) - self.next

    @property
    def largest(self) -> int:
        """Items of a chunk at most."""
        raise NotImplementedError

    @property
    def largest_output(self) -> int:
        """Bytes that a chunk of several items may be expected to leave."""
        return LARGEST_OUTPUT

    def item(self, position: int) -> Item:
        """The item there; ``run`` and ``step`` point into the batch's lists."""
        raise NotImplementedError

    def input(self, position: int) -> bytes | memoryview:
        """What the item there is given, raw JSON: for whoever tells of it."""
        raise NotImplementedError

    def parts(self, spans: Sequence[Stretch]) -> Sequence[AnyBatch]:
        """Batches of some of its items, to be handed out anew."""
        raise NotImplementedError

    def cut_off(self, first: int) -> AnyBatch:
        """Take the items from ``first`` on out of it; a batch of them."""
        raise NotImplementedError

    def chunk(self, seq: int, start: int, count: int, least: int = 1) -> AnyChunk:
        """Items ``start``.. for a lane: ``count`` of them, or fewer, but not than ``least``, if large."""
        raise NotImplementedError

    def release(self, spans: Sequence[Stretch]) -> Release:
        """What hands these items back."""
        raise NotImplementedError

    def failed(self, position: int, body: bytes, permanent: bool) -> AnyGroup:
        """What records that an item failed, for good if ``permanent``."""
        raise NotImplementedError

    def mark(self, first: int, last: int) -> None:
        """Items ``first``..``last`` (inclusive) need nothing more."""
        count = last - first + 1
        self.open -= count - self.done.count(1, first, last + 1)
        self.done[first : last + 1] = b"\1" * count

    def _drop_tail(self, first: int) -> None:
        self.open -= self.done.count(0, first)
        del self.done[first:]


@dataclass(eq=False)
class Batch(AnyBatch):
    """The tasks of one claim, in order. ``runs`` and ``steps`` are what items point into.

    ``lease`` are the seconds for which the claim holds, counted from ``renewed`` (time.monotonic).
    ``deaths`` tells, of tasks that are to be failed for it, how many workers died with them, by message id.

    Threads: the main loop's. What the heartbeat knows of it are Leases (Dispatcher.leases).
    """

    flow: str
    worker_id: str
    runs: list[str]
    steps: list[str]
    timeouts: list[float | None]
    items: list[Item]
    lease: float
    renewed: float
    size: int = 0
    next: int = 0
    done: bytearray = field(default_factory=bytearray)
    open: int = 0
    limit: int = 0
    deaths: dict[int, int] = field(default_factory=dict)
    number: int = field(default_factory=next_number)

    def __post_init__(self) -> None:
        self.done = bytearray(len(self.items))
        self.open = len(self.items)

    @property
    def largest(self) -> int:
        """Items of a chunk at most."""
        return min(LARGEST, self.limit or LARGEST)

    def item(self, position: int) -> Item:
        """The item there."""
        return self.items[position]

    def input(self, position: int) -> bytes:
        """What the item there is given."""
        return input_of(self.items[position])

    def part(self, items: list[Item]) -> Batch:
        """A batch of some of its items, to be handed out anew."""
        return Batch(
            self.flow,
            self.worker_id,
            self.runs,
            self.steps,
            self.timeouts,
            items,
            self.lease,
            self.renewed,
            size=self.size * len(items) // max(1, len(self.items)),
            limit=self.limit,
        )

    def parts(self, spans: Sequence[Stretch]) -> list[Batch]:
        """One batch of the items in all of these."""
        return [self.part([item for first, end in spans for item in self.items[first:end]])]

    def cut_off(self, first: int) -> Batch:
        """Take the items from ``first`` on out of it; a batch of them."""
        rest = self.part(self.items[first:])
        self.items = self.items[:first]
        self._drop_tail(first)
        return rest

    def chunk(self, seq: int, start: int, count: int, least: int = 1) -> Chunk:
        """Items ``start``.. for a lane: ``count`` of them, or fewer, but not than ``least``, if large."""
        if self.size > LARGEST_BYTES and count > least:
            count = max(least, by_bytes(itertools.islice(self.items, start, start + count)))
        chunk = Chunk(seq, self.flow, self.runs, self.steps, self.items[start : start + count], self.limit)
        return compact(chunk) if len(self.runs) + len(self.steps) > 2 * count + 8 else chunk

    def release(self, spans: Sequence[Stretch]) -> TaskRelease:
        """What hands these items back."""
        ids = [item.msg_id for first, end in spans for item in self.items[first:end]]
        return TaskRelease(self.flow, self.worker_id, ids)

    def failed(self, position: int, body: bytes, permanent: bool) -> Group:
        """What records that an item failed, for good if ``permanent``."""
        item = self.items[position]
        run, step = self.runs[item.run], self.steps[item.step]
        return Group(
            run, step, self.worker_id, True, [item.index], [item.attempt], [body], [permanent], [item.msg_id]
        )

    def open_messages(self) -> list[int]:
        """Message ids of the items that still need us."""
        return [item.msg_id for item, done in zip(self.items, self.done, strict=True) if not done]

    def to_extend(self) -> Lease:
        """Its lease."""
        return Lease(self.number, self.flow, self.worker_id, self.open_messages(), self.lease)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a batch still holds: to be extended to ``seconds`` from now on. ``number`` is the batch's."""

    number: int
    flow: str
    worker_id: str
    msg_ids: list[int]
    seconds: float


@dataclass(slots=True)
class Flight:
    """A chunk in a lane: the items of ``batch`` from ``start`` on, expected to take ``seconds``."""

    batch: AnyBatch
    start: int
    chunk: AnyChunk
    lane: int
    seconds: float
    sent: float
    suspects: Stretch | None = None
    """Of its chunk, where a batch that nobody can be charged for took its process down."""

    @property
    def timeouts(self) -> list[float | None]:
        """The time limits of the chunk's steps, in seconds."""
        batch, steps = self.batch, self.chunk.steps
        if len(steps) == len(batch.steps):
            return batch.timeouts
        return [batch.timeouts[batch.steps.index(step)] for step in steps]
