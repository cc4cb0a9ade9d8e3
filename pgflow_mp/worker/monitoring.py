"""What others may ask a worker while it works, and what is traced: metrics, health, spans.

Nothing is counted for it. Every few seconds the record's report is added up (``telling``), the rest is read
when somebody asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pgflow_mp import __version__
from pgflow_mp.observe import tracing
from pgflow_mp.observe.worker_figures import Health, StepFigures, StepKey, WorkerFigures
from pgflow_mp.worker.lane_states import WorkerNow
from pgflow_mp.worker.settings import WorkerSettings, WorkerState
from pgflow_mp.worker.stats import Stats
from pgflow_mp.worker.work_record import WorkReport

if TYPE_CHECKING:
    from pgflow_mp.observe.metrics_server import MetricsServer
    from pgflow_mp.worker.loop import Loop
    from pgflow_mp.worker.span_sender import SpanSender

_STILL: Final = 3.0  # seconds that a main loop may take for a round
_MOST_STEPS: Final = 1000
_UP: Final = (WorkerState.RUNNING,)


def check(settings: WorkerSettings) -> None:
    """Raise ConfigError where these cannot be monitored as they ask for."""
    if settings.metrics_port is not None:
        from pgflow_mp.observe import metrics_server

        metrics_server.check(settings.metrics_address, settings.metrics_port)
    if settings.traces is not None:
        tracing.check(settings.traces)


class Monitor:
    """Serves a worker's metrics if its settings say so.

    Threads: take() and follow() are for the main loop; figures() and health() for any.
    """

    def __init__(self, settings: WorkerSettings, stats: Stats, state: Callable[[], WorkerState]) -> None:
        self._settings, self._stats, self._state = settings, stats, state
        self._loop: Loop | None = None
        self._lock = threading.Lock()
        self._times: dict[StepKey, StepFigures] = {}
        self._now: WorkerNow | None = None
        self._server: MetricsServer | None = None
        if settings.metrics_port is not None:
            from pgflow_mp.observe.metrics_server import MetricsServer

            self._server = MetricsServer(
                settings.metrics_address,
                settings.metrics_port,
                figures=self.figures,
                health=self.health,
                database=settings.dsn,
            )
        self._sender: SpanSender | None = None
        if tracing.wanted(settings.traces):
            from pgflow_mp.worker.span_sender import SpanSender

            self._sender = SpanSender(tracing.RunTracer(settings.traces, settings.worker_name), settings.dsn)
            self._sender.start()
        if self._server is not None:
            self._server.serve()

    @property
    def url(self) -> str | None:
        """Where the metrics are."""
        return None if self._server is None else self._server.url

    def follow(self, loop: Loop) -> None:
        """The worker works from now on."""
        self._loop = loop
        if self._server is not None or self._sender is not None:
            loop.telling.also = self.take

    def take(self, report: WorkReport) -> None:
        """Add up what the record has to tell."""
        if self._sender is not None:
            self._sender.take(report)
        if self._server is None:
            return
        with self._lock:
            if report.state is not None:
                self._now = report.state
            for times in report.times:
                figures = self._times.get((times.flow, times.step))
                if figures is None:
                    if len(self._times) >= _MOST_STEPS:
                        continue
                    figures = self._times[times.flow, times.step] = StepFigures()
                for bucket, count in times.tally.counts.items():
                    figures.counts[bucket] += count
                figures.seconds += times.seconds
                figures.failed += times.failed

    def close(self) -> None:
        """Answer nobody any more; send the last spans."""
        if self._sender is not None:
            self._sender.close()
        if self._server is not None:
            self._server.close()

    # -- what is asked ---------------------------------------------------------------------------------

    def figures(self) -> WorkerFigures:
        """How things are."""
        loop, stats = self._loop, self._stats
        age = None if loop is None else time.monotonic() - loop.crew.heartbeat.last
        with self._lock:
            now = self._now
            times = {
                key: StepFigures(list(each.counts), each.seconds, each.failed)
                for key, each in self._times.items()
            }
        items = {} if loop is None else loop.collector.steps.copy()
        return WorkerFigures(
            version=__version__,
            executor="" if loop is None else loop.executor.name,
            ready=self._is_up(),
            lanes=self._settings.lanes if loop is None else loop.executor.capacity,
            busy_lanes=0 if now is None else now.busy,
            utilisation=0.0 if now is None else now.utilisation,
            claimed=0 if now is None else now.claimed,
            unsettled=0 if now is None else now.unsettled,
            connected=self._is_connected(age),
            heartbeat_age=age,
            items={key: (counts[0], counts[1]) for key, counts in items.items()},
            times=times,
            counters={
                "pgflow_worker_busy_seconds": stats.busy,
                "pgflow_worker_claims": stats.claims,
                "pgflow_worker_claimed_items": stats.claimed,
                "pgflow_worker_retries": stats.retried,
                "pgflow_worker_late_results": stats.late,
                "pgflow_worker_lane_crashes": stats.crashed,
                "pgflow_worker_handed_back_items": stats.handed_back,
                "pgflow_worker_settled_batches": stats.batches,
            },
        )

    def health(self) -> Health:
        """How things are; waits up to three seconds for the main loop to come round."""
        loop = self._loop
        age = None if loop is None else time.monotonic() - loop.crew.heartbeat.last
        alive = loop is None or self._comes_round(loop)
        return Health(alive, self._is_connected(age), self._is_up() and alive, str(self._state()))

    def _is_up(self) -> bool:
        return self._loop is not None and self._state() in _UP

    def _is_connected(self, age: float | None) -> bool:
        """A worker that starts has a session, and ends if it loses that."""
        return age is None or age < self._settings.dead_after

    def _comes_round(self, loop: Loop) -> bool:
        rounds, until = loop.crew.pulse.rounds, time.monotonic() + _STILL
        while loop.crew.pulse.rounds == rounds:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True
