"""Runs and their steps: lists, heads and views, small and asked for often. Payloads are in ``documents``.

Everybody with any access but "client" may, each of their flows; what says so needs rights on tables.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from pgflow_mp.db import engine, rights
from pgflow_mp.db.engine import RUN_COLUMNS, Connection, RunRow
from pgflow_mp.db.reads import lists
from pgflow_mp.errors import FlowNotFound, RunNotFound

_NAMED: Final = 10  # flows in a hint


class RecentRun(NamedTuple):
    """One run in a list. Items are tasks of the steps that are under way or over."""

    run_id: str
    flow_slug: str
    status: str
    items: int
    done: int
    started_at: datetime
    finished_at: datetime | None


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
_CANDIDATES: Final = 5


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


def recent_runs(conn: Connection, limit: int, flow_slug: str | None = None) -> list[RecentRun]:
    """The runs that were started last, newest first."""
    query = "select * from pgflow.recent_runs(%s, max_rows => %s)"
    rows = conn.execute(query, (flow_slug, limit), binary=True).fetchall()
    return [RecentRun._make((str(row[0]), *row[1:])) for row in rows]


def find_runs(conn: Connection, prefix: str, limit: int = 5) -> list[str]:
    """Ids of runs that begin with ``prefix``, newest first."""
    rows = conn.execute(
        "select run_id::text from pgflow.recent_runs(id_prefix => %s, max_rows => %s)", (prefix, limit)
    ).fetchall()
    return [row[0] for row in rows]


def the_run(conn: Connection, text: str, *, hint: str = "") -> RunRow:
    """The run with this id, or the only one whose id begins so. Raises RunNotFound."""
    run_id: str | None = None
    try:
        run_id = str(UUID(text))
    except ValueError:
        found = find_runs(conn, _dashed(text), _CANDIDATES + 1) if text.strip() else []
        if len(found) > 1:
            more = ", ..." if len(found) > _CANDIDATES else ""
            raise RunNotFound(
                f"{text!r} begins the ids of several runs",
                hint="They are: " + ", ".join(found[:_CANDIDATES]) + more,
            ) from None
        run_id = found[0] if found else None
    run = engine.get_run(conn, run_id) if run_id else None
    if run is None:
        raise RunNotFound(f"There is no run {text} in this database", hint=hint)
    return run


def _dashed(text: str) -> str:
    """The beginning of an id as it is written, also where it was given without dashes."""
    text = text.strip().lower()
    if not re.fullmatch("[0-9a-f]{9,}", text):
        return text
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return "-".join(part for part in parts if part)


def known_flows(conn: Connection) -> list[str]:
    """Slugs of all flows that the database knows. For the owner, and with the access "client"."""
    return [row[0] for row in conn.execute("select flow_slug from pgflow.flows order by 1").fetchall()]


def check_flow(conn: Connection, slug: str) -> None:
    """Raise FlowNotFound for a flow that the database does not know, or that our role may not see."""

    def from_pages(conn: Connection) -> list[str]:
        """The first ones, and this one."""
        before = slug[:-1] + chr(ord(slug[-1]) - 1) + "\x7f" if slug else ""  # by bytes none lies between
        pages = [lists.list_flows(conn, _NAMED + 1), lists.list_flows(conn, 1, after=before)]
        return sorted({flow.flow_slug for page in pages for flow in page})

    try:
        known = rights.read(conn, known_flows, from_pages)
    except psycopg.errors.InsufficientPrivilege:
        return
    if slug not in known:
        names = ", ".join(known[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
        hint = f"Flows there: {names or 'none yet'}."
        raise FlowNotFound(f'There is no flow "{slug}" in this database', hint=hint)


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
