"""Reads for reports, and the rare statement that needs rights on the tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from pgflow_mp.db import rights
from pgflow_mp.db.engine import Connection, StepProgress, run_progress

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


class StepRow(NamedTuple):
    """A step of a run without its output."""

    step_slug: str
    step_type: str
    status: str
    initial_tasks: int | None
    remaining_tasks: int | None
    error_message: str | None
    skip_reason: str | None
    started_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    skipped_at: datetime | None


def steps_of_run(conn: Connection, run_id: str | UUID) -> list[StepRow]:
    """The steps of a run in definition order."""
    return rights.read(conn, lambda conn: _steps(conn, run_id), lambda conn: _reported_steps(conn, run_id))


def _steps(conn: Connection, run_id: str | UUID) -> list[StepRow]:
    rows = conn.execute(
        "select ss.step_slug, s.step_type, ss.status, ss.initial_tasks, ss.remaining_tasks, "
        "ss.error_message, ss.skip_reason, ss.started_at, ss.completed_at, ss.failed_at, ss.skipped_at "
        "from pgflow.step_states ss "
        "join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug "
        "where ss.run_id = %s::uuid order by s.step_index",
        (str(run_id),),
        binary=True,
    ).fetchall()
    return [StepRow._make(row) for row in rows]


def _reported_steps(conn: Connection, run_id: str | UUID) -> list[StepRow]:
    """The same by the function that every role with some access may call."""
    return [
        StepRow(
            row.step_slug,
            row.step_type,
            row.status,
            row.initial_tasks,
            row.remaining_tasks,
            row.error_message,
            row.skip_reason,
            row.started_at,
            *(row.finished_at if row.status == end else None for end in ("completed", "failed", "skipped")),
        )
        for row in run_progress(conn, run_id)
    ]


def step_output(conn: Connection, run_id: str | UUID, step_slug: str) -> bytes | None:
    """The output of a step as raw JSON; None if it has none, or none that fits one document."""
    row = rights.read(
        conn,
        lambda conn: conn.execute(
            "select output from pgflow.step_states where run_id = %s::uuid and step_slug = %s",
            (str(run_id), step_slug),
        ).fetchone(),
        lambda conn: conn.execute(
            "select nullif(s -> 'output', 'null'::jsonb) "
            "from jsonb_array_elements(pgflow.get_run_with_states(%s::uuid) -> 'steps') s "
            "where s ->> 'step_slug' = %s",
            (str(run_id), step_slug),
        ).fetchone(),
    )
    return None if row is None else row[0]
