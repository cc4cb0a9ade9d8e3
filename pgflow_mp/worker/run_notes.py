"""Says when this worker begins to work on a run, and when that ends: one line each in its log."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pgflow_mp.observe.observer import RunNote
from pgflow_mp.worker.inbox import RunsSeen
from pgflow_mp.worker.progress import SafeObserver

_QUIET: Final = 5.0  # seconds
_MOST_ASKED: Final = 100
_MOST: Final = 10_000
"""Runs that are remembered; of earlier ones the end is told without what was done here."""


@dataclass(slots=True)
class _Known:
    flow: str
    since: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    items: int = 0
    failed: int = 0


class RunNotes:
    """Tells the observer. Threads: the main loop's.

    Of runs of which nothing has been here for a while ``ask`` asks how they are: others may have ended them.
    """

    def __init__(self, observer: SafeObserver, ask: Callable[[Sequence[str]], None]) -> None:
        self._observer = observer
        self._ask = ask
        self._asked = 0.0
        self._known: dict[str, _Known] = {}
        self._ended: dict[str, None] = {}
        self._over: dict[str, tuple[str, str]] = {}

    def claimed(self, flow: str, runs: Iterable[str]) -> None:
        """Items of these runs are here."""
        for run in runs:
            if run not in self._known:
                if len(self._known) >= _MOST:
                    del self._known[next(iter(self._known))]
                self._known[run] = _Known(flow)
                self._ended.pop(run, None)
                self._observer.on_run(RunNote(run, flow, "started"))
            else:
                self._known[run].last = time.monotonic()

    def tick(self, now: float) -> None:
        """Ask, if it is time to."""
        if self._known and now - self._asked >= _QUIET:
            self._asked = now
            quiet = (run for run, known in self._known.items() if now - known.last >= _QUIET)
            if asked := list(itertools.islice(quiet, _MOST_ASKED)):
                self._ask(asked)

    def seen(self, event: RunsSeen) -> None:
        """How runs are that were asked about."""
        for run in event.asked:
            known, status = self._known.get(run), event.found.get(run, "removed")
            if known is not None and status != "started":
                self.ended(run, known.flow, status)
            elif known is not None:
                known.last = time.monotonic()

    def settled(self, run: str, items: int, failures: bool) -> None:
        """So many items are recorded, as failures of attempts or as results."""
        if (known := self._known.get(run)) is not None:
            known.last = time.monotonic()
            if failures:
                known.failed += items
            else:
                known.items += items

    def seen_over(self, run: str, flow: str, status: str) -> None:
        """It is over, as somebody saw; what was recorded here is perhaps not all told yet."""
        self._over[run] = (flow, status)

    def finish(self) -> None:
        """Nothing more is told."""
        for run, (flow, status) in self._over.items():
            self.ended(run, flow, status)
        self._over.clear()

    def ended(self, run: str, flow: str | None, status: str) -> None:
        """It is over, which may be told several times."""
        known = self._known.pop(run, None)
        if known is None and (run in self._ended or flow is None):
            return
        if len(self._ended) >= _MOST:
            del self._ended[next(iter(self._ended))]
        self._ended[run] = None
        if known is None:
            self._observer.on_run(RunNote(run, flow or "", status))
            return
        seconds = time.monotonic() - known.since
        self._observer.on_run(RunNote(run, known.flow, status, known.items, known.failed, seconds))
