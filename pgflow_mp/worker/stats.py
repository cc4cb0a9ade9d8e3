"""What a worker counts, and what it reports at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(slots=True)
class Stats:
    """Counters of one worker since its start.

    ``done`` and ``failed`` (for good) count recorded items, ``retried`` failures that the database will
    hand out again, ``late`` results that came when the task was no longer ours and were discarded,
    ``crashed`` ends of lane processes that were charged to an item, ``handed_back`` items that were
    returned uncharged. ``busy`` is the time in seconds that handlers ran.
    """

    claimed: int = 0
    claims: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    late: int = 0
    crashed: int = 0
    handed_back: int = 0
    settled: int = 0
    batches: int = 0
    replayed: int = 0
    busy: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Ending(StrEnum):
    """Why a worker stopped."""

    RUN_ENDED = "run ended"
    CONDITION = "condition met"
    IDLE = "idle"
    DEPRECATED = "deprecated"
    REQUESTED = "stop requested"
    FORCED = "stopped at once"


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How a worker's life went.

    ``run_status`` is that of the run it served, if it served one. ``released`` items were handed back
    at the stop. ``unsettled`` finished items could not be recorded before the end: they will run again.
    """

    ending: Ending
    stats: Stats
    wall: float
    lanes: int
    run_status: str | None
    released: int
    unsettled: int

    def __str__(self) -> str:
        stats = self.stats
        counts = {
            "retried": stats.retried,
            "failed": stats.failed,
            "late": stats.late,
            "crashed": stats.crashed,
            "handed back": self.released,
            "not recorded": self.unsettled,
        }
        rest = "".join(f", {count} {name}" for name, count in counts.items() if count)
        return f"{self.ending}: {stats.done} items done in {self.wall:.1f} s{rest}"

    @property
    def utilisation(self) -> float:
        """The share of the lanes' time in which handlers ran, 0..1."""
        capacity = self.wall * self.lanes
        return min(1.0, self.stats.busy / capacity) if capacity > 0 else 0.0

    @property
    def rate(self) -> float:
        """Recorded items per second."""
        return self.stats.done / self.wall if self.wall > 0 else 0.0
