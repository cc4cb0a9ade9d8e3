"""What observers are told, whatever they do with it; messages about the connection are said once."""

from __future__ import annotations

import contextlib
import time

from pgflow_mp.observe.observer import (
    FailedAttempt,
    HearsRuns,
    Level,
    NullObserver,
    Observer,
    ProgressSnapshot,
    RunNote,
    Steer,
    Steers,
)


class SafeObserver:
    """An observer whose errors are reported once to nobody but itself, and then end the watching."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer: Observer = observer or NullObserver()
        self.watching = observer is not None

    def on_state(self, state: str) -> None:
        """Pass on."""
        self._call("on_state", state)

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        """Pass on."""
        self._call("on_progress", snapshot)

    def on_message(self, level: Level, text: str) -> None:
        """Pass on."""
        self._call("on_message", level, text)

    def on_failure(self, failure: FailedAttempt) -> None:
        """Pass on."""
        self._call("on_failure", failure)

    def on_run(self, note: RunNote) -> None:
        """Pass on, if it is wanted."""
        if isinstance(self._observer, HearsRuns):
            self._call("on_run", note)

    def attach(self, steer: Steer) -> None:
        """Pass on, if it is wanted."""
        if isinstance(self._observer, Steers):
            self._call("attach", steer)

    def _call(self, method: str, *arguments: object) -> None:
        observer = self._observer
        try:
            getattr(observer, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - a broken display must not stop the work
            self._observer, self.watching = NullObserver(), False
            if method != "on_message":
                with contextlib.suppress(Exception):
                    observer.on_message("error", f"the progress display failed: {error!r}")


class ConnectionReport:
    """Who of the worker's threads has no connection, said when it begins and when it ends."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lost: dict[str, str] = {}
        self._since = 0.0
        self._said = False

    def heard(self, who: str, text: str) -> None:
        """A thread lost its connection (``text``), or has one (no text)."""
        if text:
            if not self._lost:
                self._since, self._said = time.monotonic(), False
            self._lost[who] = text
        elif self._lost.pop(who, None) is not None and not self._lost and self._said:
            away = time.monotonic() - self._since
            self._observer.on_message("info", f"connected to the database again after {away:.1f} s")

    def tick(self, now: float) -> None:
        """Say that the database is away, once it is for more than a moment."""
        if self._lost and not self._said and now - self._since > 0.5:
            self._said = True
            text = next(iter(self._lost.values()))
            self._observer.on_message("warn", f"waiting for the database: {text}")

    @property
    def text(self) -> str:
        """``connected``, or what is being waited for."""
        return f"waiting for the database: {next(iter(self._lost.values()))}" if self._lost else "connected"
