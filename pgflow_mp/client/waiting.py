"""Waiting for something to happen to runs, with a thread or without.

What is followed is written once, as *rounds*: a generator that reads, yields what it found, and yields a
Rest where it is to be waited before it is asked again. ``rounds_here`` waits in the calling thread, on a
connection that listens; ``client/async_waiting.py`` waits without a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Final, NamedTuple, TypeVar

import psycopg

from pgflow_mp.db import connection
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.hints import Hints
from pgflow_mp.db.keeper import Keeper, first_line
from pgflow_mp.errors import DatabaseUnavailable, WaitTimeout

PAUSES: Final = (0.05, 1.0)
"""Seconds between looks: after one that found something, and the longest."""
GROWTH: Final = 1.5
_MOST: Final = 64
"""Runs that are told apart in what is heard; of more, any event is a hint."""

T = TypeVar("T")


class Rest(NamedTuple):
    """Nothing is to be found for so many seconds, unless there is an event of the runs."""

    seconds: float


Rounds = Generator[T | Rest, None, None]


class Deadline:
    """When waiting for ``what`` is over: ``timeout`` seconds from now, or never."""

    def __init__(self, timeout: float | None, what: str) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout
        self._what = what

    def pause(self, seconds: float) -> Rest:
        """A pause that ends by then. Raises WaitTimeout where that has passed."""
        if self._at is None:
            return Rest(seconds)
        left = self._at - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"Timeout waiting for {self._what}")
        return Rest(min(seconds, left))


def until(look: Callable[[], bool], deadline: Deadline) -> Rounds[None]:
    """Rounds that end once ``look`` is true; they yield nothing but pauses."""
    while not look():
        yield deadline.pause(PAUSES[1])


def rounds_here(rounds: Rounds[T], waiter: Waiter) -> Iterator[T]:
    """What the rounds find; pauses are waited for in this thread."""
    for found in rounds:
        if isinstance(found, Rest):
            waiter.wait(found.seconds)
        else:
            yield found


def called(keeper: Keeper, work: Callable[[Connection], T]) -> T:
    """What ``work`` returns; it may be done twice. Raises DatabaseUnavailable where the keeper gives up."""
    try:
        return keeper.call(work)
    except psycopg.Error as error:
        if not connection.is_transient(error):
            raise
        raise DatabaseUnavailable(
            f"The database could not be used: {first_line(error)}",
            hint="Look at the server and the network. What was recorded is not lost.",
        ) from error


def heeded(run_ids: Collection[str]) -> Callable[[bytes], bytes | None]:
    """What of a payload on the channel of events matters to who waits for these runs."""
    runs = [run_id.encode() for run_id in run_ids]
    if len(runs) > _MOST:
        return lambda _payload: b""
    return lambda payload: b"" if any(run in payload for run in runs) else None


class Waiter:
    """Waits on the connection of a keeper for events of these runs; opened again where that is lost.

    What LISTEN hears is a hint to look. None comes through a pooler, nor while the connection is away.
    """

    def __init__(self, keeper: Keeper, run_ids: Collection[str]) -> None:
        self._keeper = keeper
        self._meaning = heeded(run_ids)
        self._hints: tuple[Connection, Hints] | None = None

    def wait(self, pause: float) -> None:
        """Wait for ``pause`` seconds, or less if there is an event."""
        until = time.monotonic() + min(pause, PAUSES[0])
        try:
            self._listen().wait(pause)
        except (psycopg.Error, OSError, DatabaseUnavailable) as error:
            self._hints = None
            if not self._keeper.passes(error):
                raise
            self._keeper.lost(error)
        if (early := until - time.monotonic()) > 0:  # whoever may log in may send events, as many as it likes
            time.sleep(early)

    def _listen(self) -> Hints:
        conn = self._keeper.connection()
        if self._hints is None or self._hints[0] is not conn:
            self._hints = conn, Hints(conn, "pgflow_events", self._meaning)
        return self._hints[1]
