"""Passes on what lanes ran, and runs that ended, as spans: on a thread for which no work waits."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import Final

from pgflow_mp.db import connection, patience, wire
from pgflow_mp.db.engine import Connection
from pgflow_mp.observe.read_reports import read_run
from pgflow_mp.observe.tracing import LaneWork, RunTracer
from pgflow_mp.worker.spans import LaneStretch
from pgflow_mp.worker.work_record import WorkReport

_log: Final = logging.getLogger("pgflow_mp.traces")
_MOST_WAITING: Final = 100  # reports
_LAST: Final = 5.0  # seconds for what is left when the worker stops
_PATIENCE: Final = 5  # seconds for the database


class SpanSender(threading.Thread):
    """Threads: take() and close() are for others."""

    def __init__(self, tracer: RunTracer, dsn: str) -> None:
        super().__init__(name="pgflow-traces", daemon=True)
        self._tracer = tracer
        self._dsn = dsn
        self._reports: queue.SimpleQueue[WorkReport | None] = queue.SimpleQueue()
        self._conn: Connection | None = None
        self._offset = time.time_ns() - time.monotonic_ns()

    def take(self, report: WorkReport) -> None:
        """Pass it on soon, unless there is too much already."""
        if self._reports.qsize() < _MOST_WAITING:
            self._reports.put(report)

    def close(self) -> None:
        """End, after what is there."""
        self._reports.put(None)
        self.join(_LAST)

    def run(self) -> None:
        """The thread."""
        while (report := self._reports.get()) is not None:
            try:
                for span in report.spans:
                    self._tracer.ran(self._work(span))
                for run_id in report.ended:
                    self._tell(run_id)
            except Exception:  # noqa: BLE001 - no work depends on it
                _log.debug("spans were not passed on", exc_info=True)
                self._disconnect()
        with contextlib.suppress(Exception):
            self._tracer.close()
        self._disconnect()

    def _tell(self, run_id: str) -> None:
        if self._conn is None or self._conn.closed:
            self._conn = conn = connection.connect(self._dsn)
            wire.adapt(conn)
            patience.limit_statements(conn, _PATIENCE)
        if (run := read_run(self._conn, run_id)) is not None:
            self._tracer.ended(run)

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(Exception):
                conn.close()

    def _work(self, span: LaneStretch) -> LaneWork:
        return LaneWork(
            *(span.run, span.flow, span.step, span.lane, span.index, span.items, span.failed, span.outcome),
            span.seconds,
            self._offset + round(span.start * 1e9),
            self._offset + round(span.end * 1e9),
        )
