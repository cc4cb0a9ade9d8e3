"""Lists of runs and flows, for people rather than for workers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]


class RunSummary(NamedTuple):
    """One run in a list. Items are tasks of the steps that are under way or over."""

    run_id: str
    flow_slug: str
    status: str
    items: int
    done: int
    started_at: datetime
    finished_at: datetime | None


def recent_runs(conn: Connection, limit: int, flow_slug: str | None = None) -> list[RunSummary]:
    """The runs that were started last, newest first."""
    rows = conn.execute(
        "select r.run_id, r.flow_slug, r.status,"
        " coalesce(sum(ss.initial_tasks) filter (where ss.status <> 'skipped'), 0)::bigint,"
        " coalesce(sum(case when ss.status = 'completed' then ss.initial_tasks"
        "   when ss.status <> 'created' then ss.initial_tasks - coalesce(ss.remaining_tasks, 0) end)"
        "   filter (where ss.status <> 'skipped'), 0)::bigint,"
        " r.started_at, coalesce(r.completed_at, r.failed_at)"
        " from (select * from pgflow.runs where %(flow)s::text is null or flow_slug = %(flow)s"
        "   order by started_at desc, run_id limit %(limit)s) r"
        " left join pgflow.step_states ss on ss.run_id = r.run_id"
        " group by r.run_id, r.flow_slug, r.status, r.started_at, r.completed_at, r.failed_at"
        " order by r.started_at desc, r.run_id",
        {"flow": flow_slug, "limit": limit},
    ).fetchall()
    return [RunSummary._make((str(row[0]), *row[1:])) for row in rows]


def find_runs(conn: Connection, prefix: str, limit: int = 5) -> list[str]:
    """Ids of runs that begin with ``prefix``, newest first."""
    rows = conn.execute(
        "select run_id::text from pgflow.runs where starts_with(run_id::text, %s)"
        " order by started_at desc limit %s",
        (prefix.lower(), limit),
    ).fetchall()
    return [row[0] for row in rows]


def known_flows(conn: Connection) -> list[str]:
    """Slugs of all flows that the database knows."""
    return [row[0] for row in conn.execute("select flow_slug from pgflow.flows order by 1").fetchall()]
