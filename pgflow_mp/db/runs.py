"""Reading runs: heads and steps, which are small and asked for often, and payloads when they are wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from pgflow_mp.db import rights
from pgflow_mp.db.engine import RUN_COLUMNS, Connection, RunRow

PAGE_ROWS: Final = 5000
PAGE_BYTES: Final = 8 << 20
"""Of output in a page of results, as stored. A larger one is a page by itself."""


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


class Leaf(NamedTuple):
    """A completed step that nothing depends on; if not ``whole``, the run's output has no room for it."""

    step_slug: str
    is_map: bool
    whole: bool


_VIEW: Final = """
select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at,
  ss.step_slug, s.step_type, ss.status, ss.initial_tasks, ss.remaining_tasks, ss.error_message,
  ss.skip_reason, ss.started_at, ss.completed_at, ss.failed_at, ss.skipped_at
from pgflow.runs r
left join (pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug)) on ss.run_id = r.run_id
where r.run_id = %s::uuid
order by s.step_index
"""
_VIEW_BY_FUNCTIONS: Final = """
select r.run_id, r.flow_slug, r.status, r.remaining_steps, r.started_at, r.completed_at, r.failed_at,
  s.step_slug, s.step_type, s.status, s.initial_tasks, s.remaining_tasks, s.error_message, s.skip_reason,
  s.started_at,
  case when s.status = 'completed' then s.finished_at end,
  case when s.status = 'failed' then s.finished_at end,
  case when s.status = 'skipped' then s.finished_at end
from pgflow.run_heads(array[%s]::uuid[]) r
left join lateral pgflow.run_progress(r.run_id) with ordinality s on true
order by s.ordinality
"""
_HEAD_COLUMNS: Final = len(RunRow._fields)


def run_heads(conn: Connection, run_ids: Collection[str]) -> list[RunRow]:
    """Those runs that there are, without their payloads."""
    query = f"select {RUN_COLUMNS} from pgflow.run_heads(%s::uuid[])"  # noqa: S608
    return [RunRow._make(row) for row in conn.execute(query, (list(run_ids),), binary=True).fetchall()]


def run_view(conn: Connection, run_id: str | UUID) -> tuple[RunRow, list[StepRow]] | None:
    """The run and its steps in definition order, as of one moment; None for an unknown run."""
    rows: list[tuple[Any, ...]] = rights.read(
        conn,
        lambda conn: conn.execute(_VIEW, (str(run_id),), binary=True).fetchall(),
        lambda conn: conn.execute(_VIEW_BY_FUNCTIONS, (str(run_id),), binary=True).fetchall(),
    )
    if not rows:
        return None
    steps = [StepRow._make(row[_HEAD_COLUMNS:]) for row in rows if row[_HEAD_COLUMNS] is not None]
    return RunRow._make(rows[0][:_HEAD_COLUMNS]), steps


def run_input(conn: Connection, run_id: str | UUID) -> bytes | None:
    """The run's input as raw JSON; None for an unknown run."""
    return _payload(
        conn,
        "select input from pgflow.runs where run_id = %s::uuid",
        "select pgflow.run_input(%s::uuid)",
        str(run_id),
    )


def run_output(conn: Connection, run_id: str | UUID) -> bytes | None:
    """The run's output as raw JSON; None if it has none, or none that fits one document (see ``leaves``)."""
    return _payload(
        conn,
        "select output from pgflow.runs where run_id = %s::uuid",
        "select pgflow.run_output(%s::uuid)",
        str(run_id),
    )


def step_output(conn: Connection, run_id: str | UUID, step_slug: str) -> bytes | None:
    """The output of a step as raw JSON; None if it has none, or none that fits one document."""
    return _payload(
        conn,
        "select output from pgflow.step_states where run_id = %s::uuid and step_slug = %s",
        "select pgflow.step_output(%s::uuid, %s)",
        str(run_id),
        step_slug,
    )


def beginning_of_output(
    conn: Connection, run_id: str | UUID, whole: int, otherwise: int
) -> tuple[int, str] | None:
    """Characters of the run's output, and its text if it is at most ``whole`` long, else how it begins."""
    row = conn.execute(
        "select length(t), left(t, case when length(t) <= %s then %s else %s end) "
        "from (select pgflow.run_output(%s::uuid)::text as t offset 0) o where t is not null",
        (whole, whole, otherwise, str(run_id)),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def leaves(conn: Connection, run_id: str | UUID) -> list[Leaf]:
    """What the run's output is made of, in definition order."""
    rows = conn.execute(
        "select step_slug, is_map, whole from pgflow.run_leaves(%s::uuid)", (str(run_id),)
    ).fetchall()
    return [Leaf._make(row) for row in rows]


def iter_tasks(
    conn: Connection, run_id: str | UUID, step_slug: str
) -> Iterator[tuple[int, str, bytes | None]]:
    """(Task index, status, output as raw JSON) of a step's tasks in index order, page by page."""
    start, rows = 0, PAGE_ROWS
    while True:
        page = conn.execute(
            "select task_index, status, output "
            "from pgflow.run_results_page(%s::uuid, %s, %s::int, %s::int, %s::bigint)",
            (str(run_id), step_slug, start, rows, PAGE_BYTES),
            binary=True,
        ).fetchall()
        if not page:
            return
        yield from page
        start = page[-1][0] + 1
        rows = min(PAGE_ROWS, 4 * len(page) + 16)  # more would be looked at in vain where outputs are large


def iter_results(conn: Connection, run_id: str | UUID, step_slug: str) -> Iterator[tuple[int, bytes | None]]:
    """Outputs of a step's completed tasks as (task index, raw JSON) in index order, page by page."""
    for task_index, status, output in iter_tasks(conn, run_id, step_slug):
        if status == "completed":
            yield task_index, output


def iter_map_output(conn: Connection, run_id: str | UUID, step_slug: str) -> Iterator[bytes]:
    """The elements of a completed map's output as raw JSON: one a task, null for those that failed."""
    for _, _, output in iter_tasks(conn, run_id, step_slug):
        yield output or b"null"


def _payload(conn: Connection, from_table: str, by_function: str, *arguments: str) -> bytes | None:
    def select(conn: Connection, query: str) -> tuple[Any, ...] | None:
        return conn.execute(query.encode(), arguments, binary=True).fetchone()

    row = rights.read(conn, lambda conn: select(conn, from_table), lambda conn: select(conn, by_function))
    return None if row is None else row[0]
