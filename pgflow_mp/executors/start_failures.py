"""How long to wait after an on_start function has failed, and when to give up."""

from __future__ import annotations

from typing import Final

ROUNDS: Final = 3
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
HINT: Final = "No item was charged: once that is mended, the run goes on where it was."


class StartFailures:
    """Counts by flow. Processes that fail side by side are one round: the next one is of those begun later.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._rounds: dict[str, tuple[int, float]] = {}

    def failed(self, flow: str, began: float, now: float) -> float:
        """One that began then (time.monotonic) has failed: seconds until the next one should be tried."""
        rounds, last = self._rounds.get(flow, (0, float("-inf")))
        if began >= last:
            rounds, last = rounds + 1, now
            self._rounds[flow] = (rounds, last)
        return min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** (rounds - 1))

    def started(self, flow: str) -> None:
        """It works."""
        self._rounds.pop(flow, None)

    def hopeless(self, flow: str) -> bool:
        """Whether it has failed for some rounds, and has worked nowhere meanwhile."""
        return self._rounds.get(flow, (0, 0.0))[0] >= ROUNDS
