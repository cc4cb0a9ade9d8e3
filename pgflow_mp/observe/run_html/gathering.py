"""All that a report tells of a run, read in one snapshot of the database."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from pgflow_mp import __version__
from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists
from pgflow_mp.db.reads.lists import Setting
from pgflow_mp.observe import grouping, read_reports, read_work
from pgflow_mp.observe.reports import RunFailures
from pgflow_mp.observe.run_reports import RunDetails
from pgflow_mp.observe.work_reports import SpanReport, StepTimesReport
from pgflow_mp.observe.worker_reports import WorkerInfo

GROUPS: Final = 40
"""Groups of failures that have examples; of the others a line is told, up to so many lines."""
LINES: Final = 200
STEPS: Final = 12
"""Steps whose times are drawn: those that took most."""


class RunDocument(NamedTuple):
    """A run with all that its report tells. ``place`` says where the database is, without secrets."""

    run: RunDetails
    settings: list[Setting]
    failures: RunFailures
    times: list[StepTimesReport]
    spans: list[SpanReport]
    workers: list[WorkerInfo]
    environment: dict[str, str]
    place: str
    made_at: datetime

    @property
    def until(self) -> datetime:
        """When the run ended, or now."""
        return self.run.finished_at or self.made_at


def gather(conn: Connection, run_id: str | UUID, place: str = "") -> RunDocument | None:
    """Read it; None for an unknown run, or one of a flow that our role may not use.

    ``conn`` is in autocommit mode. Nothing is written, nothing that is worked on waits.
    """
    with _snapshot(conn):
        run = read_reports.read_run(conn, run_id)
        if run is None:
            return None
        steps = engine.run_progress(conn, run.run_id)
        spans = read_work.read_spans(conn, run.run_id)
        return RunDocument(
            run=run,
            settings=lists.flow_settings(conn, run.flow_slug),
            failures=grouping.read_failures(
                conn, run.run_id, steps, groups=GROUPS, examples=GROUPS * grouping.EXAMPLES
            ),
            times=read_work.read_step_times(conn, run.run_id),
            spans=spans,
            workers=_workers(conn, spans),
            environment=_environment(conn),
            place=place,
            made_at=datetime.now(UTC),
        )


@contextmanager
def _snapshot(conn: Connection) -> Iterator[None]:
    """All that is read in the block is of one moment, so that sums agree while the run goes on."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        yield


def _workers(conn: Connection, spans: list[SpanReport]) -> list[WorkerInfo]:
    """Those of the workers that took part and are not forgotten yet."""
    known = {span.worker for span in spans}
    found = read_reports.read_workers(conn, alive_only=False) if known else []
    return [worker for worker in found if f"{worker.host}:{worker.pid}" in known]


def _environment(conn: Connection) -> dict[str, str]:
    row = conn.execute("select current_setting('server_version')").fetchone()
    return {
        "pgflow_mp": __version__,
        "PostgreSQL": str(row[0]) if row else "",
        "report made by Python": platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
    }
