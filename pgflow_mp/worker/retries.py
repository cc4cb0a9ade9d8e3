"""Tasks that failed here and are tried again: when they are back. Pure: no clock, no thread, no database."""

from __future__ import annotations

import heapq
from typing import Final

_MARGIN: Final = 0.1  # seconds from a task's failure here to its record in the database
_SLACK: Final = 3.0  # seconds after its backoff within which a retried item is seen again


class Retries:
    """When retried tasks are visible again, by flow. Times are time.monotonic()."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []

    def add(self, flow: str, base_delay: int, attempt: int, now: float) -> None:
        """A task failed and will be tried again."""
        back = now + base_delay * 2.0 ** min(attempt, 20)
        self._until[flow] = max(self._until.get(flow, 0.0), back + _SLACK)
        heapq.heappush(self._due, (back + _MARGIN, flow))

    def __bool__(self) -> bool:
        """Whether a task is still in its backoff."""
        return bool(self._due)

    def due(self, now: float) -> set[str]:
        """Flows of which a task is visible again since the last call."""
        due: set[str] = set()
        while self._due and self._due[0][0] <= now:
            due.add(heapq.heappop(self._due)[1])
        return due

    def waiting(self, now: float) -> tuple[int, float | None]:
        """How many are in their backoff, and in how many seconds the first of them is back."""
        return len(self._due), max(0.0, self._due[0][0] - now) if self._due else None

    def over(self, flow: str, now: float) -> bool:
        """Whether no retry of this flow is to be waited for."""
        return now >= self._until.get(flow, 0.0)
