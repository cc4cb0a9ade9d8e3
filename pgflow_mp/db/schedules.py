"""Schedules: runs that are started by the clock (sql/functions/0680 to 0684).

The times of a schedule are computed by who knows its cron line, and kept ahead of time; the server starts
what is due by its own clock, each time once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

import psycopg

from pgflow_mp.db import connection
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.wire import RawJson
from pgflow_mp.errors import InputError, ScheduleNotFound

DueTimes = Sequence[tuple[datetime, str]]
"""Each in UTC, and as a text of the schedule's time zone."""
_OURS: Final = "PF009"
_CHECKS: Final = {
    "name_is_a_name": "The name of a schedule has 1 to 100 characters, no white space and no /",
    "input_is_small": "The input of a schedule can have 1 MB; have a step read what it works on",
    "due_as_is_a_member": "Only an input that is an object can have a member for the time",
}


class Schedule(NamedTuple):
    """A schedule as people read it.

    ``next_at`` is None of a paused one; ``asked``: runs of a backfill that are yet to be started. ``last_``:
    what was handled last; its state is started, skipped or failed. ``problem``: why no times can be computed.
    """

    flow_slug: str
    name: str
    cron: str
    time_zone: str
    missed: str
    priority: int
    due_as: str | None
    owner: str
    created_at: datetime
    changed_at: datetime
    paused_at: datetime | None
    problem: str | None
    next_at: datetime | None
    next_local: str | None
    asked: int
    last_at: datetime | None
    last_state: str | None
    last_run_id: str | None
    last_run_status: str | None
    last_error: str | None
    last_handled_at: datetime | None


class ScheduledTime(NamedTuple):
    """A time of a schedule: planned, or what became of it: started, skipped or failed."""

    due_at: datetime
    local_time: str
    state: str
    is_backfill: bool
    handled_at: datetime | None
    run_id: str | None
    run_status: str | None
    error: str | None


class ToPlan(NamedTuple):
    """A schedule that has few times left: those after ``after`` are wanted, by the server's ``now``."""

    schedule_id: str
    revision: int
    cron: str
    time_zone: str
    after: datetime
    now: datetime


class Fired(NamedTuple):
    """A time that was due: the run that was started for it, or why none could be."""

    flow_slug: str
    name: str
    due_at: datetime
    run_id: str | None
    error: str | None


class Wait(NamedTuple):
    """Whether times are to be computed, and in how many seconds the next one is due, None without one."""

    is_to_plan: bool
    seconds: float | None


def set_schedule(
    conn: Connection,
    flow_slug: str,
    name: str,
    cron: str,
    time_zone: str,
    input: bytes,
    times: DueTimes,
    *,
    missed: str = "once",
    priority: int = 0,
    due_as: str | None = None,
) -> bool:
    """Make a schedule, or change the one of this name; whether it is new. ``input`` is raw JSON.

    Raises InputError for what it cannot be.
    """
    arguments = (flow_slug, name, cron, time_zone, RawJson(input), missed, priority, due_as, *_arrays(times))
    query = "select pgflow.set_schedule(%s, %s, %s, %s, %s, %s, %s::int, %s, %s::timestamptz[], %s::text[])"
    return cast(bool, _one(conn, query, arguments)[0])


def pause(conn: Connection, flow_slug: str, name: str) -> bool:
    """Start nothing of it any more; whether that is new. Raises ScheduleNotFound."""
    return cast(bool, _one(conn, "select pgflow.pause_schedule(%s, %s)", (flow_slug, name))[0])


def resume(conn: Connection, flow_slug: str, name: str) -> bool:
    """Go on with a paused one, without what it missed; whether it was paused. Raises ScheduleNotFound."""
    return cast(bool, _one(conn, "select pgflow.resume_schedule(%s, %s)", (flow_slug, name))[0])


def delete(conn: Connection, flow_slug: str, name: str) -> None:
    """Delete it; its runs stay. Raises ScheduleNotFound."""
    _one(conn, "select pgflow.delete_schedule(%s, %s)", (flow_slug, name))


def backfill(conn: Connection, flow_slug: str, name: str, times: DueTimes) -> tuple[int, int]:
    """Have runs of past times started; how many will be, and how many were or are to be anyway.

    Raises ScheduleNotFound, also for one that is paused.
    """
    query = "select asked, known from pgflow.backfill_schedule(%s, %s, %s::timestamptz[], %s::text[])"
    asked, known = _one(conn, query, (flow_slug, name, *_arrays(times)))
    return asked, known


def schedules(conn: Connection, flow_slug: str | None = None, name: str | None = None) -> list[Schedule]:
    """All of them that we may see, or those of a flow, or of a name."""
    query = f"select {', '.join(Schedule._fields)} from pgflow.schedules(%s, %s)"  # noqa: S608
    rows = conn.execute(query.encode(), (flow_slug, name)).fetchall()
    return [Schedule._make(_texts(row, Schedule._fields, "last_run_id")) for row in rows]


def input_of(conn: Connection, flow_slug: str, name: str) -> bytes:
    """The input of its runs, raw JSON."""
    row = conn.execute("select pgflow.schedule_input(%s, %s)", (flow_slug, name), binary=True).fetchone()
    return cast(bytes, row[0]) if row is not None else b"null"


def times(
    conn: Connection, flow_slug: str, name: str, *, planned: bool, most: int = 20
) -> list[ScheduledTime]:
    """The next times, or what became of the last ones, the latest first."""
    query = f"select {', '.join(ScheduledTime._fields)} from pgflow.schedule_times(%s, %s, %s, %s::int)"  # noqa: S608
    rows = conn.execute(query.encode(), (flow_slug, name, planned, most)).fetchall()
    return [ScheduledTime._make(_texts(row, ScheduledTime._fields, "run_id")) for row in rows]


def server_time(conn: Connection) -> datetime:
    """Now, by the clock that decides what is due."""
    return cast(datetime, _one(conn, "select clock_timestamp()", ())[0])


# -- what workers do ---------------------------------------------------------------------------------------


def wait(conn: Connection) -> Wait:
    """What is to be done, and when."""
    return Wait._make(_one(conn, "select is_to_plan, seconds from pgflow.schedules_wait()", ()))


def to_plan(conn: Connection) -> list[ToPlan]:
    """Schedules that soon have no times left."""
    query = "select schedule_id::text, revision, cron, time_zone, after, now from pgflow.schedules_to_plan()"
    return [ToPlan._make(row) for row in conn.execute(query).fetchall()]


def plan(conn: Connection, of: ToPlan, times: DueTimes, problem: str | None = None) -> bool:
    """Keep these times, or why there are none; False if it has changed meanwhile, or somebody was quicker."""
    query = "select pgflow.plan_schedule(%s::uuid, %s, %s, %s::timestamptz[], %s::text[], %s)"
    return cast(bool, _one(conn, query, (*of[:2], of.after, *_arrays(times), problem))[0])


def fire(conn: Connection) -> list[Fired]:
    """Start some of what is due; nothing is answered where nothing is left, or others are at it."""
    query = "select flow_slug, name, due_at, run_id::text, error from pgflow.fire_schedules()"
    return [Fired._make(row) for row in conn.execute(query).fetchall()]


def _arrays(times: DueTimes) -> tuple[list[datetime], list[str]]:
    return [at for at, _ in times], [local for _, local in times]


def _texts(row: tuple[Any, ...], names: Sequence[str], name: str) -> tuple[Any, ...]:
    """The row with an id as text."""
    i = names.index(name)
    return (*row[:i], None if row[i] is None else str(row[i]), *row[i + 1 :])


def _one(conn: Connection, query: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        row = conn.execute(query.encode(), arguments).fetchone()
    except psycopg.errors.CheckViolation as error:
        text = _CHECKS.get(error.diag.constraint_name or "", str(error).strip())
        raise InputError(text) from None
    except psycopg.Error as error:
        if error.sqlstate != _OURS or connection.is_transient(error):
            raise
        raise ScheduleNotFound(error.diag.message_primary or "", hint=error.diag.message_hint or "") from None
    return cast("tuple[Any, ...]", row)
