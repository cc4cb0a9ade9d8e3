"""What this worker tells the database of its work: how long items took, what lanes did, how it is now.

Nothing of the work depends on it. An *attempt* is timed when it ends in a lane and this worker learns of it,
whether its result is recorded or not: an item that is retried counts as often, not one whose worker died.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pgflow_mp.executors.tallies import Tally
from pgflow_mp.time_buckets import BUCKETS, quantile
from pgflow_mp.worker.batches import Flight
from pgflow_mp.worker.lane_states import WorkerNow
from pgflow_mp.worker.spans import LaneSpans, LaneStretch

EVERY: Final = 2.0
"""Seconds between two reports, if there is anything to tell."""
STATE_EVERY: Final = 5.0
"""Seconds between two reports of how things are, whatever there is to tell."""
_SOON: Final = 0.2  # seconds after the last report, once a run is over
SLOWEST: Final = 10
"""Items of a step that are named."""
_MOST_STEPS: Final = 5000  # of runs, whose times wait to be told; then the earliest go


@dataclass(slots=True)
class StepTimes:
    """Attempts of items of a step since ``since`` (time.monotonic); ``slowest``: heap of (seconds, index)."""

    run: str
    step: str
    since: float
    failed: int = 0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    slowest: list[tuple[float, int]] = field(default_factory=list)
    flow: str = ""

    def named(self, seconds: float, index: int) -> None:
        """It took so long."""
        if len(self.slowest) < SLOWEST:
            heapq.heappush(self.slowest, (seconds, index))
        elif seconds > self.slowest[0][0]:
            heapq.heapreplace(self.slowest, (seconds, index))


@dataclass(frozen=True, slots=True)
class WorkReport:
    """What is told at once; ``number`` counts from 1, and the database takes each once.

    ``ended``: runs that what we recorded brought to their end.
    """

    number: int
    state: WorkerNow | None
    times: list[StepTimes]
    spans: list[LaneStretch]
    ended: tuple[str, ...] = ()


class WorkRecord:
    """Adds up. Threads: the main loop's; a WorkReport is changed by nobody.

    ``process_id`` names this worker as a whole, whatever ids it claims with.
    """

    def __init__(self, lanes: int, now: float) -> None:
        self.process_id = str(uuid.uuid4())
        self.spans = LaneSpans(lanes)
        self._times: dict[tuple[str, str], StepTimes] = {}
        self._totals: dict[tuple[str, str], list[int]] = {}
        self._number = 0
        self._told = self._state_told = now - STATE_EVERY
        self._tells_busy = False
        self._hurried = False
        self._ended: list[str] = []

    # -- what happens ------------------------------------------------------------------------------

    def completed(
        self, flight: Flight, run: str, step: str, times: Sequence[float], indexes: Sequence[int], now: float
    ) -> None:
        """Items completed, each in its time."""
        of, seconds = self._of(flight, run, step, now), sum(times)
        of.seconds += seconds
        of.tally.add_each(times)
        if len(of.slowest) < SLOWEST or max(times) > of.slowest[0][0]:
            for spent, index in heapq.nlargest(SLOWEST, zip(times, indexes, strict=True)):
                of.named(spent, index)
        self.spans.ran(flight, run, step, indexes[0], len(times), 0, seconds)

    def tallied(
        self, flight: Flight, run: str, step: str, first: int, items: int, s: float, now: float
    ) -> None:
        """So many items of a range completed, in ``s`` seconds together; chunk_tally() has their times."""
        self._of(flight, run, step, now).seconds += s
        self.spans.ran(flight, run, step, first, items, 0, s)

    def chunk_tally(self, flight: Flight, run: str, step: str, first: int, tally: Tally, now: float) -> None:
        """How long items of a chunk took, whose first one has the index ``first``."""
        of = self._of(flight, run, step, now)
        for bucket, count in tally.counts.items():
            of.tally.counts[bucket] = of.tally.counts.get(bucket, 0) + count
        known = {index for _, index in of.slowest}
        for spent, position in tally.slowest:
            if first + position not in known:
                of.named(spent, first + position)

    def failed(self, flight: Flight, run: str, step: str, index: int, seconds: float, now: float) -> None:
        """An attempt failed."""
        of = self._of(flight, run, step, now)
        of.failed += 1
        of.seconds += seconds
        of.tally.add(seconds)
        of.named(seconds, index)
        self.spans.ran(flight, run, step, index, 1, 1, seconds)

    def _of(self, flight: Flight, run: str, step: str, now: float) -> StepTimes:
        times = self._times.get((run, step))
        if times is None:
            if len(self._times) >= _MOST_STEPS:
                del self._times[next(iter(self._times))]
            times = self._times[run, step] = StepTimes(run, step, now, flow=flight.batch.flow)
        return times

    def quantiles(self, flow: str, step: str) -> tuple[float | None, float | None]:
        """The times of half of a step's items, and of 99 in 100, as far as they were told."""
        counts = self._totals.get((flow, step), ())
        return quantile(counts, 0.5), quantile(counts, 0.99)

    # -- what is told ------------------------------------------------------------------------------

    def hurry(self, ended: str | None = None) -> None:
        """A run is over, by what we recorded if it is named: who looks at it now wants to see all of it."""
        self._hurried = True
        if ended is not None:
            self._ended.append(ended)

    def due(self, now: float, *, idle: bool = False) -> bool:
        """Whether there is something to be told now; ``idle``: no lane has anything."""
        if self.wants_state(now, idle=idle):
            return True
        waits = now - self._told >= (_SOON if self._hurried else EVERY)
        return waits and bool(self._times or self.spans or self._ended)

    def wants_state(self, now: float, *, idle: bool = False) -> bool:
        """Whether the next report is to tell how things are: also soon after lanes that were told to run."""
        if idle and self._tells_busy and now - self._told >= _SOON:
            return True
        return now - self._state_told >= STATE_EVERY

    def take(self, now: float, state: WorkerNow | None, *, everything: bool = False) -> WorkReport:
        """What is to be told now; ``everything``: also what might still grow."""
        self._number += 1
        self._told = now
        if state is not None:
            self._state_told = now
            self._tells_busy = state.busy > 0
        times, self._times = list(self._times.values()), {}
        for each in times:
            total = self._totals.setdefault((each.flow, each.step), [0] * BUCKETS)
            for bucket, count in each.tally.counts.items():
                total[bucket] += count
        spans = self.spans.take(now, everything=everything or self._hurried)
        self._hurried = False
        ended, self._ended = tuple(self._ended), []
        return WorkReport(self._number, state, times, spans, ended)
