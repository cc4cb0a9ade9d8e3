"""Asks an engine elsewhere again and again how many places it has, and notices when nobody answers.

Threads: the poller's own; what it has found is for all to read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from pgflow_mp.executors.call_engines import Say

PAUSE: Final = 1.0
PATIENCE: Final = 30.0
_QUIET: Final = 5.0


class Poller:
    """``ask`` returns (workers, places), or raises; it may hang. ``who`` is what does not answer then.

    After ``patience`` seconds without an answer it is lost.
    """

    def __init__(self, ask: Callable[[], tuple[int, int]], who: str, say: Say, patience: float) -> None:
        self.places = 0
        self.lost = False
        self._ask = ask
        self._who = who
        self._say = say
        self._patience = patience
        self._workers = -1
        self._heard = time.monotonic()
        self._silent = False
        self._over = threading.Event()

    def start(self) -> None:
        """Ask for the first time; raises what ``ask`` raises. Go on in a thread."""
        self._note(*self._ask())
        threading.Thread(target=self._run, name="pgflow_mp poller", daemon=True).start()

    def stop(self) -> None:
        """No more."""
        self._over.set()

    @property
    def silence(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._heard

    def look(self) -> str:
        """Called now and then: what is wrong for good, empty if nothing is."""
        silence = self.silence
        if self._over.is_set():
            return ""
        if silence > self._patience:
            return f"{self._who} has not answered for {silence:.0f} s"
        if silence > min(_QUIET, self._patience / 2) and not self._silent:
            self._silent = True
            self._say("warn", f"{self._who} does not answer; waiting for up to {self._patience:g} s")
        return ""

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            try:
                self._note(*self._ask())
            except Exception:  # noqa: BLE001 - whatever an engine raises; look() tells
                if self.silence > PAUSE:
                    self.places = 0

    def _note(self, workers: int, places: int) -> None:
        self._heard = time.monotonic()
        if self._silent:
            self._silent = False
            self._say("info", f"{self._who} answers again")
        if (workers, places) != (self._workers, self.places):
            if self._workers >= 0:
                text = f"{workers} workers now, {places} places in all"
                self._say("info" if places else "warn", text if places else "no workers: waiting for some")
            self._workers, self.places = workers, places
