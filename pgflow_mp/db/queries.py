"""Reads for reports, and the rare statement that needs rights on the tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from uuid import UUID

from pgflow_mp.db import rights
from pgflow_mp.db.engine import Connection, StepProgress

_UNMET: Final = "Condition not met"
"""The error that the contract gives such a step."""


class FailedTask(NamedTuple):
    """A task that failed for good, with the text that was recorded.

    ``attempts`` is 0 where our role has no rights on the tables.
    """

    step: str
    task_index: int
    attempts: int
    error: str


class EndedTasks(NamedTuple):
    """How many tasks of a step ended with their run (cancelled) or their step (skipped)."""

    cancelled: int = 0
    skipped: int = 0


def failed_tasks(conn: Connection, run_id: str | UUID, limit: int) -> tuple[list[FailedTask], int]:
    """The first ``limit`` failed tasks of a run, earliest first, and how many there are."""
    text = "coalesce(error_message, 'Unknown error'), count(*) over ()"
    rows = rights.read(
        conn,
        lambda conn: conn.execute(
            f"select step_slug, task_index, attempts_count, {text} from pgflow.step_tasks "  # noqa: S608
            "where run_id = %s::uuid and status = 'failed' "
            "order by failed_at, step_slug, task_index limit %s",
            (str(run_id), limit),
        ).fetchall(),
        lambda conn: conn.execute(
            f"select p.step_slug, t.task_index, 0, {text.replace('error', 't.error')} "  # noqa: S608
            "from pgflow.run_progress(%(run)s::uuid) p "
            "cross join lateral pgflow.run_results(%(run)s::uuid, p.step_slug, 0, 2147483647) t "
            "where t.status = 'failed' order by 1, 2 limit %(limit)s",
            {"run": str(run_id), "limit": limit},
        ).fetchall(),
    )
    return [FailedTask._make(row[:4]) for row in rows], (rows[0][4] if rows else 0)


def with_failed_tasks(conn: Connection, run_id: str | UUID, steps: list[StepProgress]) -> list[StepProgress]:
    """The steps with the number of their tasks that :func:`failed_tasks` finds.

    The step's own counter decides about tolerance, and stands still once the run has failed.
    """
    if not any(step.failed_tasks or step.status == "failed" for step in steps):
        return steps
    rows = rights.read(
        conn,
        lambda conn: conn.execute(
            "select step_slug, count(*) from pgflow.step_tasks "
            "where run_id = %s::uuid and status = 'failed' group by step_slug",
            (str(run_id),),
        ).fetchall(),
        lambda conn: conn.execute(
            "select p.step_slug, count(*) from pgflow.run_progress(%(run)s::uuid) p "
            "cross join lateral pgflow.run_results(%(run)s::uuid, p.step_slug, 0, 2147483647) t "
            "where t.status = 'failed' group by p.step_slug",
            {"run": str(run_id)},
        ).fetchall(),
    )
    found: dict[str, int] = dict(rows)
    return [step._replace(failed_tasks=found.get(step.step_slug, 0)) for step in steps]


def ended_with_others(
    conn: Connection, run_id: str | UUID, steps: list[StepProgress]
) -> dict[str, EndedTasks]:
    """By step, how many of its tasks ended unfinished because the run failed or the step was skipped."""
    if not any(step.status == "failed" or (step.status == "skipped" and step.started_at) for step in steps):
        return {}
    counts = "count(*) filter (where t.status = 'cancelled'), count(*) filter (where t.status = 'skipped')"
    rows = rights.read(
        conn,
        lambda conn: conn.execute(
            f"select t.step_slug, {counts} from pgflow.step_tasks t "  # noqa: S608
            "where t.run_id = %s::uuid and t.status in ('cancelled', 'skipped') group by t.step_slug",
            (str(run_id),),
        ).fetchall(),
        lambda conn: conn.execute(
            f"select p.step_slug, {counts} from pgflow.run_progress(%(run)s::uuid) p "  # noqa: S608
            "cross join lateral pgflow.run_results(%(run)s::uuid, p.step_slug, 0, 2147483647) t "
            "where t.status in ('cancelled', 'skipped') group by p.step_slug",
            {"run": str(run_id)},
        ).fetchall(),
    )
    return {slug: EndedTasks(cancelled, skipped) for slug, cancelled, skipped in rows}


def unfinished_runs(
    conn: Connection, flow_slug: str, but: str | UUID, limit: int = 2
) -> tuple[list[str], int]:
    """The first ``limit`` runs of a flow that have not ended, without one of them, and how many there are.

    Nothing where our role has no rights on the tables.
    """
    rows = rights.read(
        conn,
        lambda conn: conn.execute(
            "select run_id::text, count(*) over () from pgflow.runs "
            "where flow_slug = %s and status = 'started' and run_id <> %s::uuid "
            "order by started_at, run_id limit %s",
            (flow_slug, str(but), limit),
        ).fetchall(),
        lambda conn: [],
    )
    return [row[0] for row in rows], (rows[0][1] if rows else 0)


def unmet_step(steps: Iterable[StepProgress]) -> str | None:
    """The step that has failed its run because its condition was not met, if there is one."""
    failed = (step for step in steps if step.status == "failed" and step.error_message == _UNMET)
    return next((step.step_slug for step in failed), None)


def free_tasks_of_all_workers(conn: Connection) -> int:
    """Queue again what any worker holds, where it is certain that none is alive; how many."""
    row = conn.execute(
        "select pgflow._take_over(array_agg(w.worker_id), "
        "array_agg(w.worker_id) filter (where w.stopped_at is null)) "
        "from pgflow.workers w where w.recovered_at is null"
    ).fetchone()
    return int(row[0]) if row is not None else 0
