"""How a run went that was executed here, and what is raised where it has not completed."""

from __future__ import annotations

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection, StepProgress
from pgflow_mp.db.keeper import ask
from pgflow_mp.db.reads import tasks
from pgflow_mp.errors import RunDeleted, WaitTimeout
from pgflow_mp.flows.flow import Flow
from pgflow_mp.observe import grouping
from pgflow_mp.observe.reports import FailedItem, RunFailures
from pgflow_mp.run_request import RunSummary, StateDatabase, failure_of
from pgflow_mp.worker.stats import Ending, WorkerReport

FAILURES_SHOWN = 20
BY_OPERATOR = "stopped by an operator (its worker was deprecated)"


def summary_of(database: StateDatabase, run_id: str, flow_slug: str, report: WorkerReport) -> RunSummary:
    """What the database says of it. Raises RunDeleted."""

    def look(
        conn: Connection,
    ) -> tuple[str | None, list[StepProgress], RunFailures, list[FailedItem]]:
        known = engine.run_status(conn, run_id)
        steps = engine.run_progress(conn, run_id)
        failed = grouping.read_failures(conn, run_id, steps)  # also before we came
        failures = grouping.earliest(conn, run_id, FAILURES_SHOWN)[0] if failed.failed else []
        return known, steps, failed, failures

    known, steps, failed, failures = ask(database.dsn, look)
    if known is None and report.ending is Ending.RUN_ENDED:
        raise RunDeleted(run_id, flow_slug)
    status = known or "started"
    error, unmet = "", None
    if status == "failed":
        unmet = tasks.unmet_step(steps)
        error = next((step.error_message for step in steps if step.error_message), "")
        error = error if unmet is None else f'condition of step "{unmet}" not met'
    return RunSummary(
        run_id=run_id,
        flow=flow_slug,
        status=status,
        interrupted=status == "started" and report.ending is not Ending.CONDITION,
        timed_out=status == "started" and report.ending is Ending.CONDITION,
        items=report.stats.done,
        rate=report.rate,
        wall=report.wall,
        utilisation=report.utilisation,
        lanes=report.lanes,
        late=report.stats.late,
        retried=report.stats.retried,
        crashed=report.stats.crashed,
        failures=failures,
        failed=failed,
        error=error,
        unmet=unmet,
        place=database.place,
        data_dir=database.data_dir,
        by_operator=status == "started" and report.ending is Ending.DEPRECATED,
    )


def unfinished(flow: Flow, summary: RunSummary) -> BaseException:
    """What ``run()`` raises for a run that has not completed."""
    if summary.status == "failed":
        return failure_of(summary)
    hint = f"Go on with it: resume({flow.slug}, {summary.run_id!r})"
    if summary.timed_out:
        text = f"Timeout waiting for run {summary.run_id} to reach status 'completed'"
        return WaitTimeout(text, hint=hint)
    how = BY_OPERATOR if summary.by_operator else "interrupted"
    return KeyboardInterrupt(f"Run {summary.run_id} was {how}. {hint}")
