"""What a worker tells whoever watches it: plain structs and the protocol of an observer.

Every method of an observer is called from the worker's main loop, so it must be quick; an exception
that it raises is logged once and the observer is left alone from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from pgflow_mp.observe import glimpse

Level = Literal["debug", "info", "warn", "error"]


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """One step: items done so far of ``total`` (None: not known yet); ``rate`` in items/s, ``eta`` in s.

    For a worker that serves one run these are the run's numbers, whoever did the work; else they are
    this worker's own, and ``total`` is None.
    """

    flow: str
    slug: str
    status: str
    done: int
    total: int | None
    failed: int
    rate: float
    eta: float | None


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The state of a worker at one moment.

    ``utilisation`` is the share (0..1) of the lanes' time that handlers used since the last snapshot;
    ``queued`` counts claimed items that wait for a lane, ``unsettled`` finished ones that are not yet
    recorded; ``connection`` is "connected" or a text that says what is being waited for.
    """

    steps: tuple[StepSnapshot, ...]
    lanes_busy: int
    lanes: int
    utilisation: float
    queued: int
    unsettled: int
    connection: str
    elapsed: float


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
