"""What observers see of a worker: snapshots, twice a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Final

from pgflow_mp.db.engine import StepProgress
from pgflow_mp.executors.protocol import Executor
from pgflow_mp.executors.vitals import Usage, Vitals
from pgflow_mp.observe.observer import LaneSnapshot, ProgressSnapshot, StepSnapshot
from pgflow_mp.worker import lane_states
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.inbox import OpenItems
from pgflow_mp.worker.lane_states import LaneLook, Utilisation
from pgflow_mp.worker.settle import Settler
from pgflow_mp.worker.stats import Stats
from pgflow_mp.worker.work_record import WorkRecord

_INTERVAL: Final = 0.5
_VITALS_EVERY: Final = 2.0
_RATE_MEMORY: Final = 5.0  # seconds over which rates are averaged
_SLICE: Final = 5.0  # seconds of which a rate is compared with others
_SLICES: Final = 12
_LEAST_SLICES: Final = 3


class Pace:
    """How fast a count grows, and how evenly it did in the last minute."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._first = 0.0
        self._grew = 0.0
        self._last: tuple[float, int] | None = None
        self._slice: tuple[float, int] | None = None
        self._rates: deque[float] = deque(maxlen=_SLICES)

    def update(self, now: float, done: int) -> None:
        """So many are done."""
        if self._last is None:
            self._first = now
        elif now > self._last[0]:
            seconds = now - self._last[0]
            weight = seconds / max(seconds, min(_RATE_MEMORY, now - self._first))  # at first of all of it
            self.rate = max(0.0, self.rate + weight * ((done - self._last[1]) / seconds - self.rate))
        if self._last is None or done > self._last[1]:
            self._grew = now
        self._last = (now, done)
        if self._slice is None:
            self._slice = (now, done)
        elif now - self._slice[0] >= _SLICE:
            self._rates.append(max(0, done - self._slice[1]) / (now - self._slice[0]))
            self._slice = (now, done)

    def stands_still(self, now: float) -> bool:
        """Whether it has not grown for a while."""
        return now - self._grew > 2 * _RATE_MEMORY

    def left(self, items: int) -> tuple[float | None, float | None]:
        """Seconds that so many more take, and by how many that may be off; None where nobody can tell."""
        if self.rate <= 0:
            return None, None
        eta = items / self.rate
        if len(self._rates) < _LEAST_SLICES or not (mean := fmean(self._rates)):
            return eta, None
        return eta, eta * min(1.0, pstdev(self._rates) / mean)


class Progress:
    """Makes snapshots every half second. Threads: the main loop's.

    ``flow`` is that of the run which is served. ``paused``: the worker claims nothing.
    """

    def __init__(
        self,
        executor: Executor,
        dispatcher: Dispatcher,
        settler: Settler,
        stats: Stats,
        record: WorkRecord,
    ) -> None:
        self._executor = executor
        self._dispatcher = dispatcher
        self._settler = settler
        self._stats = stats
        self._record = record
        self._started = self._last = time.monotonic()
        self._used = Utilisation(self._started)
        self._paces: dict[tuple[str, str], Pace] = {}
        self._seen: dict[str, StepProgress] = {}
        self._open: Mapping[str, OpenItems] = {}
        self._vitals = Vitals()
        self._usage: Usage | None = None
        self._vitals_due = 0.0
        self.flow = ""
        self.run: str | None = None

    def due(self, now: float) -> bool:
        """Whether it is time for another one."""
        return now - self._last >= _INTERVAL

    def seen(self, steps: Sequence[StepProgress], open_items: Mapping[str, OpenItems]) -> None:
        """The counters of the served run."""
        self._seen, self._open = {step.step_slug: step for step in steps}, open_items

    def snapshot(
        self,
        now: float,
        counts: Mapping[tuple[str, str], Sequence[int]],
        *,
        connection: str,
        retries: tuple[int, float | None] = (0, None),
        paused: bool = False,
    ) -> ProgressSnapshot:
        """The state now; ``counts`` as of the Collector, ``retries`` as of Retries."""
        if now >= self._vitals_due:
            self._usage = self._vitals.look()
            self._vitals_due = now + _VITALS_EVERY
        flights = list(self._dispatcher.flights.values())
        steps = self._run_steps(now) if self._seen else self._own_steps(now, counts)
        if self._seen and retries[0] and not (flights or self._dispatcher.waiting() or self._settler.busy):
            steps = _all_waits(steps, *retries)
        self._last, usage, capacity = now, self._usage, self._executor.capacity
        return ProgressSnapshot(
            tuple(map(self._timed, steps)),
            len({flight.lane for flight in flights}),
            capacity,
            self._used.look(now, self._stats.busy, flights, capacity),
            self._dispatcher.waiting(),
            self._settler.unsettled,
            connection,
            now - self._started,
            tuple(_lane(look, usage, now) for look in lane_states.look(self._executor, flights)),
            None if usage is None else usage.cpu,
            None if usage is None else usage.total_rss,
            len(self._dispatcher.held_runs() - {self.run}),
            *retries,
            paused,
        )

    def _run_steps(self, now: float) -> list[StepSnapshot]:
        found: list[StepSnapshot] = []
        for slug, step in self._seen.items():
            total, remaining = step.initial_tasks, step.remaining_tasks
            done = 0 if total is None or remaining is None else total - remaining
            if step.status == "completed" and total is not None:
                done = total
            known = self._open.get(slug)
            failed = max(step.failed_tasks, known.failed if known is not None else 0)
            known = known if step.status == "started" else None
            pace = self._paces.setdefault((self.flow, slug), Pace())
            pace.update(now, done)
            snapshot = StepSnapshot(self.flow, slug, step.status, done, total, failed, pace.rate, None)
            if step.status == "started":
                eta, spread = pace.left(total - done) if total is not None else (None, None)
                snapshot = replace(snapshot, eta=eta, spread=spread, running=known.running if known else 0)
            if known is not None and known.waiting:
                next_in = None if known.due is None else max(0.0, known.due - now)
                snapshot = replace(snapshot, waiting=known.waiting, next_in=next_in)
                if snapshot.only_waits or (snapshot.eta or 0.0) < (next_in or 0.0):
                    snapshot = replace(snapshot, eta=None, spread=None)
            found.append(snapshot)
        return found

    def _own_steps(self, now: float, counts: Mapping[tuple[str, str], Sequence[int]]) -> list[StepSnapshot]:
        found: list[StepSnapshot] = []
        flights = self._dispatcher.flights.values()
        running = {(flight.batch.flow, step) for flight in flights for step in flight.chunk.steps}
        for (flow, slug), (done, failed) in counts.items():
            pace = self._paces.setdefault((flow, slug), Pace())
            pace.update(now, done)
            idle = pace.stands_still(now) and (flow, slug) not in running
            found.append(
                StepSnapshot(flow, slug, "started", done, None, failed, 0.0 if idle else pace.rate, None)
            )
        return found

    def _timed(self, step: StepSnapshot) -> StepSnapshot:
        p50, p99 = self._record.quantiles(step.flow, step.slug)
        return step if p50 is None else replace(step, p50=p50, p99=p99)


def _all_waits(steps: list[StepSnapshot], items: int, next_in: float | None) -> list[StepSnapshot]:
    """Nothing is worked on here: where all that is left is what failed here, it waits for that."""
    open_steps = [step for step in steps if step.status == "started" and step.total != step.done]
    if (
        len(open_steps) != 1
        or open_steps[0].total is None
        or open_steps[0].total - open_steps[0].done != items
    ):
        return steps
    waiting = replace(open_steps[0], waiting=items, next_in=next_in, running=0, eta=None, spread=None)
    return [waiting if step is open_steps[0] else step for step in steps]


def _lane(look: LaneLook, usage: Usage | None, now: float) -> LaneSnapshot:
    return LaneSnapshot(
        look.lane,
        look.pid,
        look.flow,
        look.run,
        look.step,
        look.index,
        look.attempt,
        None if look.since is None else max(0.0, now - look.since),
        None if usage is None else usage.cpus.get(look.pid),
        None if usage is None else usage.rss.get(look.pid),
    )
