"""The worker: its life from start to stop (contract: worker section 2).

Claiming, computing and recording overlap: one thread claims, one records, one keeps the worker alive, one
does upkeep, each with a connection of its own; the main loop (loop.py) moves batches between them and the
lanes and never waits for the database.
"""

from __future__ import annotations

import functools
import gc
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from pgflow_mp.db import artifact_stores, engine, schema
from pgflow_mp.errors import ConfigError, PgflowError
from pgflow_mp.executors.lanes.executor import lanes
from pgflow_mp.executors.protocol import Executor, ExecutorFactory, Limits
from pgflow_mp.loading import reentry
from pgflow_mp.observe.observer import Observer
from pgflow_mp.worker import inbox, retention, startup
from pgflow_mp.worker.batches import ItemTimes
from pgflow_mp.worker.course import Course, join
from pgflow_mp.worker.crew import hire
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.loop import TICK, Loop
from pgflow_mp.worker.monitoring import Monitor
from pgflow_mp.worker.progress import SafeObserver
from pgflow_mp.worker.reporting import facts_of
from pgflow_mp.worker.settings import WorkerSettings, WorkerState, transition
from pgflow_mp.worker.stats import Ending, Stats, WorkerReport
from pgflow_mp.worker.work_record import WorkRecord

_FORCED_SETTLE: Final = 3.0  # seconds to record what is finished when stopping at once
_LEAST_SETTLE: Final = 10.0  # ... and when stopping in order
_GC_THRESHOLD: Final = (50_000, 20, 100)

Begin = Callable[[engine.Connection], str]


class _Interrupted(BaseException):
    """The worker was told to stop while it was starting."""


class Worker:
    """Serves flows until it is told to stop. One Worker runs once. ``executor`` makes what runs the items.

    Threads: request_stop() is for any thread and for signal handlers, which note what they want where nothing
    is lost (Course, the queue of events). All else belongs to the thread that calls run(): it alone changes
    dispatcher, collector, planner and identities, and is told by the others through the queue. What a thread
    of the worker shares with it stands in that thread's class.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        observer: Observer | None = None,
        executor: ExecutorFactory = lanes,
    ) -> None:
        reentry.refuse("Worker()")
        self.settings = settings
        self._make_executor = executor
        self.stats = Stats()
        self.state = WorkerState.CREATED
        self._observer = SafeObserver(observer)
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._course = Course()
        self._executor: Executor | None = None
        self._loop: Loop | None = None
        self._monitor: Monitor | None = None
        self._may_interrupt = False
        self._observer.attach(self)

    def run(
        self,
        until: Callable[[], bool] | None = None,
        run_id: str | None = None,
        idle_exit: bool = False,
        *,
        begin: Begin | None = None,
    ) -> WorkerReport:
        """Start, serve, stop; returns how it went.

        Ends when asked to stop, when an operator deprecates it, when ``until()`` is true (it is asked
        every 20 to 100 ms), when the run ``run_id``, whose work comes first, has ended, or with ``idle_exit``
        when there is nothing to do. ``begin`` is called once the database knows the flows, and again if the
        connection is lost meanwhile; it returns the run to serve. In the main thread SIGTERM and SIGINT stop
        it: the first in order, within ``grace`` seconds, the second at once. Raises PgflowError if it cannot
        start or its database refuses it.
        """
        reentry.refuse("Worker.run()")
        if self.state is not WorkerState.CREATED:
            raise PgflowError("A worker can only be started once", hint="Make another one.")
        if self.settings.only and run_id is None and begin is None:
            raise ConfigError("only=True is for a worker with a run of its own, which this one has not")
        course = self._course
        course.run_id = run_id
        self._to(WorkerState.STARTING)
        with self._signals(), _quiet_gc():
            try:
                self._start(begin).serve(until, idle_exit)
            except _Interrupted:
                course.end(Ending.REQUESTED)
            except BaseException as error:  # noqa: BLE001 - raised again below
                course.error = course.error or error
                course.ending = Ending.FORCED
            finally:
                released, unsettled = self._stop()
        if course.error is not None:
            raise course.error
        return WorkerReport(
            course.ending or Ending.REQUESTED,
            self.stats,
            time.monotonic() - self.stats.started,
            self._executor.capacity if self._executor is not None else self.settings.lanes,
            course.run_status,
            released,
            unsettled,
        )

    def pause(self, paused: bool = True) -> None:
        """Claim nothing more, or go on with it; what is claimed is done. From any thread."""
        self._course.paused = paused

    def request_stop(self) -> None:
        """Stop in order; called a second time: at once. From any thread or signal handler."""
        self._course.ask_to_stop()
        if self._executor is not None:
            self._executor.expect_stop()
        self._events.put(inbox.StopRequested())

    # -- start -------------------------------------------------------------------------------------

    def _start(self, begin: Begin | None) -> Loop:
        settings, course = self.settings, self._course
        self._monitor = monitor = Monitor(settings, self.stats, lambda: self.state)
        if monitor.url is not None:
            self._observer.on_message("info", f"metrics are at {monitor.url}")
        with self._interruptible(), startup.session(settings.dsn) as session:
            session.call(schema.check)
            if settings.keep is not None:
                session.call(retention.check)
            limits = Limits(
                settings.lanes, settings.max_memory_per_worker, settings.preload, settings.load_timeout
            )
            setup = startup.lane_setup(settings, session.call(artifact_stores.installation))
            self._executor = self._make_executor(setup, limits, self._events.put)
            flows = self._executor.start()
            if missing := self._executor.abilities.missing():
                self._observer.on_message("warn", f"executor {self._executor.name}: {'; '.join(missing)}")
            startup.check_flows(settings.flows, flows, settings.targets)
            session.call(lambda conn: startup.prepare_artifacts(conn, flows, settings))
            for line in session.call(lambda conn: startup.compile_flows(conn, flows, settings.compile)):
                self._observer.on_message("debug" if line.endswith("verified") else "info", line)
            session.call(lambda conn: startup.register_name(conn, settings.name))
            for line in startup.not_for_us(flows, settings.labels):
                self._observer.on_message("warn", line)
            read_policies = functools.partial(startup.policies, flows=flows)
            policies = session.call(read_policies)
            queues = session.call(lambda conn: startup.queues(conn, flows))
            steps = session.call(lambda conn: startup.known_steps(conn, flows))
            if begin is not None:
                course.run_id = session.call(begin)
            run_id = course.run_id
            run = session.call(lambda conn: engine.get_run(conn, run_id)) if run_id is not None else None
            self._may_interrupt = False  # not on the way out, where it would leave the connection open
        if course.stop_requests:
            raise _Interrupted
        identities = Identities({name: flow for flow, names in queues.items() for name in names})
        record = WorkRecord(self._executor.capacity, time.monotonic())
        facts = facts_of(record.process_id, self._executor, [info.slug for info in flows], settings.labels)
        batches = {(flow.slug, step.slug): step.batch for flow in flows for step in flow.steps if step.batch}
        dispatcher = Dispatcher(ItemTimes(batches))
        self._loop = Loop(
            settings,
            self._executor,
            hire(
                settings,
                self._events.put,
                steps,
                identities,
                dispatcher,
                course.run_id,
                read_policies,
                facts,
                details=self._observer.watching,
                executor=self._executor,
            ),
            identities,
            dispatcher,
            policies,
            queues,
            events=self._events,
            observer=self._observer,
            stats=self.stats,
            course=course,
            record=record,
        )
        if run is not None:
            self._loop.progress.flow, self._loop.progress.run = run.flow_slug, run_id
        monitor.follow(self._loop)
        self._to(WorkerState.RUNNING)
        self.stats.started = time.monotonic()
        self._loop.crew.start()
        return self._loop

    # -- stop --------------------------------------------------------------------------------------

    def _stop(self) -> tuple[int, int]:
        """Finish what runs, record it, hand the rest back; (items handed back, items not recorded)."""
        if self._course.ending is Ending.DEPRECATED and self.state is WorkerState.RUNNING:
            self._to(WorkerState.DEPRECATED)
        self._to(WorkerState.STOPPING)
        self._course.stopping = True
        try:
            if self._loop is not None:
                return self._stop_in_order(self._loop)
            return 0, 0
        finally:
            if self._executor is not None:
                self._executor.abort()  # does nothing after an orderly stop
            if self._monitor is not None:
                self._monitor.close()
            self._to(WorkerState.STOPPED)

    def _stop_in_order(self, loop: Loop) -> tuple[int, int]:
        course = self._course
        loop.crew.claimer.stop()
        loop.executor.quiesce()
        for batch in loop.dispatcher.drain():
            loop.dispatcher.finish(batch, batch.next, len(batch) - 1)
            loop.release(batch, [(batch.next, len(batch))])
        forced = course.ending is Ending.FORCED
        deadline = time.monotonic() + self.settings.grace
        while loop.executor.in_flight and not forced:
            loop.take_events(TICK)
            loop.tick(time.monotonic())
            forced = course.stop_requests > 1 or course.error is not None
            # A deprecated worker is in no hurry, unless it is also asked to stop.
            hurried = course.ending is not Ending.DEPRECATED or course.stop_requests
            if hurried and time.monotonic() > deadline:
                break
        if course.stop_requests > 1:
            course.ending = Ending.FORCED
        if loop.executor.in_flight:
            loop.executor.abort()
        else:
            loop.executor.stop(0.0)
        join(loop.crew.claimer, _FORCED_SETTLE)
        loop.take_all_events()
        loop.collector.judge()
        if not forced:
            self._record_parked(loop)
        loop.collector.hand_back_parked()
        limit = _FORCED_SETTLE if forced else max(_LEAST_SETTLE, deadline - time.monotonic())
        self._close_settler(loop, limit)
        loop.take_all_events()
        loop.telling.finish(time.monotonic())
        loop.runs.finish()
        for watcher in loop.crew.watchers:
            watcher.stop()
        for thread in (loop.crew.claimer, *loop.crew.watchers):
            join(thread, _FORCED_SETTLE)
            if not thread.is_alive():
                thread.close()
        loop.take_all_events()
        if self._observer.watching:
            loop.snapshot(time.monotonic())
        return loop.settler.released, loop.settler.unsettled

    def _record_parked(self, loop: Loop) -> None:
        """Record the parked failures of runs of which nothing else is left, if that is soon known."""
        parking, until, asked = loop.collector.parking, time.monotonic() + _FORCED_SETTLE, False
        while not parking.empty and time.monotonic() < until and self._course.stop_requests < 2:
            if loop.settler.unsettled:
                loop.settler.flush()
            elif not asked:
                loop.ask_about_parked(time.monotonic(), at_once=True)
                asked = True
            elif not parking.awaits_answer:
                break
            loop.take_events(TICK)

    def _close_settler(self, loop: Loop, limit: float) -> None:
        """Wait for the last batches; a further stop request cuts the wait short."""
        settler, course = loop.settler, self._course
        settler.flush()
        deadline, asked = time.monotonic() + limit, course.stop_requests
        while settler.unsettled and settler.is_alive() and time.monotonic() < deadline:
            loop.take_events(TICK)
            if course.stop_requests > max(1, asked):
                deadline = min(deadline, time.monotonic() + _FORCED_SETTLE)
        if not settler.close(loop.identities.beating, max(1.0, deadline - time.monotonic())):
            self._observer.on_message("warn", "not everything could be recorded; the rest will run again")

    # -- details -----------------------------------------------------------------------------------

    def _to(self, state: WorkerState) -> None:
        if transition(self.state, state):
            self.state = state
            self._observer.on_state(state)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A signal ends the block at once; outside of it, it is noted: nothing is left half done."""
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.request_stop()
            if self._may_interrupt:
                self._may_interrupt = False
                raise _Interrupted

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
