"""The main loop: moves batches between the claimer, the lanes and the settler; waits for none of them."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pgflow_mp.errors import ExecutorGone
from pgflow_mp.executors.events import (
    ExecutorLost,
    ExecutorSaid,
    LaneDied,
    LaneFailedToStart,
    LaneReady,
    Outcomes,
    RangeOutcomes,
)
from pgflow_mp.executors.protocol import Executor
from pgflow_mp.worker import inbox
from pgflow_mp.worker.batches import AnyBatch
from pgflow_mp.worker.chunks import DEEPEST, Stretch
from pgflow_mp.worker.course import Course
from pgflow_mp.worker.crew import Crew
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.lane_troubles import LaneTroubles
from pgflow_mp.worker.outcomes import Collector
from pgflow_mp.worker.progress import ConnectionReport, SafeObserver
from pgflow_mp.worker.run_notes import RunNotes
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.snapshots import Progress
from pgflow_mp.worker.startup import Policies
from pgflow_mp.worker.stats import Ending, Stats
from pgflow_mp.worker.supply import Supply
from pgflow_mp.worker.telling import Telling
from pgflow_mp.worker.unwanted import Unwanted
from pgflow_mp.worker.work_record import WorkRecord

TICK: Final = 0.1
GLANCE: Final = 0.02  # seconds, while a lane has nothing to do and another holds more than it runs
_EVENTS_AT_ONCE: Final = 200


class Loop:
    """Turns what the threads and the executor say into what they are to do. Threads: its owner's only."""

    def __init__(
        self,
        settings: WorkerSettings,
        executor: Executor,
        crew: Crew,
        identities: Identities,
        dispatcher: Dispatcher,
        policies: Policies,
        queues: Mapping[str, Sequence[str]],
        *,
        events: queue.SimpleQueue[Any],
        observer: SafeObserver,
        stats: Stats,
        course: Course,
        record: WorkRecord | None = None,
    ) -> None:
        self.executor, self.crew, self.course = executor, crew, course
        self.identities, self.dispatcher = identities, dispatcher
        self.supply = Supply(settings, queues, executor, dispatcher, identities, crew.claimer)
        self.settler = crew.settler
        record = record or WorkRecord(executor.capacity, time.monotonic())
        self.collector = Collector(
            dispatcher, crew, stats, observer, policies, self._hand_back, settings.crash_budget, record
        )
        self.lane_troubles = LaneTroubles(observer, self._fail)
        self.telling = Telling(record, crew.upkeep, executor, dispatcher, crew.settler, stats)
        self.progress = Progress(executor, dispatcher, crew.settler, stats, record)
        self.runs = RunNotes(observer, crew.upkeep.ask_runs)
        self._events = events
        self._observer, self._stats = observer, stats
        self._connection = ConnectionReport(observer)
        self._braked = False
        self.unwanted = Unwanted(executor, dispatcher, self.collector, identities, self.release)

    def serve(self, until: Callable[[], bool] | None, idle_exit: bool) -> None:
        """Work until the course has an ending."""
        next_tick, pause = 0.0, TICK
        while self.course.ending is None:
            self.take_events(pause)
            now = time.monotonic()
            pause = self.instruct(now)
            if now >= next_tick:
                next_tick = now + TICK
                self.tick(now)
                if until is not None and until():
                    self.course.end(Ending.CONDITION)
                if idle_exit and self._is_idle():
                    self.course.end(Ending.IDLE)

    def instruct(self, now: float) -> float:
        """Tell everybody what to do next; how long to wait for events after it, in seconds."""
        self._dispatch(now)
        if not (self.settler.saturated or self.course.paused):
            self.supply.claim(now, self.collector.parking.items)
        starving = self.dispatcher.is_starving(self.executor.capacity)
        if starving or self.dispatcher.run_emptied:
            self.dispatcher.run_emptied = False
            self.settler.flush()  # what is recorded may make the next work
        return self.supply.rest(GLANCE if starving and self.executor.relieve(DEEPEST) else TICK)

    def take_events(self, timeout: float) -> None:
        """Handle what has happened; waits up to ``timeout`` seconds for the first event."""
        self.crew.pulse.beat()
        try:
            event = self._events.get(timeout=timeout)
            for _ in range(_EVENTS_AT_ONCE):
                HANDLERS[type(event)](self, event)
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def take_all_events(self) -> None:
        """Handle everything that has happened."""
        while not self._events.empty():
            self.take_events(0.0)

    def tick(self, now: float) -> None:
        """What has to be looked at now and then."""
        self.executor.tick(now)
        self._connection.tick(now)
        self.telling.tick(now)
        self.runs.tick(now)
        if self.executor.paused != self._braked:
            self._braked = self.executor.paused
            text = "short of memory: claiming pauses" if self._braked else "enough memory: claiming goes on"
            self._observer.on_message("warn", text)
        for flow in self.collector.retries.due(now):
            self.supply.announce(flow)
        if self.collector.parking.active:
            self._look_after_parked(now)
        self.collector.corner.let_through()
        for batch in self.supply.surplus():
            self._stats.handed_back += len(batch)
            self.release(batch)
        for worker_id in self.identities.retire(self._in_use):
            self.crew.upkeep.retire(worker_id)
        if self._observer.watching and self.progress.due(now):
            self.snapshot(now)

    def snapshot(self, now: float) -> None:
        """Show the observer where we are."""
        self._observer.on_progress(
            self.progress.snapshot(
                now,
                self.collector.steps,
                connection=self._connection.text,
                retries=self.collector.retries.waiting(now),
                paused=self.course.paused,
            )
        )

    # -- decisions ---------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """Fill the lanes: those that have nothing first."""
        dispatcher, executor = self.dispatcher, self.executor
        if dispatcher.next_flow() is None or self.settler.heavy:
            return
        rooms, capacity = executor.rooms(), executor.capacity
        for chunks in (0, 1):  # that the lane has
            for lane, room in rooms:
                if room < 2 - chunks:
                    continue
                flow = dispatcher.next_flow()
                if flow is None:
                    return
                if chunks and (dispatcher.depth(flow) < 2 or dispatcher.is_late(lane, now)):
                    continue
                flight = dispatcher.next_chunk(lane, capacity, now)
                if flight is not None and not executor.submit(lane, flight.chunk, flight.timeouts):
                    dispatcher.take_back(flight)

    def _look_after_parked(self, now: float) -> None:
        self.ask_about_parked(now)
        for flow, run in self.collector.parking.unanswered(now):
            if self._flow_is_over(flow) and self.collector.retries.over(flow, now):
                self.collector.unpark(run)

    def ask_about_parked(self, now: float, *, at_once: bool = False) -> None:
        """Ask what is left of the runs of parked items, if it is time to."""
        question = self.collector.parking.question(now, at_once=at_once)
        if question is not None:
            self.crew.upkeep.ask(question)

    def _flow_is_over(self, flow: str) -> bool:
        """Whether all that is left here of a flow is parked."""
        return (
            self.dispatcher.held_items(flow) == self.collector.parking.count(flow)
            and not self.dispatcher.flying(flow)
            and not self.settler.unsettled
            and self.supply.is_dry(flow)
        )

    def _is_idle(self) -> bool:
        return (
            not (self.dispatcher.held or self.dispatcher.flights or self.settler.busy)
            and self._events.empty()  # such as what has just been recorded
            and not self.collector.retries
            and self.supply.dry
        )

    def _in_use(self, worker_id: str) -> bool:
        held = any(batch.worker_id == worker_id for batch in self.dispatcher.held.values())
        return held or self.supply.claims_as(worker_id) or self.settler.holds(worker_id)

    def _hand_back(self, batch: AnyBatch, spans: Sequence[Stretch], limit: int) -> None:
        """Items that a lane was given but did not run: others run them, unless nobody wants them.

        ``limit``: how many a handler of batches may be given at once from now on, if not 0.
        """
        if not self.identities.is_known(batch.worker_id):
            return
        spans = self.unwanted.sift(batch, spans)
        if self.course.stopping or self.unwanted.is_dropped(batch):
            self.release(batch, spans)
        elif spans and (free := self.collector.corner.sift(batch, spans)):
            for part in reversed(batch.parts(free)):
                part.limit = limit or part.limit
                self.dispatcher.add(part, first=True)

    def release(self, batch: AnyBatch, spans: Sequence[Stretch] | None = None) -> None:
        """Give items back to the database, uncharged; all of a batch unless told which."""
        self.settler.release(batch.release([(0, len(batch))] if spans is None else spans))

    # -- what the threads say ----------------------------------------------------------------------

    def _on_claimed(self, event: inbox.Claimed) -> None:
        self.supply.claimed(event)
        batch = event.batch
        items = sum(map(len, (*event.ranges, *event.pageless)))
        self._stats.claims += 1
        self._stats.claimed += (len(batch) if batch is not None else 0) + items + len(event.refused)
        for task, text in event.refused:
            self.collector.refused(event.flow, event.worker_id, task, text)
        if event.condemned is not None:  # failed without being run, last of their run
            self._accept(event.condemned, self.collector.condemned)
        if batch is not None:
            self.runs.claimed(event.flow, batch.runs)
            self.unwanted.claimed(batch)
            self._accept(batch, self.dispatcher.add)
        for leased in event.ranges:
            self.runs.claimed(event.flow, leased.runs)
            self._accept(leased, self.dispatcher.add)
        for leased in event.pageless:
            self._accept(leased, self.collector.ranges.pageless)
        self.supply.keep_pages(event)

    def _accept(self, batch: AnyBatch, take: Callable[[Any], None]) -> None:
        """Take what was claimed, or give it back where it is not ours any more."""
        if self.course.stopping or not self.identities.is_known(batch.worker_id):
            self.release(batch)
        else:
            take(batch)

    def _on_settled(self, event: inbox.BatchSettled) -> None:
        self._stats.batches += 1
        self._stats.replayed += event.replayed
        for call in event.calls:
            result = call.result
            self._stats.settled += result.accepted
            self._stats.late += call.late
            if not call.failures:
                self._stats.done += result.accepted
            over = result.run_status != "started"
            flow = self.identities.flow_of(call.worker_id)
            self.runs.settled(call.run, result.accepted, call.failures)
            if over:
                self.telling.record.hurry(call.run if result.accepted else None)
                self.runs.ended(call.run, flow, result.run_status or "deleted")
            if over or result.step_status != "started":
                self.unwanted.drop(call.run, None if over else call.step)
            elif call.lost:
                self.unwanted.refused(call)
            if over and call.run == self.course.run_id:
                self._run_over(result.run_status)
            elif not over and flow is not None:
                self.supply.announce(flow)  # what follows may be there; the database's word comes later

    def _on_run_seen(self, event: inbox.RunSeen) -> None:
        self.progress.seen(event.steps, event.open_items)
        if event.status != "started":
            self.runs.seen_over(event.run, self.progress.flow, event.status or "deleted")
            self._run_over(event.status)

    def _on_parked_seen(self, event: inbox.ParkedSeen) -> None:
        for run in self.collector.parking.answered(event, time.monotonic()):
            self.collector.unpark(run)

    def _run_over(self, status: str | None) -> None:
        self.course.run_status = status
        self.course.end(Ending.RUN_ENDED)

    def _on_taken_for_dead(self, event: inbox.TakenForDead) -> None:
        if dead := self.identities.dead(event.worker_ids):
            self._observer.on_message(
                "warn", "this worker was taken for dead: others have its tasks; it goes on under a new id"
            )
            self.unwanted.died(dead)

    def _on_connection(self, event: inbox.ConnectionState) -> None:
        self._connection.heard(event.who, event.text)
        if not event.text and event.who == "claim":  # announcements may have been missed
            self.supply.announce()

    def _fail(self, error: BaseException) -> None:
        """End at once, and tell this error, or the first one."""
        self.course.error = self.course.error or error
        self.course.ending = Ending.FORCED


HANDLERS: Final[dict[type, Callable[[Loop, Any], None]]] = {
    Outcomes: lambda loop, event: loop.collector.outcomes(event),
    RangeOutcomes: lambda loop, event: loop.collector.ranges.outcomes(event),
    LaneDied: lambda loop, event: loop.collector.lane_died(event),
    LaneReady: lambda loop, event: loop._observer.on_message("debug", event.text),
    LaneFailedToStart: lambda loop, event: loop.lane_troubles.heard(event),
    ExecutorLost: lambda loop, event: loop._fail(ExecutorGone(event.error, hint=event.hint)),
    ExecutorSaid: lambda loop, event: loop._observer.on_message(event.level, event.text),
    inbox.Claimed: Loop._on_claimed,
    inbox.ClaimFailed: lambda loop, event: loop.supply.failed(event),
    inbox.ClaimLost: lambda loop, event: loop.supply.failed(event),
    inbox.WorkAnnounced: lambda loop, event: loop.supply.announce(event.flow),
    inbox.WorkHinted: lambda loop, event: loop.supply.hint(event.flow),
    inbox.BatchSettled: Loop._on_settled,
    inbox.RunSeen: Loop._on_run_seen,
    inbox.RunsSeen: lambda loop, event: loop.runs.seen(event),
    inbox.ParkedSeen: Loop._on_parked_seen,
    inbox.PoliciesSeen: lambda loop, event: loop.collector.judge(event.policies),
    inbox.LeasesLost: lambda loop, event: loop.unwanted.leases_lost(event),
    inbox.MapsOver: lambda loop, event: loop.unwanted.maps_over(event),
    inbox.TakenForDead: Loop._on_taken_for_dead,
    inbox.Deprecated: lambda loop, _event: loop.course.end(Ending.DEPRECATED),
    inbox.Said: lambda loop, event: loop._observer.on_message(event.level, event.text),
    inbox.ConnectionState: Loop._on_connection,
    inbox.ThreadFailed: lambda loop, event: loop._fail(event.error),
    inbox.StopRequested: lambda loop, _event: loop.course.end(Ending.REQUESTED),
}
