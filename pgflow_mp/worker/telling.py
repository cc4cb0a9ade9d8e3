"""When the database is told what this worker does: every few seconds, when a run is over, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pgflow_mp.executors.protocol import Executor
from pgflow_mp.worker import lane_states
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.lane_states import Utilisation, WorkerNow
from pgflow_mp.worker.settle import Settler
from pgflow_mp.worker.stats import Stats
from pgflow_mp.worker.work_record import WorkRecord, WorkReport


class Teller(Protocol):
    """Who passes it on."""

    def is_behind(self) -> bool: ...

    def tell(self, report: WorkReport) -> None: ...


class Telling:
    """Asks for reports when they are due. Threads: the main loop's."""

    def __init__(
        self,
        record: WorkRecord,
        teller: Teller,
        executor: Executor,
        dispatcher: Dispatcher,
        settler: Settler,
        stats: Stats,
    ) -> None:
        self.record = record
        self._teller = teller
        self._executor = executor
        self._dispatcher = dispatcher
        self._settler = settler
        self._stats = stats
        self._used = Utilisation(stats.started)
        self.also: Callable[[WorkReport], None] | None = None
        """Who else is told, quickly and without fail."""

    def tick(self, now: float) -> None:
        """Tell what there is to tell, if it is time to."""
        idle = not self._dispatcher.flights
        if self.record.due(now, idle=idle) and not self._teller.is_behind():
            state = self._now(now) if self.record.wants_state(now, idle=idle) else None
            self._tell(self.record.take(now, state))

    def finish(self, now: float) -> None:
        """The worker stops: tell the rest."""
        self._tell(self.record.take(now, self._now(now), everything=True))

    def _tell(self, report: WorkReport) -> None:
        self._teller.tell(report)
        if self.also is not None:
            self.also(report)

    def _now(self, now: float) -> WorkerNow:
        flights = list(self._dispatcher.flights.values())
        capacity = self._executor.capacity
        return WorkerNow(
            capacity,
            len({flight.lane for flight in flights}),
            self._used.look(now, self._stats.busy, flights, capacity),
            self._dispatcher.held_items(),
            self._settler.unsettled,
            lane_states.look(self._executor, flights),
        )
