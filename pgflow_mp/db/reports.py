"""Lists of runs and flows, for people rather than for workers."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pgflow_mp.db.engine import Connection


class RecentRun(NamedTuple):
    """One run in a list. Items are tasks of the steps that are under way or over."""

    run_id: str
    flow_slug: str
    status: str
    items: int
    done: int
    started_at: datetime
    finished_at: datetime | None


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


def known_flows(conn: Connection) -> list[str]:
    """Slugs of all flows that the database knows."""
    return [row[0] for row in conn.execute("select flow_slug from pgflow.flows order by 1").fetchall()]
