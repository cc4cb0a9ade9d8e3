"""Looks at the run that a worker serves: how far it is, and what of it is worked on or waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psycopg

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists, runs
from pgflow_mp.worker.inbox import OpenItems, RunSeen, RunsSeen

_EVERY: Final = 0.5
_DETAILS_EVERY: Final = 2.0
_DETAILS_SELDOM: Final = 10.0
_LEAST_REST: Final = 100  # rests this many times as long as a look took


class RunWatch:
    """Tells ``post`` RunSeen. ``details``: somebody wants to see what of its items is running and waiting.

    Threads: ask() is for the main loop, the rest for the one whose connection tick() gets.
    """

    def __init__(self, run_id: str | None, post: Callable[[Any], None], *, details: bool) -> None:
        self._run_id = run_id
        self._post = post
        self._details = details
        self._details_due = 0.0
        self._asked: Sequence[str] = ()
        self._open: Mapping[str, OpenItems] = {}
        self.due = 0.0 if run_id is not None else float("inf")
        """When to look again, time.monotonic()."""

    def ask(self, asked: Sequence[str]) -> None:
        """Have the status of these runs told by a RunsSeen."""
        self._asked, self.due = asked, 0.0

    def tick(self, conn: Connection) -> None:
        """Look."""
        began, run_id = time.monotonic(), self._run_id
        if asked := self._asked:
            self._asked = ()
            self._post(RunsSeen(asked, {run.run_id: run.status for run in runs.run_heads(conn, asked)}))
        if run_id is None:
            self.due = float("inf")
            return
        steps = engine.run_progress(conn, run_id)
        status = engine.run_status(conn, run_id)
        if status is None and conn.execute("select pg_is_in_recovery()").fetchone() == (True,):
            self.due = began + _EVERY
            return  # a standby that lags does not know it yet
        self.due = _next(began, _EVERY)
        if self._details and began >= self._details_due:
            self._look_closer(conn, run_id)
        self._post(RunSeen(run_id, status, steps, self._open))

    def _look_closer(self, conn: Connection, run_id: str) -> None:
        began = time.monotonic()
        try:
            steps = lists.list_steps(conn, [run_id]).get(run_id, [])
        except psycopg.errors.InsufficientPrivilege:
            self._details = False
            return
        now = time.monotonic()
        self._open = {
            step.step_slug: OpenItems(
                step.running, step.waiting, None if step.next_in is None else now + step.next_in, step.failed
            )
            for step in steps
            if step.running or step.waiting or step.failed
        }
        self._details_due = min(_next(began, _DETAILS_EVERY), now + _DETAILS_SELDOM)


def _next(began: float, every: float) -> float:
    now = time.monotonic()
    return max(began + every, now + _LEAST_REST * (now - began))
