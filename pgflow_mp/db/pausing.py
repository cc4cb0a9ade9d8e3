"""Pausing and resuming flows and runs: of what is paused nothing new is claimed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import WHICH_FLOWS, WHY_NO_RUN, FlowNotFound, InputError, RunNotFound

_NO_RUN: Final = "PF003"
_ENDED: Final = "PF004"
_NO_FLOW: Final = "PF016"
_PASSED: Final = "22023"
_LONGEST: Final = timedelta(days=36_500)
_UNTIL: Final = "coalesce(%s::timestamptz, clock_timestamp() + %s::interval)"


class Pause(NamedTuple):
    """A pause. ``run_id`` is None where it is of the flow as a whole."""

    flow_slug: str
    run_id: UUID | None
    paused_at: datetime
    reason: str | None
    until: datetime | None


When = datetime | timedelta
"""A time to come: as such (without a zone, in ours), or how long from now."""


def check_when(when: When | None, name: str) -> When | None:
    """The time with its zone, or what there is to wait. Raises InputError for what can be none."""
    if isinstance(when, timedelta) and timedelta(0) <= when <= _LONGEST:
        return when
    if when is not None and not isinstance(when, datetime):
        raise InputError(
            f"{name} must be a datetime, or a timedelta from 0 to a hundred years, not {when!r}",
            hint=f"For example: {name}=timedelta(minutes=10), or {name}=datetime(2026, 11, 27, tzinfo=UTC)",
        )
    try:
        return when and when.astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        raise InputError(f"{name} is beyond the times that there are here: {when!r}") from None


def hold(conn: Connection, after: When) -> None:
    """Have the run that the rest of this transaction starts held until then."""
    conn.execute(
        "select set_config('pgflow.start_after', to_char(coalesce(%s::timestamptz, clock_timestamp() + "
        "%s::interval) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), true)",
        _moment(after),
    )


def pause_flow(
    conn: Connection, flow_slug: str, reason: str | None = None, until: When | None = None
) -> bool:
    """Pause a flow with all its runs, until then; whether that is new. Raises FlowNotFound, InputError."""
    return _call(conn, f"select pgflow.pause_flow(%s, %s, {_UNTIL})", flow_slug, reason, *_moment(until))


def resume_flow(conn: Connection, flow_slug: str) -> bool:
    """End the pause of a flow, but not those of its runs; whether there was one. Raises FlowNotFound."""
    return _call(conn, "select pgflow.resume_flow(%s)", flow_slug)


def pause_run(
    conn: Connection, run_id: str | UUID, reason: str | None = None, until: When | None = None
) -> bool:
    """Pause a run, until then; whether that is new.

    Raises RunNotFound, and InputError if it has ended, or the time has passed.
    """
    return _call(
        conn, f"select pgflow.pause_run(%s::uuid, %s, {_UNTIL})", str(run_id), reason, *_moment(until)
    )


def resume_run(conn: Connection, run_id: str | UUID) -> bool:
    """End the pause of a run, but not that of its flow; whether there was one. Raises RunNotFound."""
    return _call(conn, "select pgflow.resume_run(%s::uuid)", str(run_id))


def list_pauses(conn: Connection) -> list[Pause]:
    """What is paused, oldest first."""
    rows = conn.execute(
        "select flow_slug, run_id, paused_at, reason, until from pgflow.list_pauses()", binary=True
    ).fetchall()
    return [Pause._make(row) for row in rows]


def _moment(when: When | None) -> tuple[datetime | None, timedelta | None]:
    return (None, when) if isinstance(when, timedelta) else (when, None)


def _call(conn: Connection, query: str, *values: str | datetime | timedelta | None) -> bool:
    try:
        row = conn.execute(query.encode(), values).fetchone()
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate == _NO_RUN:
            raise RunNotFound(str(error.diag.message_primary), hint=WHY_NO_RUN) from None
        if error.sqlstate in (_ENDED, _PASSED):
            raise InputError(str(error.diag.message_primary)) from None
        if error.sqlstate == _NO_FLOW:
            raise FlowNotFound(f'There is no flow "{values[0]}" in this database', hint=WHICH_FLOWS) from None
        raise
    return cast(bool, cast("tuple[Any, ...]", row)[0])
