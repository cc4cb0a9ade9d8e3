"""Runs that are started by the clock: what a schedule is made of, from the command line and from Python."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from pgflow_mp.db import schedules
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.starting import check_priority
from pgflow_mp.errors import InputError, ScheduleNotFound
from pgflow_mp.values.cronlines import CronLine, Due

Missed = Literal["skip", "once", "all"]
MISSED: Final = ("skip", "once", "all")
DEFAULT_NAME: Final = "default"
_SHOWN: Final = 5


class Planned(msgspec.Struct, frozen=True):
    """A schedule that was made (``is_new``) or changed; ``next`` are its next times, in its time zone."""

    flow: str
    name: str
    cron: str
    time_zone: str
    is_new: bool
    next: list[str]


def address(flow_slug: str, name: str) -> str:
    """How a schedule is named: FLOW, or FLOW/NAME."""
    return flow_slug if name == DEFAULT_NAME else f"{flow_slug}/{name}"


def with_time(input: bytes, due_as: str | None, due: Due) -> bytes:
    """The input that a run of this time gets. Raises InputError for an input that has no room for it."""
    if due_as is None:
        return input
    found: Any = msgspec.json.decode(input)
    if not isinstance(found, dict):
        raise InputError(
            f"The time cannot be the member {due_as!r} of the input, which is not an object",
            hint='Give an input such as \'{"region": "eu"}\', or leave the time out.',
        )
    return msgspec.json.encode({**found, due_as: due.local})


def put(
    conn: Connection,
    flow_slug: str,
    line: CronLine,
    input: bytes,
    *,
    name: str = DEFAULT_NAME,
    missed: Missed = "once",
    priority: int = 0,
    due_as: str | None = None,
) -> Planned:
    """Make the schedule of this name, or change it. ``input`` is raw JSON. Raises InputError."""
    check_priority(priority)
    if missed not in MISSED:
        raise InputError(f"missed must be one of {', '.join(MISSED)}, not {missed!r}")
    now = schedules.server_time(conn)
    times = line.plan(now, now)
    with_time(input, due_as, times[0])
    is_new = schedules.set_schedule(
        *(conn, flow_slug, name, line.line, line.time_zone, input, times),
        missed=missed,
        priority=priority,
        due_as=due_as,
    )
    return Planned(flow_slug, name, line.line, line.time_zone, is_new, [due.local for due in times[:_SHOWN]])


def find(conn: Connection, word: str) -> schedules.Schedule:
    """The schedule that is named FLOW/NAME, or FLOW: its default one, or the only one.

    Raises ScheduleNotFound.
    """
    flow_slug, _, name = word.partition("/")
    there = schedules.schedules(conn, flow_slug)
    wanted = [each for each in there if each.name == (name or DEFAULT_NAME)]
    if not wanted and not name and len(there) == 1:
        return there[0]
    if wanted:
        return wanted[0]
    names = [address(each.flow_slug, each.name) for each in there or schedules.schedules(conn)]
    raise ScheduleNotFound(
        f'There is no schedule "{word}" in this database'
        if name or not there
        else f'Flow "{flow_slug}" has several schedules',
        hint=f"Schedules there: {', '.join(names[:10]) or 'none'}.",
    )


def span(line: CronLine, text: str) -> list[Due]:
    """The times from FROM to TO, both included, of FROM..TO, until now at most. Raises InputError."""
    from datetime import UTC, datetime

    first, dots, last = text.partition("..")
    if not dots or not first:
        raise InputError(f"{text!r} is not a span of time", hint="For example: 2026-11-01..2026-11-26")
    now, begin = datetime.now(UTC), line.moment(first)
    end = line.moment(last, last=True) if last else now
    if end < begin:
        raise InputError(f"The span {text} ends before it begins")
    return line.between(begin, min(end, now))
