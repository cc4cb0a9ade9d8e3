"""The methods of a client that have runs started by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, overload

import psycopg

from pgflow_mp.client import keyed_runs, schedule_calls
from pgflow_mp.client.calls import Calls
from pgflow_mp.client.schedule_calls import DEFAULT_NAME, Missed, Planned
from pgflow_mp.db import definitions
from pgflow_mp.db import schedules as stored
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import runs
from pgflow_mp.db.schedules import Schedule
from pgflow_mp.flows.flow import Flow
from pgflow_mp.values.cronlines import CronLine
from pgflow_mp.values.inputs import encode_input

if TYPE_CHECKING:
    from pgflow_mp.client.arguments import ScheduleArguments
    from pgflow_mp.flows.typed import Input


class Timetable(Calls):
    """Schedules. One is named by its flow, or as FLOW/NAME."""

    @overload
    def schedule(
        self, flow: Flow[Input], cron: str, input: Input | None = None, **how: Unpack[ScheduleArguments]
    ) -> Planned: ...

    @overload
    def schedule(
        self, flow: str, cron: str, input: object = None, **how: Unpack[ScheduleArguments]
    ) -> Planned: ...

    def schedule(
        self,
        flow: Flow[Any] | str,
        cron: str,
        input: object = None,
        *,
        time_zone: str = "UTC",
        name: str = DEFAULT_NAME,
        missed: Missed = "once",
        due_as: str | None = None,
        priority: int = 0,
    ) -> Planned:
        """Have runs of the flow started whenever the cron line says; changes the schedule of this name.

        ``input`` is theirs ({} by default), to which ``due_as`` adds a member that tells the time a run is
        for. Of times at which no worker was there the last is made up for once, all are, or none ("skip").
        Any worker of the database starts what is due. Raises FlowNotFound, InputError.
        """
        line, slug = CronLine(cron, time_zone), flow.slug if isinstance(flow, Flow) else flow
        encoded = encode_input({} if input is None else input)

        def put(conn: Connection) -> Planned:
            if isinstance(flow, Flow):
                keyed_runs.ensure_flow(conn, flow, "check")
            else:
                _check_known(conn, flow)
            return schedule_calls.put(
                *(conn, slug, line, encoded), name=name, missed=missed, priority=priority, due_as=due_as
            )

        return self._call(put)

    def schedules(self, flow: str | None = None) -> list[Schedule]:
        """All schedules, or those of a flow, with when they are due next and what became of the last time."""
        return self._call(lambda conn: stored.schedules(conn, flow))

    def backfill(self, schedule: str, span: str) -> tuple[int, int]:
        """Have runs of past times started, of ``2026-11-01..2026-11-25``, both included.

        How many will be, and how many were or will be anyway. Raises ScheduleNotFound, InputError.
        """

        def ask(conn: Connection) -> tuple[int, int]:
            found = schedule_calls.find(conn, schedule)
            due = schedule_calls.span(CronLine(found.cron, found.time_zone), span)
            return stored.backfill(conn, found.flow_slug, found.name, due)

        return self._call(ask)

    def pause_schedule(self, schedule: str) -> bool:
        """Start nothing of it any more; whether that is new. Raises ScheduleNotFound."""
        return self._call(lambda conn: stored.pause(conn, *_which(conn, schedule)))

    def resume_schedule(self, schedule: str) -> bool:
        """Go on with it, without what it missed; whether it was paused. Raises ScheduleNotFound."""
        return self._call(lambda conn: stored.resume(conn, *_which(conn, schedule)))

    def delete_schedule(self, schedule: str) -> None:
        """Delete it; its runs stay. Raises ScheduleNotFound."""
        self._call(lambda conn: stored.delete(conn, *_which(conn, schedule)))


def _which(conn: Connection, word: str) -> tuple[str, str]:
    found = schedule_calls.find(conn, word)
    return found.flow_slug, found.name


def _check_known(conn: Connection, slug: str) -> None:
    """Raise FlowNotFound, where our role may look."""
    try:
        known = runs.known_flows(conn)
    except psycopg.errors.InsufficientPrivilege:
        return
    if slug not in known:
        raise definitions.no_flow(conn, slug)
