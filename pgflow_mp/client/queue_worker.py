"""A worker for plain background jobs, messages of a queue (contract: worker section 1.2).

It has the processes that flows have: a job that takes its process down costs itself an attempt, and no other.
"""

from __future__ import annotations

import dataclasses
import logging
import queue as queue_module
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, Unpack

import msgspec
import psycopg

from pgflow_mp.client.job_retries import RetryPolicy, retry_of
from pgflow_mp.client.placing import place_function
from pgflow_mp.client.state import open_state
from pgflow_mp.db import engine, jobs, schema
from pgflow_mp.db.jobs import QueuedJob
from pgflow_mp.db.keeper import Keeper, Stopped
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.errors import DatabaseError, PgflowError
from pgflow_mp.executors.choosing import Given, factory
from pgflow_mp.executors.events import ExecutorLost, LaneDied, LaneFailedToStart, Outcomes
from pgflow_mp.executors.messages import Chunk, Item, Kind, Outcome
from pgflow_mp.executors.protocol import Executor, Limits
from pgflow_mp.flows.context import JOBS
from pgflow_mp.flows.run_options import WorkerOptions
from pgflow_mp.loading import reentry
from pgflow_mp.loading.job_functions import STEP
from pgflow_mp.worker.settings import WorkerSettings, WorkerState, transition
from pgflow_mp.worker.startup import lane_setup, register_name
from pgflow_mp.worker.stats import Ending

_TICK: Final = 0.1
_LAST_WORDS: Final = 10.0  # seconds to record what is finished when stopping
_log: Final = logging.getLogger("pgflow_mp.jobs")


@dataclass(slots=True)
class JobReport:
    """What a queue worker did: jobs ``done``, tried again, given up, and handed back at the stop."""

    ending: Ending = Ending.REQUESTED
    done: int = 0
    retried: int = 0
    failed: int = 0
    handed_back: int = 0
    wall: float = 0.0


class QueueWorker:
    """Executes the jobs of a queue with a function of one argument, the payload, and maybe the Context.

    The function, or the text by which processes find it: ``mails.py:send_mail``.

    ``queue`` is made if there is none; :meth:`Client.enqueue` and pgmq's ``send`` fill it. A job that ends
    is archived; what the function returns is not kept. One that fails is seen again as ``retry`` says:
    ``Exponential(limit=5, base=3, cap=300)`` or ``Fixed(limit=5, base=3)``, and archived once its tries are
    used up, or at once by PermanentError. ``visibility_timeout`` (seconds) is not extended: choose it
    longer than a job may take, or another worker gets it, too. ``workers`` processes run at once one job
    each (None: the CPUs), ``batch_size`` is the most that is read at once; an empty queue is looked at
    every ``poll_interval_ms`` (``max_poll_seconds`` has no effect: no poll lasts here). ``dsn``,
    ``data_dir``, ``executor``, ``ship`` and ``settings`` are as of :func:`pgflow_mp.run`; ``retry_delay``
    and ``retry_limit`` are deprecated. Raises ConfigError, FlowDefinitionError, FlowNotFound.

    Threads: run() is for one; request_stop() for any, and for signal handlers.
    """

    def __init__(
        self,
        function: Callable[..., object] | str,
        queue: str = "tasks",
        *,
        retry: RetryPolicy | Mapping[str, object] | None = None,
        workers: int | None = None,
        batch_size: int = 10,
        max_poll_seconds: float = 5.0,
        poll_interval_ms: int = 200,
        visibility_timeout: int = 10,
        dsn: str | None = None,
        data_dir: Path | str | None = None,
        executor: Given | None = None,
        ship: Literal["cloudpickle"] | None = None,
        retry_delay: int | None = None,
        retry_limit: int | None = None,
        **settings: Unpack[WorkerOptions],
    ) -> None:
        reentry.refuse("QueueWorker()")
        self.queue: str = jobs.check_queue(queue)
        self.retry: RetryPolicy = retry_of(retry, retry_delay, retry_limit)
        self.state: WorkerState = WorkerState.CREATED
        self.report: JobReport = JobReport()
        self._dsn, self._data_dir, self._executor_wanted = dsn, data_dir, executor
        target, how = place_function(function, ship)
        given: dict[str, Any] = {
            **settings,
            "workers": workers,
            "batch_size": batch_size,
            "max_poll_seconds": max_poll_seconds,
            "poll_interval_ms": poll_interval_ms,
            "visibility_timeout": visibility_timeout,
            "sys_path": tuple(target.sys_path),
            "main_path": target.main_path,
            **how,
        }
        self.settings: WorkerSettings = WorkerSettings(dsn="", targets=(str(target),), **given)
        self._id = str(uuid.uuid4())
        self._events: queue_module.SimpleQueue[Any] = queue_module.SimpleQueue()
        self._stop = threading.Event()
        self._requests = 0
        self._held: dict[int, QueuedJob] = {}
        self._ended: list[tuple[QueuedJob, Outcome]] = []
        self._seq = 0

    def run(self, until: Callable[[], bool] | None = None, *, idle_exit: bool = False) -> JobReport:
        """Work until it is told to stop: by a signal, an operator (``drain``), request_stop(), ``until()``.

        With ``idle_exit`` also when there is no job to be seen. What runs then has ``grace`` seconds to end.
        In the main thread SIGTERM and SIGINT stop it, a second one at once. Raises PgflowError.
        """
        if self.state is not WorkerState.CREATED:
            raise PgflowError("A worker can only be started once", hint="Make another one.")
        self._to(WorkerState.STARTING)
        began = time.monotonic()
        with public_errors(), ExitStack() as stack:
            stack.enter_context(self._signals())
            database = stack.enter_context(open_state(self._dsn, self._data_dir))
            self.settings = settings = dataclasses.replace(self.settings, dsn=database.dsn)
            keeper = stack.enter_context(Keeper(database.dsn, prepare=schema.check, stop=self._stop))
            keeper.begin()
            keeper.call(lambda conn: register_name(conn, settings.name))
            keeper.call(lambda conn: jobs.create_queue(conn, self.queue))
            make = factory(self._executor_wanted, settings.workers)
            limits = Limits(
                settings.lanes, settings.max_memory_per_worker, settings.preload, settings.load_timeout
            )
            executor = make(lane_setup(settings), limits, self._events.put)
            stack.callback(executor.abort)
            executor.start()
            try:
                keeper.call(self._register)
                self._to(WorkerState.RUNNING)
                self._serve(keeper, executor, until, idle_exit=idle_exit)
            except Stopped:
                pass  # the database is away, and we were told to stop
            finally:
                self._finish(executor, database.dsn)
        self._to(WorkerState.STOPPED)
        self.report.wall = time.monotonic() - began
        return self.report

    def request_stop(self) -> None:
        """Stop in order; called a second time: at once."""
        self._requests += 1
        self._stop.set()
        self._events.put(None)

    # -- details -----------------------------------------------------------------------------------

    def _serve(
        self, keeper: Keeper, executor: Executor, until: Callable[[], bool] | None, *, idle_exit: bool
    ) -> None:
        settings = self.settings
        pause, beat = settings.poll_interval_ms / 1000, time.monotonic() + settings.heartbeat_interval
        due = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            free = executor.capacity - len(self._held)
            if free > 0 and now >= due and not executor.paused:
                count = min(free, settings.batch_size or free)
                found = keeper.call(
                    lambda conn, count=count: jobs.read(  # type: ignore[misc]
                        conn, self.queue, settings.visibility_timeout or 1, count
                    )
                )
                for job in found:
                    self._submit(executor, job)
                due = now if found else now + pause
                if idle_exit and not found and not self._held:
                    return self._end(Ending.IDLE)
            if now >= beat:
                beat = now + settings.heartbeat_interval
                if keeper.call(self._beats):
                    self._to(WorkerState.DEPRECATED)
                    return self._end(Ending.DEPRECATED)
            if until is not None and until():
                return self._end(Ending.CONDITION)
            free = executor.capacity - len(self._held)
            self._take(executor, max(0.0, min(_TICK, due - time.monotonic())) if free > 0 else _TICK)
            self._settle(keeper, executor)
        return None

    def _submit(self, executor: Executor, job: QueuedJob) -> None:
        """Hand a job to an idle lane; where there is none any more it is handed back."""
        self._seq += 1
        times = msgspec.json.encode((job.read_ct, job.enqueued_at, job.vt))
        item = Item(job.msg_id, job.read_ct, job.msg_id, 0, 0, job.message, times)
        chunk = Chunk(self._seq, JOBS, [""], [STEP], [item])
        self._held[self._seq] = job
        rooms = sorted(executor.rooms(), key=lambda room: -room[1])
        if not rooms or not executor.submit(rooms[0][0], chunk, [None]):
            self._ended.append((self._held.pop(self._seq), Outcome(0, Kind.NOT_RUN, b"", 0.0)))

    def _take(self, executor: Executor, wait: float) -> None:
        """Note what has happened, for ``wait`` seconds at most if there is nothing."""
        with suppress(queue_module.Empty):
            self._note(self._events.get(timeout=wait) if wait > 0 else self._events.get_nowait())
            while True:
                self._note(self._events.get_nowait())
        executor.tick(time.monotonic())

    def _note(self, event: Any) -> None:
        if isinstance(event, Outcomes):
            for outcome in event.outcomes:
                self._over(event.seq, outcome)
        elif isinstance(event, LaneDied):
            _log.warning("a process died: %s", event.exit)
            if event.verdict is not None and event.seq is not None:
                self._over(event.seq, event.verdict)
        elif isinstance(event, LaneFailedToStart) and event.fatal is not None:
            raise event.fatal
        elif isinstance(event, ExecutorLost):
            raise PgflowError(event.error, hint=event.hint)

    def _over(self, seq: int, outcome: Outcome) -> None:
        job = self._held.pop(seq, None)
        if job is not None:
            self._ended.append((job, outcome))

    def _settle(self, keeper: Keeper, executor: Executor, *, leave: bool = False) -> None:
        """Record what has ended. To ``leave`` what did not run: it is seen again once its time is over."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        done = [job for job, outcome in ended if outcome.kind == Kind.COMPLETED]
        back = [job for job, outcome in ended if outcome.kind == Kind.NOT_RUN]
        again: list[tuple[QueuedJob, int]] = []
        given_up: list[QueuedJob] = []
        for job, outcome in ended:
            if outcome.kind in (Kind.COMPLETED, Kind.NOT_RUN):
                continue
            if outcome.kind == Kind.FAILED and job.read_ct < self.retry.limit + 1:
                again.append((job, self.retry.delay(job.read_ct)))
            else:
                given_up.append(job)
            self._tell(job, outcome, again[-1][1] if again and again[-1][0] is job else None)

        def record(conn: engine.Connection) -> None:
            if done:
                jobs.archive(conn, self.queue, [job.msg_id for job in done])
            if given_up:
                jobs.archive_unread(conn, self.queue, given_up)
            if again:
                jobs.delay(conn, self.queue, [job for job, _ in again], [after for _, after in again])
            if back and not leave:
                jobs.release(conn, self.queue, back)

        try:
            keeper.call(record)
        except BaseException:
            self._ended = ended + self._ended
            raise
        report = self.report
        report.done += len(done)
        report.retried += len(again)
        report.failed += len(given_up)
        report.handed_back += len(back)

    def _tell(self, job: QueuedJob, outcome: Outcome, after: int | None) -> None:
        _log.warning(
            "job %d of queue %s failed at attempt %d, %s: %s",
            job.msg_id,
            self.queue,
            job.read_ct,
            "given up" if after is None else f"tried again in {after} s",
            outcome.body.decode("utf-8", "replace"),
        )

    def _register(self, conn: engine.Connection) -> None:
        engine.register_worker(conn, self._id, self.queue, self.settings.worker_name)

    def _beats(self, conn: engine.Connection) -> bool:
        """Show a sign of life; whether an operator wants this worker to drain."""
        beats = engine.heartbeat(conn, [self._id])
        if not beats:
            self._register(conn)
        return any(beat.deprecated for beat in beats)

    def _end(self, ending: Ending) -> None:
        self.report.ending = ending

    def _finish(self, executor: Executor, dsn: str) -> None:
        """Let what runs end, within ``grace`` seconds, and record it."""
        self._to(WorkerState.STOPPING)
        executor.expect_stop()
        executor.quiesce()
        with suppress(psycopg.Error, DatabaseError), Keeper(dsn, give_up_after=_LAST_WORDS) as keeper:
            deadline = time.monotonic() + self.settings.grace
            while executor.in_flight and time.monotonic() < deadline and self._requests < 2:
                self._take(executor, _TICK)
                self._settle(keeper, executor)
            self._settle(keeper, executor)
            if executor.in_flight:
                executor.abort()
                self.report.ending = Ending.FORCED
            else:
                executor.stop(0.0)
            self._take(executor, 0.0)
            self._settle(keeper, executor, leave=True)
            keeper.call(lambda conn: engine.stop_workers(conn, [self._id]))

    def _to(self, state: WorkerState) -> None:
        if transition(self.state, state):
            self.state = state

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.request_stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
