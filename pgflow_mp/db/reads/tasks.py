"""What became of tasks: failures with their texts, what ended with its run, one task as it is stored.

Everybody with any access but "client" may, each of their flows; what says so needs rights on tables.
"""

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


class StoredTask(NamedTuple):
    """A task. ``input`` and ``flow_input`` are what a claim answers (raw JSON)."""

    status: str
    attempts: int
    message_id: int | None
    error: str | None
    input: bytes | None
    flow_input: bytes


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


def unmet_step(steps: Iterable[StepProgress]) -> str | None:
    """The step that has failed its run because its condition was not met, if there is one."""
    failed = (step for step in steps if step.status == "failed" and step.error_message == _UNMET)
    return next((step.step_slug for step in failed), None)


def stored_task(conn: Connection, run_id: str | UUID, step_slug: str, task_index: int) -> StoredTask | None:
    """The task with the input that a worker would get; None if the run has no such task (yet).

    For the schema's owner only.
    """
    row = conn.execute(
        "select t.status, t.attempts_count, t.message_id, t.error_message,"
        " case"
        "   when s.step_type = 'map' then coalesce(t.input,"
        "     (select e from pgflow._map_elements(t.run_id, t.step_slug, t.task_index, t.task_index + 1) e))"
        "   when s.deps_count = 0 then '{}'::jsonb"
        "   else pgflow._deps_outputs(t.flow_slug, t.run_id, t.step_slug)"
        " end, r.input"
        " from pgflow.step_tasks t"
        " join pgflow.runs r on r.run_id = t.run_id"
        " join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug"
        " where t.run_id = %s::uuid and t.step_slug = %s and t.task_index = %s::int",
        (str(run_id), step_slug, task_index),
    ).fetchone()
    return None if row is None else StoredTask._make(row)
