"""What the worker asks of whatever runs its items.

An executor has *lanes*: places that run one chunk at a time, be it a process, a thread, or a slot of an
engine elsewhere. The worker calls it from one thread only, and is told what happens by ``on_event``, from any
thread and in order per lane (``events``): every item of a chunk that was taken is reported exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from pgflow_mp.executors.events import ExecutorLost, ExecutorSaid, LaneEvent
from pgflow_mp.executors.messages import LOAD_TIMEOUT, AnyChunk, FlowInfo, Setup

OnEvent = Callable[[LaneEvent | ExecutorLost | ExecutorSaid], None]
"""Told what happens; quick, and does not call back."""

IN_FLIGHT: Final = 2
"""Chunks that a lane holds at most: one running, one waiting."""

_WITHOUT: Final = {
    "kill": "a step's timeout is not enforced, and cancelling waits for what runs",
    "blame": "an item that crashes its process is found by running its chunk again in halves",
    "early": "results are recorded when a whole chunk has ended",
    "relieve": "what waits behind a long item waits for it",
    "cap_memory": "--max-memory-per-worker has no effect",
}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an executor can do besides running chunks.

    ``kill``: end one running item (time limits, cancelling). ``blame``: name the item that took its process
    down. ``early``: report items of a chunk that still runs. ``relieve``: take back what waits behind a long
    item. ``cap_memory``: end what uses more memory than it may. ``instead``: other words for what
    follows from one that is missing, where the usual ones are not true.
    """

    kill: bool = False
    blame: bool = False
    early: bool = False
    relieve: bool = False
    cap_memory: bool = False
    instead: tuple[tuple[str, str], ...] = ()

    def missing(self) -> list[str]:
        """What follows for the user from each thing that it cannot do, in words."""
        words = {**_WITHOUT, **dict(self.instead)}
        return [words[name] for name in _WITHOUT if not getattr(self, name)]


ALL_ABILITIES: Final = Abilities(True, True, True, True, True)


class Executor(Protocol):
    """Runs chunks of items. Made by an ExecutorFactory, started once, stopped once."""

    @property
    def name(self) -> str:
        """How messages name it, e.g. ``lanes``."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def capacity(self) -> int:
        """Lanes it has now or will have soon; may change."""

    @property
    def paused(self) -> bool:
        """Whether it wants no more work claimed for now, e.g. for lack of memory."""

    @property
    def in_flight(self) -> int:
        """Chunks that it has taken and not closed."""

    def start(self) -> list[FlowInfo]:
        """Get ready; the flows that it can run. Raises PgflowError, stopped again, if it cannot."""

    def rooms(self) -> list[tuple[int, int]]:
        """(lane, chunks it would take now) of all lanes that would take one.

        A lane holds two, one that runs and one that waits, so that it never idles over a round trip: an idle
        one has room for 2.
        """

    def submit(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None]) -> bool:
        """Hand over a chunk; ``timeouts``: seconds per entry of ``chunk.steps``, None for no limit.

        False if the lane cannot take it: nothing is reported for it. ``chunk.seq`` is unique among the chunks
        in flight.
        """

    def tick(self, now: float) -> None:
        """Look after everything; called about ten times a second with time.monotonic()."""

    def relieve(self, after: float) -> bool:
        """Hand back what waits behind items that run for ``after`` seconds; True: ask again soon."""

    def cancel(self, unwanted: Callable[[int, int], bool]) -> None:
        """End what runs and is ``unwanted(chunk.seq, position)``; it is reported as not run."""

    def expect_stop(self) -> None:
        """Charge no item whose process is told to leave from here on. From any thread or signal handler."""

    def quiesce(self) -> None:
        """Take no more chunks, have what has not begun handed back, let handlers see ctx.shutdown."""

    def stop(self, grace: float) -> bool:
        """Wait up to ``grace`` seconds for what runs, end the rest; True if nothing had to be ended.

        Everything is reported when it returns, and nothing after it. May be called twice.
        """

    def abort(self) -> None:
        """``stop`` without waiting."""


@dataclass(frozen=True, slots=True)
class LaneNow:
    """A lane that is up: its process, and the item that runs there, at ``position`` of chunk ``seq``.

    ``since`` is time.monotonic(). All three are None where none runs.
    """

    lane: int
    pid: int
    seq: int | None = None
    position: int | None = None
    since: float | None = None


@runtime_checkable
class TellsLanes(Protocol):
    """An Executor may do this, too; of one that does not, what lanes do is what they were given."""

    def lanes_now(self) -> Sequence[LaneNow]:
        """What the lanes do; quick. Called from the thread that calls everything else."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an executor is to keep to: ``lanes`` at once, ``max_memory`` bytes for each (None: no limit).

    Lanes load the target within ``load_timeout`` seconds, each for itself but for what ``preload`` names.
    """

    lanes: int
    max_memory: int | None = None
    preload: tuple[str, ...] = ()
    load_timeout: float = LOAD_TIMEOUT


ExecutorFactory = Callable[[Setup, Limits, OnEvent], Executor]
"""Makes an executor that runs what ``Setup`` names and reports to ``OnEvent``."""
