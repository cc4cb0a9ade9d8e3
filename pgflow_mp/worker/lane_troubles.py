"""Lanes that do not start, as the user is told of them: one line for what is the same everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pgflow_mp.executors.events import LaneFailedToStart
from pgflow_mp.observe.observer import Observer

AGAIN: Final = 60.0
"""Seconds after which the same trouble is told once more."""


class LaneTroubles:
    """Tells of lanes that do not start. Threads: the main loop's."""

    def __init__(self, observer: Observer, fail: Callable[[BaseException], None]) -> None:
        self._observer = observer
        self._fail = fail
        self._told: dict[str, float] = {}

    def heard(self, event: LaneFailedToStart) -> None:
        """Say it, unless another lane or try has done so lately, or the work ends by it, which says all."""
        now = time.monotonic()
        if event.fatal is not None:
            self._fail(event.fatal)
        is_known = now - self._told.get(event.error, -AGAIN) < AGAIN
        if not is_known:
            self._told[event.error] = now
        self._observer.on_message("debug" if is_known or event.fatal is not None else "error", event.text)
