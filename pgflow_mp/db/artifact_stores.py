"""What the database knows of places for artifacts: which there are, and whose runs are gone."""

from __future__ import annotations

from collections.abc import Sequence

from pgflow_mp.db.engine import Connection


def installation(conn: Connection) -> str:
    """The id of this database among those that share a place."""
    row = conn.execute("select pgflow.installation_id()::text").fetchone()
    return str(row[0]) if row else ""


def use(conn: Connection, flow: str, url: str) -> None:
    """Remember that a flow's artifacts are kept there."""
    conn.execute("select pgflow.use_artifact_store(%s, %s)", (flow, url))


def known(conn: Connection, flows: Sequence[str] | None) -> list[tuple[str, str]]:
    """(flow, place) of these flows, or of all that our role may use."""
    query = "select flow_slug, url from pgflow.known_artifact_stores(%s::text[])"
    rows = conn.execute(query, (None if flows is None else list(flows),)).fetchall()
    return [(str(flow), str(url)) for flow, url in rows]


def gone(conn: Connection, flow: str, runs: Sequence[str]) -> list[str]:
    """Which of these runs do not exist."""
    query = "select g::text from pgflow.gone_runs(%s, %s::uuid[]) g"
    return [str(run) for (run,) in conn.execute(query, (flow, list(runs))).fetchall()]
