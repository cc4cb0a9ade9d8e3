"""What an executor tells its owner.

A lane's events name it and its generation: the number of its process, counted over the whole executor (0
where there is no telling).
For each chunk the owner sees any number of Outcomes with ``done`` false, then one with ``done`` true: after
that the chunk is forgotten. Each item is reported exactly once: in an Outcomes, or as the verdict of a
LaneDied. Of a RangeChunk it sees RangeOutcomes instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pgflow_mp.errors import PgflowError
from pgflow_mp.executors import messages
from pgflow_mp.executors.tallies import Tally


class Cause(StrEnum):
    """Why a lane's process ended. Where not said otherwise the running item is charged an attempt."""

    CRASH = "crash"  # by itself: a signal, os._exit(); counts against the item's crash budget
    OUT_OF_MEMORY = "out of memory"  # the kernel's OOM killer; counts as a crash
    TERMINATED = "terminated"  # a SIGTERM that was not ours: a process manager or a person; counts as a crash
    TIMEOUT = "timeout"  # killed by the watchdog
    MEMORY = "memory"  # killed over the per-lane memory cap
    CANCELLED = "cancelled"  # killed on the owner's order: the item is handed back
    STALLED = (
        "stalled"  # it held a chunk and did nothing for long, e.g. by SIGSTOP between items: handed back
    )
    STOPPED = "stopped"  # the pool was stopped: the item is handed back
    LOST = "lost"  # the forkserver died, and its lanes with it: the item is handed back

    @property
    def is_crash(self) -> bool:
        return self in (Cause.CRASH, Cause.OUT_OF_MEMORY, Cause.TERMINATED)


@dataclass(frozen=True, slots=True)
class LaneEvent:
    """Base of all events."""

    lane: int
    generation: int


@dataclass(frozen=True, slots=True)
class LaneReady(LaneEvent):
    """A process has loaded the target and takes chunks, ``seconds`` after it was started."""

    pid: int
    seconds: float

    @property
    def text(self) -> str:
        """One line for people."""
        return f"lane {self.lane} is up (pid {self.pid}, {self.seconds:.2f} s)"


@dataclass(frozen=True, slots=True)
class LaneFailedToStart(LaneEvent):
    """A process could not load the target. The pool tries again after ``retry_in`` seconds.

    ``fatal`` is set where there is no lane any more, and none has come up in several tries.
    """

    error: str
    hint: str
    retry_in: float
    fatal: PgflowError | None = None

    @property
    def text(self) -> str:
        """One line for people."""
        return f"lane {self.lane} does not start, next try in {self.retry_in:g} s: {self.error}"


@dataclass(frozen=True, slots=True)
class Outcomes(LaneEvent):
    """Items of chunk ``seq`` that ended. NOT_RUN ones are handed back: no attempt is to be charged."""

    seq: int
    outcomes: list[messages.Outcome]
    done: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Outputs of ``count`` completed items from ``position`` of their chunk on.

    ``body`` is their JSON joined by commas, without brackets: pieces that follow each other can be joined.
    """

    position: int
    count: int
    body: bytes


@dataclass(frozen=True, slots=True)
class RangeOutcomes(LaneEvent):
    """Items of RangeChunk ``seq`` that ended, each list in the order of positions.

    ``exceptions`` are those that failed. ``not_run`` are stretches (position, count) that are handed back
    without a charge. ``seconds`` is what the completed items of this report took together, ``tally`` how
    long each of them; None where nothing is known.
    """

    seq: int
    pieces: list[Piece]
    exceptions: list[messages.Outcome]
    not_run: list[tuple[int, int]]
    seconds: float
    done: bool
    tally: Tally | None = None

    @property
    def completed(self) -> int:
        """Items in the pieces."""
        return sum(piece.count for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class LaneDied(LaneEvent):
    """A process ended other than by retirement; the pool has begun to replace it.

    ``exit`` says how, e.g. ``signal 11 (SIGSEGV)``. ``verdict`` is the failure of the item it was running, in
    chunk ``seq``: to be recorded, after the owner's CrashBudget if ``cause.is_crash``. Both are None where
    nothing ran or the item is handed back; ``suspect`` names the one that ran, (chunk, position), where the
    lanes' parent died. ``trace`` is faulthandler's. The chunks it held are closed by
    the Outcomes that follow.

    A batch of several items that would be to blame together is not charged: it is among what was not run,
    the verdict is None, and ``suspects`` names it (position in chunk ``seq``, items): run its halves.
    """

    cause: Cause
    exit: str
    seq: int | None
    verdict: messages.Outcome | None
    trace: str
    suspect: tuple[int, int] | None = None
    suspects: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ExecutorLost:
    """The executor is broken for good: what it held was handed back, and it takes nothing more."""

    error: str
    hint: str


@dataclass(frozen=True, slots=True)
class ExecutorSaid:
    """Something for people to know, e.g. that an engine has no worker at the moment."""

    level: Literal["info", "warn"]
    text: str
