"""Whether others work on the maps that this worker works on."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from pgflow_mp.db.item_ranges import ItemLease

LASTING: Final = 10.0  # seconds that what was seen is taken to hold
_MOST: Final = 256  # maps that are kept in mind


class Sharing:
    """Tells by its leases: items that were passed over are somebody else's, since maps are leased in order.

    Threads: the claimer notes, the settler asks; what they share is touched with ``_lock`` held.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[tuple[str, str], int] = {}
        self._until: dict[str, float] = {}

    def note(self, leases: Sequence[ItemLease]) -> None:
        """What a claim got."""
        now = time.monotonic()
        with self._lock:
            for lease in sorted(leases, key=lambda lease: lease.first_index):
                end = self._ends.pop((lease.run_id, lease.step_slug), 0)
                if lease.first_index > end:
                    self._until[lease.run_id] = now + LASTING
                self._ends[lease.run_id, lease.step_slug] = max(end, lease.first_index + lease.items)
            while len(self._ends) > _MOST:
                del self._ends[next(iter(self._ends))]
            self._until = {run: until for run, until in self._until.items() if until > now}

    def is_shared(self, run_id: str) -> bool:
        """Whether others leased from the run's maps of late."""
        with self._lock:
            return self._until.get(run_id, 0.0) > time.monotonic()

    def is_any_shared(self) -> bool:
        """Whether others leased of late from any map that this worker leased from."""
        now = time.monotonic()
        with self._lock:
            return any(until > now for until in self._until.values())
