"""The chunks that a lane's process holds, and what its shared memory says of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.endings import Endings, endings_of
from pgflow_mp.executors.lanes.slots import Running, SlotReader
from pgflow_mp.executors.lanes.tally_words import TallyReader
from pgflow_mp.executors.messages import AnyChunk, Kind, Outcome, RangeChunk
from pgflow_mp.executors.protocol import IN_FLIGHT

_IN_SIGHT: Final = 0.02  # seconds in which a store of ours has surely reached the child


@dataclass(slots=True)
class HeldChunk:
    """A chunk that a process holds. ``count`` and ``length`` say how much of its buffer has been taken,
    ``spent`` how many nanoseconds of what its completed items took.

    Items from position ``end`` on were taken away from it and are reported.
    """

    ordinal: int
    chunk: AnyChunk
    timeouts: Sequence[float | None]
    count: int = 0
    length: int = 0
    spent: int = 0
    end: int = 0
    tally: TallyReader = field(default_factory=TallyReader)

    def __post_init__(self) -> None:
        self.end = self.chunk.size

    def take(self, slot: SlotReader) -> Endings:
        """How items have ended since the last time."""
        endings = endings_of(self.chunk)
        taken = slot.take(self.ordinal, self.count, self.length)
        if taken is not None:
            seconds = (taken.spent - self.spent) / 1e9
            endings.read(taken.data, self.count, taken.count - self.count, self.end, seconds)
            self.count, self.length, self.spent = taken.count, taken.length, taken.spent
            if isinstance(self.chunk, RangeChunk):
                endings.tally = slot.tally(self.ordinal, self.tally)
        return endings

    def give_up(self, endings: Endings, error: BaseException | None) -> None:
        """It ended without all its outcomes: a fault of ours or of the handler's tampering."""
        first = self.count
        if first >= self.end:
            return
        _, step, _, index = self.chunk.locate(first)
        name = verdicts.task_name(step, index)
        text = f"InternalError: the lane ended its chunk before {name} had an outcome ({error!r})"
        endings.add(Outcome(first, Kind.FAILED, text.encode("utf-8", "backslashreplace"), 0.0))
        endings.add_not_run(first + 1, self.end)

    def take_away(self, first: int) -> Endings:
        """Its items from ``first`` on, as not run; what its process says of them is ignored."""
        endings = endings_of(self.chunk)
        endings.add_not_run(first, self.end)
        self.end = min(self.end, first)
        return endings


@dataclass(frozen=True, slots=True)
class _Relief:
    """The process was asked at ``since``, in ``target``, to begin nothing of its chunks up to ``ordinal``."""

    target: tuple[int, int]
    ordinal: int
    since: float


class Holding:
    """The chunks of one process, by ordinal. Not thread-safe: the lock of the process guards it."""

    def __init__(self, slot: SlotReader) -> None:
        self.slot = slot
        self.ordinal = 0
        """Of the latest chunk; they count from 1."""
        self._chunks: dict[int, HeldChunk] = {}
        self._relief: _Relief | None = None

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[HeldChunk]:
        return iter(list(self._chunks.values()))

    @property
    def room(self) -> int:
        """Chunks that a lane may be given yet."""
        return IN_FLIGHT - len(self._chunks)

    def add(self, chunk: AnyChunk, timeouts: Sequence[float | None]) -> HeldChunk:
        self.ordinal += 1
        held = self._chunks[self.ordinal] = HeldChunk(self.ordinal, chunk, timeouts)
        return held

    def drop(self, held: HeldChunk) -> bool:
        """Whether it was still there."""
        return self._chunks.pop(held.ordinal, None) is not None

    def take_all(self) -> list[tuple[HeldChunk, Endings]]:
        """Drop all of them; with what is said of each since it was last asked."""
        found = [(held, held.take(self.slot)) for held in self]
        self._chunks.clear()
        return found

    def running(self) -> tuple[HeldChunk, Running] | None:
        """What is being executed now."""
        found = self.slot.running()
        held = self._chunks.get(found.ordinal) if found is not None else None
        return (held, found) if found is not None and held is not None else None

    def is_running(self, target: tuple[int, int]) -> bool:
        """Whether the item (ordinal, position) is being executed."""
        found = self.slot.running()
        return found is not None and (found.ordinal, found.position) == target

    def skip_rest(self) -> None:
        """Ask for what has not begun to be handed back."""
        self.slot.skip(self.ordinal)

    def relieve(self, after: float) -> tuple[list[Endings], bool]:
        """What waits behind an item that has been running for ``after`` seconds, as not run.

        And True if something waits that another call may take away. Taking takes two calls. The first asks
        the process to begin nothing more of what it holds. A process announces an item before it looks for
        such a request; so if the second call, some time later, finds it in the same item, it will not begin
        another.
        """
        found, now = self.slot.running(), time.monotonic()
        if found is None:
            return [], bool(self._chunks)
        target, relief = (found.ordinal, found.position), self._relief
        behind = [
            (held, found.position + found.width if held.ordinal == found.ordinal else 0) for held in self
        ]
        waiting = [(held, first) for held, first in behind if first < held.end]
        if not waiting:
            return [], False
        if now - found.started_ns / 1e9 < after:
            return [], True
        if relief is None or relief.target != target or relief.ordinal != self.ordinal:
            self.skip_rest()
            self._relief = _Relief(target, self.ordinal, now)
        elif now - relief.since >= _IN_SIGHT:
            return [held.take_away(first) for held, first in waiting], False
        return [], True
