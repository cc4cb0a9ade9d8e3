"""What became of items: failures with their texts, what ended with its run, one item as it is stored.

Everybody with any access but "client" may, each of their flows; what says so needs rights on tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from pgflow_mp.db.engine import Connection, StepProgress

_UNMET: Final = "Condition not met"
"""The error that the contract gives such a step."""


class EndedTasks(NamedTuple):
    """How many items of a step ended with their run (cancelled) or their step (skipped)."""

    cancelled: int = 0
    skipped: int = 0


class StoredTask(NamedTuple):
    """An item. ``input`` and ``flow_input`` are what a claim answers (raw JSON).

    It has no ``message_id`` where it is no row of its own: in a range, or not spawned yet. ``paged``: parents
    whose outputs are too large to be part of the input, see ``pgflow.paged_input``.
    """

    status: str
    attempts: int
    message_id: int | None
    error: str | None
    input: bytes | None
    flow_input: bytes
    paged: dict[str, int | None] | None = None


def first_failed(conn: Connection, run_id: str | UUID, limit: int) -> tuple[list[tuple[str, int]], int]:
    """Step and index of ``limit`` failed items of a run, and how many there are.

    They are the first, but those that failed a step before those that did not.
    """
    rows = conn.execute(
        "select step_slug, task_index, failures from pgflow.run_failures(%s::uuid, %s::int)",
        (str(run_id), limit),
    ).fetchall()
    return [(row[0], row[1]) for row in rows], (rows[0][2] if rows else 0)


def ended_with_others(
    conn: Connection, run_id: str | UUID, steps: list[StepProgress]
) -> dict[str, EndedTasks]:
    """By step, how many of its items ended unfinished because the run failed or the step was skipped."""
    if not any(step.status == "failed" or (step.status == "skipped" and step.started_at) for step in steps):
        return {}
    query = "select step_slug, cancelled, skipped from pgflow.run_tallies(%s::uuid)"
    found = conn.execute(query, (str(run_id),)).fetchall()
    return {slug: EndedTasks(*counts) for slug, *counts in found if any(counts)}


def unmet_step(steps: Iterable[StepProgress]) -> str | None:
    """The step that has failed its run because its condition was not met, if there is one."""
    failed = (step for step in steps if step.status == "failed" and step.error_message == _UNMET)
    return next((step.step_slug for step in failed), None)


def stored_task(conn: Connection, run_id: str | UUID, step_slug: str, task_index: int) -> StoredTask | None:
    """The item with the input that a worker would get; None if the run has no such item (yet).

    For the schema's owner only.
    """
    row = conn.execute(
        "select i.status, i.attempts, t.message_id, i.error,"
        " case"
        "   when s.step_type = 'map' then coalesce(i.input,"
        "     (select e from pgflow._map_elements(i.run_id, i.step_slug, i.item_index, i.item_index + 1) e))"
        "   when s.deps_count = 0 then '{}'::jsonb"
        "   else p.input"
        " end, r.input, p.paged"
        " from pgflow.item(%s::uuid, %s, %s::int) i"
        " join pgflow.runs r on r.run_id = i.run_id"
        " join pgflow.steps s on s.flow_slug = i.flow_slug and s.step_slug = i.step_slug"
        " left join pgflow.step_tasks t"
        "   on t.run_id = i.run_id and t.step_slug = i.step_slug and t.task_index = i.item_index"
        " left join lateral pgflow.paged_input(i.run_id, i.step_slug, i.item_index) p"
        "   on s.step_type = 'single' and s.deps_count > 0",
        (str(run_id), step_slug, task_index),
    ).fetchone()
    if row is None:
        return None
    paged = None if row[-1] is None else msgspec.json.decode(row[-1], type=dict[str, int | None])
    return StoredTask._make((*row[:-1], paged))
