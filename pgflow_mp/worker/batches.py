"""What was claimed and what is in the lanes, and how long items take. Plain bookkeeping."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final

from pgflow_mp.executors.messages import Chunk, Item

OVERHEAD: Final = 10e-6  # seconds a lane spends on an item besides its handler
_MEMORY: Final = 0.05  # weight of one item in the moving average

_numbers = itertools.count(1)


class ItemTimes:
    """How long an item of each step takes: a moving average over about the last 20 to 50 items.

    And how many bytes of output it leaves.
    """

    def __init__(self) -> None:
        self._means: dict[tuple[str, str], float] = {}
        self._recent: dict[str, float] = {}
        self._bytes: dict[tuple[str, str], float] = {}

    def observe(self, flow: str, step: str, seconds: float, items: int, size: int = 0) -> None:
        """``items`` items of a step took ``seconds`` together, their outputs have ``size`` bytes."""
        if items <= 0:
            return
        key, mean = (flow, step), seconds / items + OVERHEAD
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

    def recent(self, flow: str) -> float | None:
        """Seconds per item of late, whatever the step."""
        return self._recent.get(flow)


@dataclass(slots=True)
class Batch:
    """The tasks of one claim, in order. ``runs`` and ``steps`` are what items point into.

    ``timeouts`` are seconds per entry of ``steps``; ``lease`` the seconds for which the claim holds,
    counted from ``renewed`` (time.monotonic). ``done[i]`` tells that item i needs nothing more of us,
    ``open`` counts those that do; ``next`` is the first that was not handed to a lane yet. ``deaths`` tells,
    of tasks that are to be failed for it, how many workers died with them, by message id.

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
    size: int = 0  # bytes of input
    next: int = 0
    done: bytearray = field(default_factory=bytearray)
    open: int = 0
    deaths: dict[int, int] = field(default_factory=dict)
    number: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        self.done = bytearray(len(self.items))
        self.open = len(self.items)

    @property
    def waiting(self) -> int:
        """Items that no lane has."""
        return len(self.items) - self.next

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
        )

    def open_messages(self) -> list[int]:
        """Message ids of the items that still need us."""
        return [item.msg_id for item, done in zip(self.items, self.done, strict=True) if not done]

    def to_extend(self) -> Lease:
        """Its lease."""
        return Lease(self.number, self.flow, self.worker_id, self.open_messages(), self.lease)

    def mark(self, first: int, last: int) -> None:
        """Items ``first``..``last`` (inclusive) need nothing more."""
        count = last - first + 1
        self.open -= count - sum(self.done[first : last + 1])
        self.done[first : last + 1] = b"\1" * count


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

    batch: Batch
    start: int
    chunk: Chunk
    lane: int
    seconds: float
    sent: float

    @property
    def timeouts(self) -> list[float | None]:
        """The time limits of the chunk's steps, in seconds."""
        batch, steps = self.batch, self.chunk.steps
        if steps is batch.steps:
            return batch.timeouts
        return [batch.timeouts[batch.steps.index(step)] for step in steps]
