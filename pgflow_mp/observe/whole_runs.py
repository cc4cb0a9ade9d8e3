"""All that there is to tell of one run: its steps, what failed in it, what it took from an earlier one."""

from __future__ import annotations

from uuid import UUID

from pgflow_mp.db import reusing
from pgflow_mp.db.engine import Connection, StepProgress
from pgflow_mp.db.reads.tasks import unmet_step
from pgflow_mp.db.reusing import Reused
from pgflow_mp.observe import grouping
from pgflow_mp.observe.read_reports import read_run
from pgflow_mp.observe.reports import FailedItem, FailureGroup, RunFailures
from pgflow_mp.observe.run_reports import RunDetails, StepReport


class WholeRun(RunDetails, frozen=True, kw_only=True):
    """A run with its failed items: ``failed_tasks`` of them, all in groups, and the first as ``failures``."""

    reused: list[Reused]
    failed_tasks: int
    failures: list[FailedItem]
    failure_groups: list[FailureGroup]

    def all_failures(self) -> RunFailures:
        """The groups and how many items are in them."""
        return RunFailures(failed=self.failed_tasks, groups=self.failure_groups)

    def unmet(self) -> str | None:
        """The step that failed the run because its condition was not met, if there is one."""
        return unmet_step(map(as_progress, self.steps))


def read_whole_run(
    conn: Connection, run_id: str | UUID, limit: int = 0, *, whole_inputs: bool = False
) -> WholeRun | None:
    """The run, None for an unknown one; with the first ``limit`` of its failed items.

    ``whole_inputs``: theirs and those of examples are whole up to ``grouping.WHOLE`` bytes.
    """
    run = read_run(conn, run_id)
    if run is None:
        return None
    whole = grouping.WHOLE if whole_inputs else 0
    found = grouping.read_failures(conn, run.run_id, map(as_progress, run.steps), whole=whole)
    first = grouping.earliest(conn, run.run_id, limit, whole)[0] if limit and found.failed else []
    return WholeRun(
        **{name: getattr(run, name) for name in RunDetails.__struct_fields__},
        reused=reusing.reused(conn, run.run_id),
        failed_tasks=found.failed,
        failures=first,
        failure_groups=found.groups,
    )


def as_progress(step: StepReport) -> StepProgress:
    """The step as ``engine.run_progress`` has it."""
    return StepProgress(
        step.step_slug,
        step.step_type,
        step.status,
        step.initial_tasks,
        step.remaining_tasks,
        step.failed_tasks,
        step.error_message,
        step.skip_reason,
        step.started_at,
        step.finished_at,
    )
