"""One task as the database keeps it, with the input that a worker would get; nothing is changed."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from pgflow_mp.db.engine import Connection


class StoredTask(NamedTuple):
    """A task. ``input`` and ``flow_input`` are what a claim answers (raw JSON)."""

    status: str
    attempts: int
    message_id: int | None
    error: str | None
    input: bytes | None
    flow_input: bytes


def stored_task(conn: Connection, run_id: str | UUID, step_slug: str, task_index: int) -> StoredTask | None:
    """The task, or None if the run has no such task (yet)."""
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
