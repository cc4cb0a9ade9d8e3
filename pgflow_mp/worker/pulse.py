"""Whether the worker's other threads come round: the heartbeat must not keep one alive that stands still.

What a worker holds of maps in ranges is its own for as long as it gives signs of life; so it gives none while
it cannot work. Pure: no clock, no thread, no database.
"""

from __future__ import annotations

from collections.abc import Sequence


class Pulse:
    """Counts a thread's rounds. ``idle``: it waits for something to do, and is asked nothing.

    ``patience``: how many times as long as usual the present round may take.
    Threads: beat() and rest() are its owner's; the rest is for whoever watches.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self.rounds = 0
        self.idle = True
        self.patience = 1.0

    def beat(self, patience: float = 1.0) -> None:
        """Another round begins."""
        self.rounds += 1
        self.patience = patience
        self.idle = False

    def rest(self) -> None:
        """There is nothing to do."""
        self.idle = True


class PulseWatch:
    """Watches pulses for the heartbeat. Times are time.monotonic().

    Goes by what was seen at its own looks: while this process was stopped, nobody looked.
    """

    def __init__(self, pulses: Sequence[Pulse], limit: float) -> None:
        self._limit = limit
        self._pulses = pulses
        self._rounds = [-1] * len(pulses)
        self._still = [0.0] * len(pulses)  # seconds that they were seen to stand still
        self._looked = 0.0

    def look(self, now: float) -> str | None:
        """Who has not come round for ``limit`` seconds, if anybody."""
        since = min(now - self._looked, self._limit / 2)  # after a longer pause it was us who did not look
        self._looked = now
        found: str | None = None
        for i, pulse in enumerate(self._pulses):
            came_round = pulse.idle or pulse.rounds != self._rounds[i]
            self._rounds[i] = pulse.rounds
            self._still[i] = 0.0 if came_round else self._still[i] + since
            if self._still[i] >= self._limit * pulse.patience:
                found = found or pulse.who
        return found
