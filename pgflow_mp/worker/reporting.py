"""Passes on what the record has to tell, on a thread with a connection: what fails there harms no work."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from pgflow_mp import __version__
from pgflow_mp.db import telemetry
from pgflow_mp.db.engine import Connection
from pgflow_mp.executors.protocol import Executor
from pgflow_mp.executors.vitals import Usage, Vitals
from pgflow_mp.time_buckets import BUCKETS
from pgflow_mp.worker.lane_states import LaneLook, WorkerNow
from pgflow_mp.worker.spans import LaneStretch
from pgflow_mp.worker.work_record import StepTimes, WorkReport

_log: Final = logging.getLogger("pgflow_mp")

_MOST_WAITING: Final = 2
_PAUSE: Final = 60.0  # seconds without reports after several that failed
_FAILURES: Final = 3


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What does not change of a worker; ``started``: time.monotonic()."""

    process_id: str
    host: str
    pid: int
    version: str
    executor: str
    lanes: int
    labels: tuple[str, ...]
    flows: tuple[str, ...]
    started: float


def facts_of(
    process_id: str, executor: Executor, flows: Sequence[str], labels: Sequence[str] = ()
) -> WorkerFacts:
    """Those of this process, which starts to work now."""
    return WorkerFacts(
        process_id,
        socket.gethostname(),
        os.getpid(),
        __version__,
        executor.name,
        executor.capacity,
        tuple(labels),
        tuple(flows),
        time.monotonic(),
    )


class Reporter:
    """Keeps what is to be told until it is.

    Threads: add() and full() are for the main loop; tell() belongs to the thread with the connection. What
    one appends to, the other alone takes from.
    """

    def __init__(self, about: WorkerFacts, worker_ids: Callable[[], Sequence[str]]) -> None:
        self._about = about
        self._worker_ids = worker_ids
        self._waiting: deque[WorkReport] = deque()
        self._vitals = Vitals()
        self._failures = 0
        self._rests_until = 0.0
        self._off = False

    def full(self) -> bool:
        """Whether nothing more is to be added for now: the database is not told, or not yet."""
        return len(self._waiting) >= _MOST_WAITING

    def add(self, report: WorkReport) -> None:
        """Tell it soon."""
        if not self._off:
            self._waiting.append(report)

    def tell(self, conn: Connection) -> None:
        """Tell all that waits. Raises only where the connection is lost; what is left is told later."""
        while self._waiting and time.monotonic() >= self._rests_until:
            try:
                if not self._send(conn, self._waiting[0]):
                    return  # not registered yet
                self._failures = 0
            except psycopg.Error as error:
                if conn.closed or conn.broken:
                    raise
                if not self._failed(error):
                    return
            self._waiting.popleft()

    def _failed(self, error: psycopg.Error) -> bool:
        """What to do about it: True to go on without this report."""
        if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.UndefinedFunction):
            _log.debug("what this worker does is not recorded: %s", error)
            self._off = True
            self._waiting.clear()
            return False
        self._failures += 1
        if self._failures < _FAILURES:
            return False
        _log.debug("what this worker does is not recorded for a while: %s", error)
        self._rests_until, self._failures = time.monotonic() + _PAUSE, 0
        return True

    def _send(self, conn: Connection, report: WorkReport) -> bool:
        about, now = self._about, time.monotonic()
        facts = telemetry.ProcessFacts(
            host=about.host,
            pid=about.pid,
            version=about.version,
            executor=about.executor,
            lanes=about.lanes,
            labels=about.labels,
            flows=about.flows,
            age=now - about.started,
        )
        state = None if report.state is None else _state(report.state, self._vitals.look(), now)
        return telemetry.report_worker(
            conn,
            about.process_id,
            report.number,
            self._worker_ids(),
            facts,
            state,
            [_times(times, now) for times in report.times],
            [_span(span, now) for span in report.spans],
        )


def _state(state: WorkerNow, usage: Usage, now: float) -> telemetry.StateFacts:
    return telemetry.StateFacts(
        lanes=state.lanes,
        busy_lanes=state.busy,
        utilisation=round(state.utilisation, 4),
        cpu=round(usage.cpu, 3),
        rss=usage.total_rss,
        claimed=state.claimed,
        unsettled=state.unsettled,
        lane_states=[_lane(lane, usage, now) for lane in state.states],
    )


def _lane(lane: LaneLook, usage: Usage, now: float) -> telemetry.LaneFacts:
    return telemetry.LaneFacts(
        lane=lane.lane,
        pid=lane.pid,
        cpu=_rounded(usage.cpus.get(lane.pid)),
        rss=usage.rss.get(lane.pid),
        flow=lane.flow,
        run=lane.run,
        step=lane.step,
        index=lane.index,
        attempt=lane.attempt,
        since=_rounded(None if lane.since is None else now - lane.since),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _times(times: StepTimes, now: float) -> telemetry.TimeFacts:
    counts = [times.tally.counts.get(bucket, 0) for bucket in range(max(times.tally.counts, default=-1) + 1)]
    slowest = sorted(times.slowest, reverse=True)
    return telemetry.TimeFacts(
        run=times.run,
        step=times.step,
        items=sum(counts),
        failed=times.failed,
        seconds=times.seconds,
        counts=counts[:BUCKETS],
        indexes=[index for _, index in slowest],
        slowest=[seconds for seconds, _ in slowest],
        age=now - times.since,
    )


def _span(span: LaneStretch, now: float) -> telemetry.SpanFacts:
    return telemetry.SpanFacts(
        run=span.run,
        step=span.step,
        lane=span.lane,
        index=span.index,
        items=span.items,
        failed=span.failed,
        outcome=span.outcome,
        seconds=span.seconds,
        start=now - span.start,
        end=now - span.end,
    )
