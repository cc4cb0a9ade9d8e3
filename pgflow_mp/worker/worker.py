"""The worker: its life from start to stop, and the main loop between its threads and its lanes.

Claiming, computing and recording overlap: one thread claims, one records, one keeps the worker alive, one
does upkeep, each with a connection of its own; the main loop moves batches between them and the lanes
and never waits for the database.
"""

from __future__ import annotations

import gc
import itertools
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from pgflow_mp.db import engine
from pgflow_mp.errors import PgflowError
from pgflow_mp.observe.events import Observer
from pgflow_mp.worker import inbox, startup
from pgflow_mp.worker.claim import Claimer, ClaimPlanner, Load, Request
from pgflow_mp.worker.dispatch import Batch, Dispatcher, Flight, ItemTimes
from pgflow_mp.worker.events import Cause, LaneDied, LaneFailedToStart, LaneReady, Outcomes
from pgflow_mp.worker.heartbeat import Heartbeat, Upkeep
from pgflow_mp.worker.lanes import LanePool
from pgflow_mp.worker.messages import Item
from pgflow_mp.worker.outcomes import Collector
from pgflow_mp.worker.progress import ConnectionReport, Progress, SafeObserver
from pgflow_mp.worker.settings import WorkerSettings, WorkerState, transition
from pgflow_mp.worker.settle import Settler
from pgflow_mp.worker.stats import Ending, Stats, WorkerReport
from pgflow_mp.worker.verdicts import KillReason
from pgflow_mp.worker.watchdog import Watchdog

_TICK: Final = 0.02
_IDLE_TICK: Final = 0.1
_EVENTS_AT_ONCE: Final = 200
_FORCED_SETTLE: Final = 3.0  # seconds to record what is finished when stopping at once
_LEAST_SETTLE: Final = 10.0  # ... and when stopping in order
_SHED: Final = 4.0  # hand work back that is this many times what is worth holding
_GC_THRESHOLD: Final = (50_000, 20, 100)


class _Interrupted(BaseException):
    """The worker was told to stop while it was starting."""


class Worker:
    """Serves flows until it is told to stop. One Worker runs once."""

    def __init__(self, settings: WorkerSettings, *, observer: Observer | None = None) -> None:
        self.settings = settings
        self.stats = Stats()
        self.state = WorkerState.CREATED
        self._observer = SafeObserver(observer)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stop_requests = 0
        self._ending: Ending | None = None
        self._error: BaseException | None = None
        self._run_id: str | None = None
        self._run_status: str | None = None
        self._claiming: Request | None = None
        self._dead_runs: dict[str, None] = {}
        self._worker_ids: dict[str, str] = {}
        self._former_ids: set[str] = set()
        self._beating: set[str] = set()

    # -- public ------------------------------------------------------------------------------------

    def run(
        self,
        until: Callable[[], bool] | None = None,
        run_id: str | None = None,
        idle_exit: bool = False,
        *,
        begin: Callable[[engine.Connection], str] | None = None,
    ) -> WorkerReport:
        """Start, serve, stop; returns how it went.

        ``begin`` is called once the database knows the flows; it returns the id of the run to serve.

        Ends when asked to stop, when an operator deprecates it, when ``until()`` is true (it is asked
        every 20 to 100 ms), when the run ``run_id`` has ended, or with ``idle_exit`` when there is nothing
        to do. In the main thread SIGTERM and SIGINT stop it: the first in order, within ``grace``
        seconds, the second at once. Raises PgflowError if it cannot start or its database refuses it.
        """
        if self.state is not WorkerState.CREATED:
            raise PgflowError("A worker can only be started once")
        self._run_id = run_id
        self._to(WorkerState.STARTING)
        with self._signals(), _quiet_gc():
            try:
                self._start(begin)
                self._serve(until, idle_exit)
            except _Interrupted:
                self._ending = Ending.REQUESTED
            except BaseException as error:  # noqa: BLE001 - raised again below
                self._error = error
                self._ending = self._ending or Ending.FORCED
            finally:
                released, unsettled = self._stop()
        if self._error is not None:
            raise self._error
        return WorkerReport(
            self._ending or Ending.REQUESTED,
            self.stats,
            time.monotonic() - self.stats.started,
            self.settings.lanes,
            self._run_status,
            released,
            unsettled,
        )

    def request_stop(self) -> None:
        """Stop in order; called a second time: at once. From any thread or signal handler."""
        self._stop_requests += 1
        self._inbox.put(inbox.StopRequested())

    # -- start -------------------------------------------------------------------------------------

    def _start(self, begin: Callable[[engine.Connection], str] | None) -> None:
        settings = self.settings
        self._connection = ConnectionReport(self._observer)
        self._progress = Progress(settings.lanes)
        with startup.open_database(settings.dsn) as conn:
            self._pool = LanePool(
                startup.lane_setup(settings),
                settings.lanes,
                self._inbox.put,
                max_memory=settings.max_memory_per_worker,
            )
            flows = self._pool.start()
            startup.check_flows(settings.flows, flows, settings.targets)
            engine.track_worker_function(conn, settings.worker_name)
            for line in startup.compile_flows(conn, flows, settings.compile):
                self._observer.on_message("info", line)
            if begin is not None:
                self._run_id = begin(conn)
            if self._run_id is not None and (run := engine.get_run(conn, self._run_id)) is not None:
                self._progress.flow = run.flow_slug
        slugs = [info.slug for info in flows]
        self._worker_ids = {slug: str(uuid.uuid4()) for slug in slugs}
        self._turn = itertools.cycle(slugs)
        self._watchdog = Watchdog(self._pool)
        self._dispatcher = Dispatcher(ItemTimes())
        self._planner = ClaimPlanner(
            slugs,
            lanes=settings.lanes,
            batch_size=settings.batch_size,
            claim_ahead=settings.claim_ahead,
            shortest_pause=settings.poll_interval_ms / 1000,
            longest_pause=settings.max_poll_seconds,
        )
        post = self._inbox.put
        self._settler = Settler(settings.dsn, post, linger=settings.linger)
        self._collector = Collector(
            self._dispatcher,
            self._settler,
            self.stats,
            self._observer,
            startup.policies(flows),
            self._hand_back,
            settings.crash_budget,
        )
        self._claimer = Claimer(
            settings.dsn,
            post,
            worker_name=settings.worker_name,
            dead_after=settings.dead_after,
            lease=settings.visibility_timeout,
        )
        self._heartbeat = Heartbeat(
            settings.dsn,
            post,
            interval=settings.heartbeat_interval,
            worker_ids=lambda: list(self._beating),
            held=lambda: list(self._dispatcher.held.values()),
        )
        self._upkeep = Upkeep(settings.dsn, post, run_id=self._run_id)
        self._threads = (self._claimer, self._settler, self._heartbeat, self._upkeep)
        if self._stop_requests:
            raise _Interrupted
        for thread in self._threads:
            thread.start()
        self._to(WorkerState.RUNNING)
        self.stats.started = time.monotonic()

    # -- main loop ---------------------------------------------------------------------------------

    def _serve(self, until: Callable[[], bool] | None, idle_exit: bool) -> None:
        next_tick = 0.0
        while self._ending is None:
            self._take_events(_TICK if self._dispatcher.flights else _IDLE_TICK)
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK
                self._tick(now)
                if self._ending is None and until is not None and until():
                    self._ending = Ending.CONDITION
                if self._ending is None and idle_exit and self._is_idle():
                    self._ending = Ending.IDLE
            self._dispatch(now)
            self._claim(now)
            if not self._dispatcher.flights:
                self._settler.flush()

    def _take_events(self, timeout: float) -> None:
        try:
            event = self._inbox.get(timeout=timeout)
            for _ in range(_EVENTS_AT_ONCE):
                self._HANDLERS[type(event)](self, event)
                event = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _tick(self, now: float) -> None:
        self._pool.poll(now)
        self._watchdog.tick(now)
        self._connection.tick(now)
        for flow in self._collector.due_retries(now):
            self._planner.announce(flow)
        for flow in self._collector.parked:
            if self._flow_is_over(flow) and self._collector.may_unpark(flow, now):
                self._collector.unpark(flow)
        for worker_id in list(self._former_ids):
            self._retire_if_empty(worker_id)
        if self._observer.watching and self._progress.due(now):
            self._snapshot(now)

    def _snapshot(self, now: float) -> None:
        running = {flight.lane for flight in self._dispatcher.flights.values()}
        self._observer.on_progress(
            self._progress.snapshot(
                now,
                self._collector.steps,
                lanes_busy=len(running),
                busy=self.stats.busy,
                queued=self._dispatcher.waiting(),
                unsettled=self._settler.unsettled,
                connection=self._connection.text,
            )
        )

    def _flow_is_over(self, flow: str) -> bool:
        """Whether all that is left here of a flow is parked."""
        return (
            self._dispatcher.held_items(flow) == self._collector.parked_items(flow)
            and not self._dispatcher.flying(flow)
            and not self._settler.unsettled
            and self._planner.dry(flow)
        )

    def _is_idle(self) -> bool:
        return (
            not self._dispatcher.held
            and not self._dispatcher.flights
            and not self._settler.unsettled
            and all(self._planner.dry(flow) for flow in self._worker_ids)
        )

    def _dispatch(self, now: float) -> None:
        dispatcher = self._dispatcher
        flow = dispatcher.next_flow()
        if flow is None:
            return
        rooms = sorted(self._pool.rooms(), key=lambda room: -room[1])
        for needed in (2, 1):
            for lane, room in rooms:
                if room < needed:
                    continue
                if needed == 1 and room < dispatcher_full(dispatcher, flow):
                    continue
                flight = dispatcher.next_chunk(lane, self.settings.lanes, now)
                if flight is None:
                    return
                if not self._pool.submit(lane, flight.chunk, _timeouts(flight)):
                    dispatcher.take_back(flight)
                flow = dispatcher.next_flow()
                if flow is None:
                    return

    def _claim(self, now: float) -> None:
        if self._claiming is not None or self._watchdog.paused or self._settler.saturated:
            return
        dispatcher, planner = self._dispatcher, self._planner
        held = dispatcher.held_items()
        for _ in self._worker_ids:
            flow = next(self._turn)
            load = Load(
                lanes=self.settings.lanes,
                item_seconds=dispatcher.times.recent(flow),
                waiting=dispatcher.waiting(),
                waiting_seconds=dispatcher.waiting_seconds(),
                lane_seconds=dispatcher.lane_seconds(now, planner.horizon(flow)),
                held=held,
            )
            if quantity := planner.quantity(flow, load, now):
                self._claiming = Request(flow, self._worker_ids[flow], quantity)
                self._claimer.request(self._claiming)
                return

    # -- events ------------------------------------------------------------------------------------

    def _on_claimed(self, event: inbox.Claimed) -> None:
        self._claiming = None
        self._beating.add(event.worker_id)
        batch, now = event.batch, time.monotonic()
        got, size = (len(batch.items), batch.size) if batch is not None else (0, 0)
        self._planner.claimed(event.flow, event.asked, got, size, event.seconds, now)
        self.stats.claims += 1
        self.stats.claimed += got
        if batch is None:
            return
        for run in batch.runs:
            self._dead_runs.pop(run, None)
        if self.state is WorkerState.STOPPING or batch.worker_id not in self._known_ids():
            self._release(batch, batch.open_messages())
            return
        self._dispatcher.add(batch)
        self._shed(batch.flow)

    def _shed(self, flow: str) -> None:
        """Hand back what was claimed on a wrong guess of its duration."""
        worth = self._planner.horizon(flow) * self.settings.lanes
        waiting = self._dispatcher.waiting_seconds(flow)
        if waiting is None or waiting < _SHED * worth or self.settings.batch_size is not None:
            return
        for batch in self._dispatcher.shed(flow, 2 * worth):
            self.stats.handed_back += len(batch.items)
            self._release(batch, batch.open_messages())

    def _on_claim_lost(self, event: inbox.ClaimLost) -> None:
        """Tasks that the lost claim took are ours without our knowing: leave them to a former self."""
        self._claiming = None
        self._planner.postpone(event.flow, time.monotonic())
        if self._worker_ids.get(event.flow) == event.worker_id:
            self._new_identity(event.flow)

    def _new_identity(self, flow: str) -> None:
        self._former_ids.add(self._worker_ids[flow])
        self._worker_ids[flow] = str(uuid.uuid4())

    def _retire_if_empty(self, worker_id: str) -> None:
        if self._settler.holds(worker_id):
            return
        if any(batch.worker_id == worker_id for batch in self._dispatcher.held.values()):
            return
        self._former_ids.discard(worker_id)
        self._beating.discard(worker_id)
        self._upkeep.retire(worker_id)

    def _known_ids(self) -> set[str]:
        return {*self._worker_ids.values(), *self._former_ids}

    def _on_announced(self, event: inbox.WorkAnnounced) -> None:
        self._planner.announce(event.flow)

    def _on_outcomes(self, event: Outcomes) -> None:
        self._collector.outcomes(event)
        for flow in self._worker_ids:
            self._shed(flow)

    def _on_lane_died(self, event: LaneDied) -> None:
        self._collector.lane_died(event)
        if event.cause not in (Cause.STOPPED, Cause.CANCELLED):
            self._observer.on_message("warn", f"lane {event.lane} ended ({event.exit}): {event.cause}")

    def _on_lane_ready(self, event: LaneReady) -> None:
        text = f"lane {event.lane} is up (pid {event.pid}, {event.seconds:.2f} s)"
        self._observer.on_message("debug", text)

    def _on_lane_failed(self, event: LaneFailedToStart) -> None:
        text = f"lane {event.lane} does not start, next try in {event.retry_in:g} s: {event.error}"
        self._observer.on_message("error", text)

    def _on_settled(self, event: inbox.BatchSettled) -> None:
        self.stats.batches += 1
        self.stats.replayed += event.replayed
        for call in event.calls:
            self.stats.settled += call.result.accepted
            self.stats.late += call.late
            if not call.failures:
                self.stats.done += call.result.accepted
            over = call.result.run_status in ("completed", "failed", None)
            if over or call.result.step_status != "started":
                self._drop_tasks(call.run, None if over else call.step)
            if call.run == self._run_id and over:
                self._run_over(call.result.run_status)

    def _drop_tasks(self, run: str, step: str | None) -> None:
        """A run, or a step of it, is over: what waits of it is not needed."""

        def unwanted(batch: Batch, item: Item) -> bool:
            return batch.runs[item.run] == run and (step is None or batch.steps[item.step] == step)

        self._dispatcher.discard(unwanted)
        if step is None:
            self._collector.drop_parked(lambda of, _worker_id: of == run)

    def _run_over(self, status: str | None) -> None:
        self._run_status = status
        self._ending = self._ending or Ending.RUN_ENDED

    def _on_run_seen(self, event: inbox.RunSeen) -> None:
        self._progress.seen(event.steps)
        if event.status != "started":
            self._run_over(event.status)

    def _on_leases_lost(self, event: inbox.LeasesLost) -> None:
        lost = event.msg_ids
        self._dispatcher.discard(lambda batch, item: item.msg_id in lost)
        for running in self._pool.running():
            flight = self._dispatcher.flights.get(running.seq)
            if flight is not None and flight.chunk.items[running.target[1]].msg_id in lost:
                reason = KillReason(Cause.CANCELLED, target=running.target)
                self._dead_runs_add(running.run if len(lost) == 1 else "")
                self._pool.kill(running.lane, reason, generation=running.generation)

    def _dead_runs_add(self, run: str) -> None:
        if run:
            self._dead_runs[run] = None
            while len(self._dead_runs) > 1000:
                del self._dead_runs[next(iter(self._dead_runs))]

    def _on_taken_for_dead(self, event: inbox.TakenForDead) -> None:
        dead = set(event.worker_ids) & self._known_ids()
        if not dead:
            return
        self._observer.on_message(
            "warn", "this worker was taken for dead; what it held is given to others, it goes on afresh"
        )
        self._beating -= dead
        for flow, worker_id in list(self._worker_ids.items()):
            if worker_id in dead:
                self._worker_ids[flow] = str(uuid.uuid4())
        self._former_ids -= dead
        self._dispatcher.discard(lambda batch, item: batch.worker_id in dead)
        self._collector.drop_parked(lambda _run, worker_id: worker_id in dead)

    def _on_deprecated(self, _event: inbox.Deprecated) -> None:
        if self.state is WorkerState.RUNNING:
            self._to(WorkerState.DEPRECATED)
            self._ending = self._ending or Ending.DEPRECATED

    def _on_cancelled(self, event: inbox.RunCancelled) -> None:
        self._dead_runs_add(event.run)
        self._drop_tasks(event.run, None)
        for running in self._pool.running():
            if running.run == event.run:
                reason = KillReason(Cause.CANCELLED, target=running.target)
                self._pool.kill(running.lane, reason, generation=running.generation)

    def _on_said(self, event: inbox.Said) -> None:
        self._observer.on_message(event.level, event.text)

    def _on_connection(self, event: inbox.ConnectionState) -> None:
        self._connection.heard(event.who, event.text)
        if not event.text and event.who == "claim":  # announcements may have been missed
            for flow in self._worker_ids:
                self._planner.announce(flow)

    def _on_thread_failed(self, event: inbox.ThreadFailed) -> None:
        self._error = self._error or event.error
        self._ending = Ending.FORCED

    def _on_stop(self, _event: inbox.StopRequested) -> None:
        self._ending = self._ending or Ending.REQUESTED

    _HANDLERS: Final[dict[type, Callable[[Worker, Any], None]]] = {
        Outcomes: _on_outcomes,
        LaneDied: _on_lane_died,
        LaneReady: _on_lane_ready,
        LaneFailedToStart: _on_lane_failed,
        inbox.Claimed: _on_claimed,
        inbox.ClaimLost: _on_claim_lost,
        inbox.WorkAnnounced: _on_announced,
        inbox.BatchSettled: _on_settled,
        inbox.RunSeen: _on_run_seen,
        inbox.LeasesLost: _on_leases_lost,
        inbox.TakenForDead: _on_taken_for_dead,
        inbox.Deprecated: _on_deprecated,
        inbox.RunCancelled: _on_cancelled,
        inbox.Said: _on_said,
        inbox.ConnectionState: _on_connection,
        inbox.ThreadFailed: _on_thread_failed,
        inbox.StopRequested: _on_stop,
    }

    # -- stop --------------------------------------------------------------------------------------

    def _hand_back(self, batch: Batch, items: list[Item]) -> None:
        """Items that a lane was given but did not run."""
        wanted = [item for item in items if batch.runs[item.run] not in self._dead_runs]
        if not wanted:
            return
        part = batch.part(wanted)
        if self.state in (WorkerState.RUNNING, WorkerState.DEPRECATED) and self._ending is None:
            self._dispatcher.add(part, first=True)
        else:
            self._release(part, part.open_messages())

    def _release(self, batch: Batch, msg_ids: list[int]) -> None:
        self._settler.release(batch.flow, batch.worker_id, msg_ids)

    def _stop(self) -> tuple[int, int]:
        """Finish what runs, record it, hand the rest back; (items handed back, items not recorded)."""
        self._to(WorkerState.STOPPING)
        released = unsettled = 0
        try:
            if self._started_threads():
                released, unsettled = self._stop_in_order()
            elif (pool := getattr(self, "_pool", None)) is not None:
                pool.abort()
        finally:
            self._to(WorkerState.STOPPED)
        return released, unsettled

    def _started_threads(self) -> bool:
        return any(thread.is_alive() for thread in getattr(self, "_threads", ()))

    def _stop_in_order(self) -> tuple[int, int]:
        self._claimer.stop()
        self._pool.drain(0.0)
        for batch in self._dispatcher.drain():
            rest = batch.items[batch.next :]
            self._dispatcher.finish(batch, batch.next, len(batch.items) - 1)
            self._release(batch, [item.msg_id for item in rest])
        forced = self._ending is Ending.FORCED
        patient = self._ending is Ending.DEPRECATED
        deadline = time.monotonic() + self.settings.grace
        while self._pool.in_flight and not forced:
            self._take_events(_TICK)
            now = time.monotonic()
            self._tick(now)
            forced = self._stop_requests > 1 or self._error is not None
            if now > deadline and not (patient and not self._stop_requests):
                break
        if self._stop_requests > 1:
            self._ending = Ending.FORCED
        self._pool.abort() if self._pool.in_flight else self._pool.stop(0.0)
        self._claimer.join(_FORCED_SETTLE)
        self._take_all_events()
        self._collector.hand_back_parked()
        limit = _FORCED_SETTLE if forced else max(_LEAST_SETTLE, deadline - time.monotonic())
        self._close_settler(limit)
        for thread in (self._heartbeat, self._upkeep):
            thread.stop()
        for thread in (self._heartbeat, self._upkeep):
            thread.join(_FORCED_SETTLE)
        self._take_all_events()
        for closed in (self._claimer, self._heartbeat, self._upkeep):
            if not closed.is_alive():
                closed.close()
        return self._settler.released, self._settler.unsettled

    def _close_settler(self, limit: float) -> None:
        """Wait for the last batches; a further stop request cuts the wait short."""
        self._settler.flush()
        deadline, asked = time.monotonic() + limit, self._stop_requests
        while self._settler.unsettled and self._settler.is_alive() and time.monotonic() < deadline:
            self._take_events(_TICK)
            if self._stop_requests > max(1, asked):
                deadline = min(deadline, time.monotonic() + _FORCED_SETTLE)
        left = max(1.0, deadline - time.monotonic())
        if not self._settler.close([*self._beating], left):
            self._observer.on_message(
                "warn", "not everything could be recorded; what is missing will run again"
            )

    def _take_all_events(self) -> None:
        while not self._inbox.empty():
            self._take_events(0.0)

    # -- details -----------------------------------------------------------------------------------

    def _to(self, state: WorkerState) -> None:
        if transition(self.state, state):
            self.state = state
            self._observer.on_state(state)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            starting = self.state is WorkerState.STARTING
            self.request_stop()
            if starting:
                raise _Interrupted

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def dispatcher_full(dispatcher: Dispatcher, flow: str) -> int:
    """Room that a lane must have to be given a chunk of this flow: 1, or 2 if it should hold only one."""
    return 3 - dispatcher.depth(flow)


def _timeouts(flight: Flight) -> list[float | None]:
    """The time limits of the steps of a chunk."""
    batch, chunk = flight.batch, flight.chunk
    if chunk.steps is batch.steps:
        return batch.timeouts
    return [batch.timeouts[batch.steps.index(step)] for step in chunk.steps]


@contextmanager
def _quiet_gc() -> Iterator[None]:
    """Collect garbage rarely, and never look at what was there before: the loop makes no cycles."""
    threshold = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
