"""A run with a map in ranges whose rows are written by hand: any state that the engine could leave it in."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from .helpers import Db, flow, map_step, step

OWNER = uuid.UUID("22222222-2222-2222-2222-222222222222")
"""The worker of leases and of result pages."""


def ranges_run(db: Db, items: Sequence[Any], page: int = 4, slug: str = "r") -> uuid.UUID:
    """A run of a root map "m" whose elements are in pages of so many; a step "s" depends on it."""
    if not db.column("select 1 from pgflow.flows where flow_slug = %s", slug):
        flow(db, slug, map_step("m"), step("s", "m"))
    run: uuid.UUID = db.value(
        "insert into pgflow.runs (flow_slug, input, remaining_steps) values (%s, '[]', 2) returning run_id",
        slug,
    )
    db.do(
        "insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks,"
        " remaining_tasks, remaining_deps, started_at)"
        " values (%s, %s, 'm', 'started', %s, %s, 0, now()), (%s, %s, 's', 'created', 1, null, 1, null)",
        *(slug, run, len(items), len(items), slug, run),
    )
    db.do(
        "insert into pgflow.range_maps (run_id, step_slug, flow_slug, items) values (%s, 'm', %s, %s)",
        *(run, slug, len(items)),
    )
    for first in range(0, len(items), page):
        write_page(db, run, "m", first, items[first : first + page], is_result=False)
    return run


def write_page(
    db: Db, run: uuid.UUID, slug: str, first: int, body: Sequence[Any], *, is_result: bool = True
) -> None:
    """A page as the engine writes it; the step's counters stay as they are."""
    db.do(
        "insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body, worker_id,"
        " leased_at) values (%s, %s, %s, %s, %s, %s, %s, now())",
        *(run, slug, is_result, first, len(body), Jsonb(list(body)), OWNER if is_result else None),
    )


def lease(db: Db, run: uuid.UUID, first: int, end: int, worker: uuid.UUID | None = OWNER) -> None:
    """A range of map "m", leased, or free without a worker; the cursor is behind it afterwards."""
    db.do(
        "insert into pgflow.ranges (run_id, step_slug, first_index, end_index, worker_id, lease_no,"
        " leased_at) values (%s, 'm', %s, %s, %s, 1, case when %s then now() end)",
        *(run, first, end, worker, worker is not None),
    )
    advance(db, run, end)


def advance(db: Db, run: uuid.UUID, to: int) -> None:
    """Set the cursor of map "m" there, unless it is further already."""
    db.do(
        "update pgflow.range_maps set next_index = greatest(next_index, %s)"
        " where run_id = %s and step_slug = 'm'",
        *(to, run),
    )


def complete_items(db: Db, run: uuid.UUID, first: int, outputs: Sequence[Any]) -> None:
    """A result page of map "m", counted."""
    write_page(db, run, "m", first, outputs)
    advance(db, run, first + len(outputs))
    db.do(
        "update pgflow.step_states set remaining_tasks = remaining_tasks - %s"
        " where run_id = %s and step_slug = 'm'",
        *(len(outputs), run),
    )


def exception(db: Db, run: uuid.UUID, index: int, status: str, **columns: Any) -> None:
    """An item of map "m" that left its range and is a task."""
    values = {"status": status, "attempts_count": 1, "error_message": "broken", **columns}
    if status in ("completed", "failed"):
        values.setdefault(f"{status}_at", "now()")
    names = ", ".join(values)
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, queue_name, input, "
        f"{names}) select r.flow_slug, r.run_id, 'm', %s, lower(r.flow_slug), '\"in\"', "
        f"{', '.join(['%s'] * len(values))} from pgflow.runs r where r.run_id = %s",
        *(index, *values.values(), run),
    )
    advance(db, run, index + 1)
