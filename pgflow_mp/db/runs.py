"""Runs without their payloads: what is asked for again and again stays small."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

from pgflow_mp.db.engine import Connection


class RunHead(NamedTuple):
    """A row of ``pgflow.runs`` without input and output."""

    run_id: str
    flow_slug: str
    status: str
    remaining_steps: int
    started_at: datetime
    completed_at: datetime | None
    failed_at: datetime | None


_HEAD_COLUMNS: Final = "run_id, flow_slug, status, remaining_steps, started_at, completed_at, failed_at"


def run_heads(conn: Connection, run_ids: Collection[str]) -> list[RunHead]:
    """Those runs that there are, without their payloads."""
    rows = conn.execute(
        f"select {_HEAD_COLUMNS} from pgflow.run_heads(%s::uuid[])",  # noqa: S608
        (list(run_ids),),
    ).fetchall()
    return [RunHead._make(row) for row in rows]
