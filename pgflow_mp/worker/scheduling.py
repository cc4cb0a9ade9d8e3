"""What a worker does for schedules: computes their times ahead, and has the server start what is due.

Any number of workers do it, for the whole database: the server starts each time once, by its clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from pgflow_mp.db import connection, schedules
from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import InputError
from pgflow_mp.observe.text import shorten
from pgflow_mp.redaction import printable
from pgflow_mp.values.cronlines import CronLine
from pgflow_mp.worker.inbox import Said

_LOOK_EVERY: Final = 5.0  # seconds at most until a new schedule is noticed
_LEAST: Final = 0.05
_AFTER_ERROR: Final = 60.0


class Scheduling:
    """Belongs to the thread that does upkeep. ``due`` is when it is to be called next, time.monotonic()."""

    def __init__(self, post: Callable[[Any], None]) -> None:
        self._post = post
        self.due = 0.0

    def tick(self, conn: Connection) -> None:
        """Do what is to be done now. Errors that pass by themselves are raised."""
        try:
            seconds = self._do(conn)
        except psycopg.errors.InsufficientPrivilege:  # of a role that may only do some of what workers do
            seconds = _AFTER_ERROR
        except psycopg.Error as error:
            if conn.broken or connection.passes_by_itself(error):
                raise
            text = str(error).partition("\n")[0]
            self._post(Said("warn", f"scheduled runs could not be started: {text}"))
            seconds = _AFTER_ERROR
        self.due = time.monotonic() + seconds

    def _do(self, conn: Connection) -> float:
        wait = schedules.wait(conn)
        if wait.is_to_plan:
            for of in schedules.to_plan(conn):
                self._plan(conn, of)
            wait = schedules.wait(conn)
        if wait.seconds is not None and wait.seconds <= 0:
            if fired := schedules.fire(conn):
                for each in fired:
                    self._tell(each)
                return 0.0
            return 1.0  # somebody else is at it
        return min(_LOOK_EVERY, _LOOK_EVERY if wait.seconds is None else max(_LEAST, wait.seconds))

    def _plan(self, conn: Connection, of: schedules.ToPlan) -> None:
        try:
            found = CronLine(of.cron, of.time_zone).plan(of.after, of.now)
        except InputError as error:
            schedules.plan(conn, of, (), str(error))
        else:
            schedules.plan(conn, of, found)

    def _tell(self, fired: schedules.Fired) -> None:
        name = printable(f"{fired.flow_slug}/{fired.name}")
        what = f"schedule {name}, due at {fired.due_at:%Y-%m-%d %H:%M %Z}"
        if fired.error is None:
            self._post(Said("info", f"started run {fired.run_id} of {what}"))
        else:
            self._post(Said("warn", f"no run was started for {what}: {shorten(fired.error, 300)}"))
