"""What a worker tells whoever watches it: plain structs and the protocol of an observer.

Every method of an observer is called from the worker's main loop, so it must be quick; an exception
that it raises is logged once and the observer is left alone from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pgflow_mp.observe import glimpse

Level = Literal["debug", "info", "warn", "error"]


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """One step: items done so far of ``total`` (None: not known yet); ``rate`` in items/s, ``eta`` in s.

    For a worker that serves one run these are the run's numbers, whoever did the work; else they are
    this worker's own, and ``total`` is None. ``spread``: seconds by which ``eta`` may be off, going by how
    the rate varied of late; None where that cannot be told. ``running`` items are in the hands of a worker,
    ``waiting`` ones wait for their next attempt, the first of them for ``next_in`` seconds. ``p50`` and
    ``p99`` are times of items that this worker ran.
    """

    flow: str
    slug: str
    status: str
    done: int
    total: int | None
    failed: int
    rate: float
    eta: float | None
    spread: float | None = None
    running: int | None = None
    waiting: int = 0
    next_in: float | None = None
    p50: float | None = None
    p99: float | None = None

    @property
    def only_waits(self) -> bool:
        """Whether nothing of it can be done now: all that is left waits for its next attempt."""
        left = None if self.total is None else self.total - self.done
        return self.status == "started" and self.waiting > 0 and self.waiting == left


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """A lane: the item that it runs for ``seconds``, if any. ``cpu`` in CPUs, ``rss`` in bytes."""

    lane: int
    pid: int
    flow: str | None = None
    run: str | None = None
    step: str | None = None
    index: int | None = None
    attempt: int | None = None
    seconds: float | None = None
    cpu: float | None = None
    rss: int | None = None


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The state of a worker at one moment.

    ``utilisation`` is the share (0..1) of the lanes' time that handlers used since the last snapshot;
    ``queued`` counts claimed items that wait for a lane, ``unsettled`` finished ones that are not yet
    recorded; ``connection`` is "connected" or a text that says what is being waited for. ``cpu`` are CPUs
    that all its processes use, ``rss`` the bytes of all of them. Of ``other_runs`` than the one that it
    serves items are here. ``waiting`` items failed here and wait for their next attempt, the first of them
    for ``next_in`` seconds. ``paused``: it claims nothing more, for it was told so.
    """

    steps: tuple[StepSnapshot, ...]
    lanes_busy: int
    lanes: int
    utilisation: float
    queued: int
    unsettled: int
    connection: str
    elapsed: float
    lane_states: tuple[LaneSnapshot, ...] = ()
    cpu: float | None = None
    rss: int | None = None
    other_runs: int = 0
    waiting: int = 0
    next_in: float | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class RunNote:
    """A worker began to work on a run (``status`` started), or it is over (completed, failed).

    Then this worker recorded so many ``items`` and ``failed`` attempts of it, in ``seconds``; None where it
    never had any of it.
    """

    run: str
    flow: str
    status: str
    items: int = 0
    failed: int = 0
    seconds: float | None = None


@runtime_checkable
class HearsRuns(Protocol):
    """An Observer that wants to know of runs."""

    def on_run(self, note: RunNote) -> None: ...


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt of an item failed with the error ``text``; ``final``: no retry will follow.

    ``raw_input`` finds its input, raw JSON, empty where it is not known: to be asked by whoever shows it.
    """

    run: str
    step: str
    index: int
    attempt: int
    text: str
    final: bool
    raw_input: Callable[[], bytes | memoryview] = bytes
    flow: str = ""

    def shown(self, columns: int = glimpse.COLUMNS) -> str:
        """The input for a terminal, in at most so many columns; empty where it is not known."""
        text, whole = glimpse.of_raw(self.raw_input())
        return glimpse.one_line(text, columns, whole=whole) if text else ""


class Observer(Protocol):
    """Watches a worker. ``state`` is a WorkerState."""

    def on_state(self, state: str) -> None: ...

    def on_progress(self, snapshot: ProgressSnapshot) -> None: ...

    def on_message(self, level: Level, text: str) -> None: ...

    def on_failure(self, failure: FailedAttempt) -> None: ...


class Steer(Protocol):
    """What whoever watches a worker may have it do. From any thread."""

    def pause(self, paused: bool) -> None:
        """Claim nothing more, until told to go on."""


@runtime_checkable
class Steers(Protocol):
    """An Observer that wants to steer what it watches."""

    def attach(self, steer: Steer) -> None:
        """The worker that is watched; before it starts."""


class NullObserver:
    """Watches nothing."""

    def on_state(self, state: str) -> None:
        """Ignore it."""

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        """Ignore it."""

    def on_message(self, level: Level, text: str) -> None:
        """Ignore it."""

    def on_failure(self, failure: FailedAttempt) -> None:
        """Ignore it."""
