"""Pausing and resuming flows and runs: of what is paused nothing new is claimed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import FlowNotFound, InputError, RunNotFound

_NO_RUN: Final = "PF003"
_ENDED: Final = "PF004"
_NO_FLOW: Final = "PF016"


class Pause(NamedTuple):
    """A pause. ``run_id`` is None where it is of the flow as a whole."""

    flow_slug: str
    run_id: UUID | None
    paused_at: datetime
    reason: str | None


def pause_flow(conn: Connection, flow_slug: str, reason: str | None = None) -> bool:
    """Pause a flow with all its runs; whether that is new. Raises FlowNotFound."""
    return _call(conn, "select pgflow.pause_flow(%s, %s)", flow_slug, reason)


def resume_flow(conn: Connection, flow_slug: str) -> bool:
    """End the pause of a flow, but not those of its runs; whether there was one. Raises FlowNotFound."""
    return _call(conn, "select pgflow.resume_flow(%s)", flow_slug)


def pause_run(conn: Connection, run_id: str | UUID, reason: str | None = None) -> bool:
    """Pause a run; whether that is new. Raises RunNotFound, and InputError if it has ended."""
    return _call(conn, "select pgflow.pause_run(%s::uuid, %s)", str(run_id), reason)


def resume_run(conn: Connection, run_id: str | UUID) -> bool:
    """End the pause of a run, but not that of its flow; whether there was one. Raises RunNotFound."""
    return _call(conn, "select pgflow.resume_run(%s::uuid)", str(run_id))


def list_pauses(conn: Connection) -> list[Pause]:
    """What is paused, oldest first."""
    rows = conn.execute(
        "select flow_slug, run_id, paused_at, reason from pgflow.list_pauses()", binary=True
    ).fetchall()
    return [Pause._make(row) for row in rows]


def _call(conn: Connection, query: str, *values: str | None) -> bool:
    try:
        row = conn.execute(query.encode(), values).fetchone()
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate == _NO_RUN:
            raise RunNotFound(str(error.diag.message_primary)) from None
        if error.sqlstate == _ENDED:
            raise InputError(str(error.diag.message_primary)) from None
        if error.sqlstate == _NO_FLOW:
            raise FlowNotFound(f'There is no flow "{values[0]}" in this database') from None
        raise
    return cast(bool, cast("tuple[Any, ...]", row)[0])
