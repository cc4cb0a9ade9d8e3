"""Runs, steps, items, workers and flows, page by page, as ``observe.read_reports`` makes reports of them.

Everybody with any access but "client" may, each of their flows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pgflow_mp.db.engine import Connection


class RunEntry(NamedTuple):
    """A run, with what it was given when it was started."""

    run_id: str
    flow_slug: str
    status: str
    remaining_steps: int
    started_at: datetime
    completed_at: datetime | None
    failed_at: datetime | None
    priority: int
    key: str | None
    tags: list[str]
    is_cancelled: bool
    is_paused: bool
    paused_until: datetime | None


class EndedRuns(NamedTuple):
    """How many runs of a flow have ended in one way."""

    flow_slug: str
    status: str
    is_cancelled: bool
    has_failures: bool
    runs: int


class StepEntry(NamedTuple):
    """A step of a run. Items are counted, those of a step that has not started are none."""

    run_id: str
    step_slug: str
    step_type: str
    depends_on: list[str]
    storage: str | None
    status: str
    initial_tasks: int | None
    remaining_tasks: int | None
    completed: int
    failed: int
    running: int
    waiting: int
    cancelled: int
    skipped: int
    lost_attempts: int
    next_in: float | None
    workers: int
    error_message: str | None
    skip_reason: str | None
    started_at: datetime | None
    finished_at: datetime | None


class ItemEntry(NamedTuple):
    """An item. ``input`` and ``output`` are JSON in one line, cut off; ``next_in``: seconds to its retry."""

    item_index: int
    status: str
    attempts: int
    error: str | None
    worker_id: str | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    next_in: float | None
    input: str | None
    output: str | None


class WorkerEntry(NamedTuple):
    """A row that a worker registered, for one queue; ``flow_slug`` is None for a flow that is gone."""

    worker_id: str
    queue_name: str
    flow_slug: str | None
    name: str
    version: str | None
    started_at: datetime
    last_heartbeat_at: datetime
    dead_after: float | None
    is_alive: bool
    is_deprecated: bool
    stopped_at: datetime | None
    died_at: datetime | None


class FlowEntry(NamedTuple):
    """A flow; ``unserved`` are its steps that no worker alive takes items of."""

    flow_slug: str
    created_at: datetime
    steps: list[str]
    queue_mode: str
    max_attempts: int
    base_delay: int
    timeout: int
    active: int
    oldest_started_at: datetime | None
    last_started_at: datetime | None
    workers: int
    unserved: list[str]
    is_paused: bool


class FlowActivity(NamedTuple):
    """What is worked on of a flow now, and how its runs ended since some time."""

    flow_slug: str
    running_runs: int
    waiting_runs: int
    running_items: int
    waiting_items: int
    next_in: float | None
    completed_since: int
    failed_since: int


class Setting(NamedTuple):
    """What an option of a flow (``step_slug`` is None) or of one of its steps is set to, in words."""

    step_slug: str | None
    option: str
    value: str


Mark = tuple[datetime, str]
"""Where a page begins: behind the row of this time and id."""


def list_runs(
    conn: Connection,
    limit: int,
    *,
    flow: str | None = None,
    statuses: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tags: Sequence[str] = (),
    key: str | None = None,
    before: Mark | None = None,
) -> list[RunEntry]:
    """``limit`` runs, newest first, behind ``before``: of one flow, of these statuses of ``pgflow.runs``."""
    at, run_id = before or (None, None)
    rows = conn.execute(
        "select * from pgflow.list_runs(%s, %s::text[], %s::timestamptz, %s::timestamptz, %s::text[], %s, "
        "%s::timestamptz, %s::uuid, %s::int)",
        (flow, None if statuses is None else [*statuses], since, until, [*tags], key, at, run_id, limit),
        binary=True,
    ).fetchall()
    return [RunEntry._make((str(row[0]), *row[1:])) for row in rows]


def count_ended_runs(conn: Connection, flow: str | None) -> list[EndedRuns]:
    """How the runs of a flow, or of all, have ended."""
    rows = conn.execute("select * from pgflow.count_ended_runs(%s)", (flow,), binary=True).fetchall()
    return [EndedRuns._make(row) for row in rows]


def one_run(conn: Connection, run_id: str | UUID) -> RunEntry | None:
    """The run with this id, None without one."""
    row = conn.execute("select * from pgflow.run_report(%s::uuid)", (str(run_id),), binary=True).fetchone()
    return None if row is None else RunEntry._make((str(row[0]), *row[1:]))


def list_steps(conn: Connection, run_ids: Collection[str]) -> dict[str, list[StepEntry]]:
    """The steps of these runs in definition order, by run."""
    found: dict[str, list[StepEntry]] = {run_id: [] for run_id in run_ids}
    if found:
        query = "select * from pgflow.list_steps(%s::uuid[])"
        for row in conn.execute(query, ([*found],), binary=True).fetchall():
            found.setdefault(str(row[0]), []).append(StepEntry._make((str(row[0]), *row[1:])))
    return found


def list_items(
    conn: Connection,
    run_id: str | UUID,
    step_slug: str,
    limit: int,
    *,
    start: int = 0,
    statuses: Sequence[str] | None = None,
    chars: int = 200,
) -> list[ItemEntry]:
    """``limit`` items of a step from ``start`` on, by index; only of these ``statuses`` (pgflow.items)."""
    rows = conn.execute(
        "select * from pgflow.list_items(%s::uuid, %s, %s::int, %s::int, %s::text[], %s::int)",
        (str(run_id), step_slug, start, limit, None if statuses is None else [*statuses], chars),
        binary=True,
    ).fetchall()
    return [ItemEntry._make(row) for row in rows]


def list_workers(
    conn: Connection, limit: int, *, alive_only: bool = True, before: Mark | None = None
) -> list[WorkerEntry]:
    """``limit`` rows of workers, the last sign of life first, behind ``before``."""
    at, worker_id = before or (None, None)
    rows = conn.execute(
        "select * from pgflow.list_workers(%s, %s::timestamptz, %s::uuid, %s::int)",
        (alive_only, at, worker_id, limit),
        binary=True,
    ).fetchall()
    return [WorkerEntry._make((str(row[0]), *row[1:])) for row in rows]


def list_requirements(conn: Connection, flows: Collection[str]) -> dict[tuple[str, str], list[str]]:
    """The labels that steps of these flows require of a worker, by flow and step."""
    query = "select flow_slug, step_slug, labels from pgflow.list_requirements(%s::text[])"
    return {(flow, step): labels for flow, step, labels in conn.execute(query, ([*flows],)).fetchall()}


def list_flows(conn: Connection, limit: int, *, after: str = "") -> list[FlowEntry]:
    """``limit`` flows by their slugs, behind one of them."""
    query = "select * from pgflow.list_flows(%s, %s::int)"
    return [FlowEntry._make(row) for row in conn.execute(query, (after, limit), binary=True).fetchall()]


def flow_activity(conn: Connection, slugs: Sequence[str], since: datetime) -> dict[str, FlowActivity]:
    """What is worked on of these flows, by slug; ``since``: from when on runs that ended are counted."""
    rows = conn.execute(
        "select * from pgflow.flow_activity(%s::text[], %s::timestamptz)", ([*slugs], since), binary=True
    ).fetchall()
    return {row[0]: FlowActivity._make(row) for row in rows}


def flow_settings(conn: Connection, slug: str) -> list[Setting]:
    """All that is set for a flow and its steps; of steps also ``when``, ``unless``, ``when_unmet``."""
    rows = conn.execute("select * from pgflow.flow_settings(%s)", (slug,), binary=True).fetchall()
    return [Setting._make(row) for row in rows]
