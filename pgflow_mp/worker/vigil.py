"""Who is dead: those whose last sign of life has not moved on for as long as they promised, while we looked.

Going by what was seen here, instead of by how old a sign of life is, is what an outage cannot deceive: after
one everybody's last sign is old, and who is back first would declare all others dead, with everything that
they had finished meanwhile. Nor can a clock that is set, or that this process was asleep. Pure: no clock, no
thread, no database.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from pgflow_mp.db.recovery import WatchedWorker

RETURN: Final = 3.0  # seconds within which all who lost their connection with us have theirs again
_ASLEEP: Final = 2.0  # seconds: a look that comes later than that was ours to miss, we were asleep


class Vigil:
    """Watches signs of life. Times are time.monotonic()."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._least = 0.0
        self._due = 0.0
        self.first_death = math.inf
        """When the first of those that stood still at the last look is over, if it goes on so."""

    def begin(self, now: float, *, again: bool) -> None:
        """We are connected, ``again``: who was silent meanwhile may have been cut off as we were."""
        self._seen.clear()
        self.first_death = math.inf
        self._least = RETURN if again else 0.0
        self._due = now

    def next_look(self, due: float) -> None:
        """When we mean to look again."""
        self._due = due

    def look(
        self, workers: Sequence[WatchedWorker], ours: Collection[str], now: float
    ) -> list[WatchedWorker]:
        """Those of ``workers``, all that there are, that are over; never one of ``ours``."""
        seen, over, late = dict[str, tuple[datetime, float]](), [], now - self._due
        self.first_death = math.inf
        for worker in workers:
            if worker.worker_id in ours:
                continue
            last, since = self._seen.get(worker.worker_id, (None, now))
            if last != worker.last_heartbeat or late > max(_ASLEEP, worker.dead_after / 2):
                since = now
            seen[worker.worker_id] = worker.last_heartbeat, since
            death = since + max(worker.dead_after, self._least)
            if worker.stopped or (death <= now and since < now):
                over.append(worker)
            elif since < now:
                self.first_death = min(self.first_death, death)
        self._seen = seen
        return over
