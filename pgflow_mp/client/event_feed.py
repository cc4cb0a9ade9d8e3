"""Events of runs: what happened to them and their steps, in order, each once.

They are read from the tables, so none is lost while nobody listened: to a connection that was cut, a server
that was started again, a run that was retried between two looks. What is announced is a hint to look, and
no more.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Collection, Generator, Iterator
from datetime import datetime
from typing import Final

import msgspec

from pgflow_mp.client.waiting import GROWTH, PAUSES, Deadline, Rounds, called
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.reads import run_events
from pgflow_mp.db.reads.run_events import EventRow
from pgflow_mp.errors import WHY_NO_RUN, InputError, RunNotFound

_VERSION: Final = 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A run, or one of its steps, came to have a status at that time.

    ``step`` is None for the run itself. ``status``: started, completed, failed; of steps also skipped. A run
    that is retried is started again, and so are its steps.
    """

    run: str
    flow: str
    step: str | None
    status: str
    at: datetime

    @property
    def type(self) -> str:
        """``run:completed``, ``step:started``: the name that pgflow's clients give it."""
        return f"{'run' if self.step is None else 'step'}:{self.status}"


class _Cursor(msgspec.Struct, array_like=True):
    """How many events of which run and step were had."""

    version: int
    had: dict[bytes, dict[str, int]]


class EventLog:
    """Which events of some runs were had; ``look`` answers those that were not.

    In the order of their times, except that no event comes before one of the same run or step that led to
    it. ``cursor`` is of an earlier log. ``over``: whether all runs had ended as of the last look. Raises
    InputError for what is no cursor, or that of other runs.
    """

    def __init__(self, run_ids: Collection[str], cursor: str | None = None) -> None:
        self.run_ids: list[str] = list(dict.fromkeys(run_ids))
        self.over: bool = False
        self._had: dict[str, dict[str, int]] = {} if cursor is None else _read(cursor)
        if extra := self._had.keys() - set(self.run_ids):
            raise InputError(
                f"since is the cursor of events of another run, {min(extra)}",
                hint="Give the cursor of an earlier events() of the same runs.",
            )

    @property
    def cursor(self) -> str:
        """Where to go on after all that ``take`` has taken: text for ``since``."""
        had = {uuid.UUID(run).bytes: steps for run, steps in self._had.items()}
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(_Cursor(_VERSION, had))).decode().rstrip("=")

    def look(self, conn: Connection) -> list[Event]:
        """Events that were not taken. Raises RunNotFound."""
        rows = run_events.run_events(conn, self.run_ids)
        if missing := set(self.run_ids) - {row.run_id for row in rows}:
            raise RunNotFound(f"There is no run {min(missing)} in this database", hint=WHY_NO_RUN)
        ends = {row.run_id: row for row in sorted(rows, key=_place) if row.step_slug is None}
        self.over = all(row.status != "started" for row in ends.values())
        new = [row for row in rows if row.place > self._had.get(row.run_id, {}).get(row.step_slug or "", 0)]
        return [_event(row) for row in _in_order(new)]

    def deadline(self, timeout: float | None) -> Deadline:
        """When there is to be no more waiting for them, as WaitTimeout says it."""
        first, more = self.run_ids[0] if self.run_ids else "", len(self.run_ids) - 1
        return Deadline(timeout, f"events of run {first}" + (f" and {more} more" if more > 0 else ""))

    def take(self, event: Event) -> None:
        """It was had."""
        steps = self._had.setdefault(event.run, {})
        steps[event.step or ""] = steps.get(event.step or "", 0) + 1


def _place(row: EventRow) -> int:
    return row.place


def _in_order(rows: list[EventRow]) -> list[EventRow]:
    """By time, but within a run or step by place: clocks, and transactions that wait, let times go back.

    What happened at one moment: the beginning of a run first, then steps as they are defined, then its end.
    """
    latest: dict[tuple[str, str | None], datetime] = {}
    keyed = []
    for row in sorted(rows, key=_place):
        whose = (row.run_id, row.step_slug)
        at = latest[whose] = max(row.at, latest.get(whose, row.at))
        rank = 1 if row.step_slug is not None else 0 if row.status == "started" else 2
        keyed.append(((at, rank, row.step_index or 0, row.place), row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def _event(row: EventRow) -> Event:
    return Event(run=row.run_id, flow=row.flow_slug, step=row.step_slug, status=row.status, at=row.at)


def _read(cursor: str) -> dict[str, dict[str, int]]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = msgspec.msgpack.decode(raw, type=_Cursor)
        if found.version != _VERSION:
            raise ValueError
        return {str(uuid.UUID(bytes=run)): steps for run, steps in found.had.items()}
    except (ValueError, TypeError):
        raise InputError(
            f"since={cursor!r} is not the cursor of events", hint="Give the cursor of an earlier events()."
        ) from None


class Events(Iterator[Event]):
    """An iterator over events, which waits for those to come.

    ``cursor`` is where to go on after the last one that it gave: give it to ``events`` as ``since``, also
    in another process. ``close()`` ends it.
    """

    def __init__(self, log: EventLog, found: Generator[Event, None, None]) -> None:
        self._log = log
        self._found = found

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        return next(self._found)

    @property
    def cursor(self) -> str:
        """Where to go on."""
        return self._log.cursor

    def close(self) -> None:
        """End it."""
        self._found.close()


def event_rounds(keeper: Keeper, log: EventLog, deadline: Deadline, *, follow: bool) -> Rounds[list[Event]]:
    """Rounds of new events, until the runs have ended; not to ``follow`` them: those that there are.

    Whoever uses one tells the log: ``log.take``.
    """
    pause = PAUSES[0]
    while True:
        found = called(keeper, log.look)
        if found:
            yield found
        if log.over or not follow:
            return
        pause = PAUSES[0] if found else min(PAUSES[1], GROWTH * pause)
        yield deadline.pause(pause)
