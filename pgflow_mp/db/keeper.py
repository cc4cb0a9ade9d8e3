"""Keeping a connection: opened when it is needed, and again when it is lost, until told to give up.

Whoever talks to the database for longer than a moment has a Keeper: the worker's threads, its start, clients.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg

from pgflow_mp.db import connection, patience, wire
from pgflow_mp.db.connection import Backoff
from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import DatabaseError, DatabaseUnavailable

T = TypeVar("T")
_log: Final = logging.getLogger("pgflow_mp.db.connection")

CAP: Final = 5.0
"""Seconds, the longest pause between two tries."""


_PATIENCE: Final = 60.0
"""Seconds that a server has to come back which was there."""
_TROUBLE: Final = (psycopg.Error, OSError, MemoryError, DatabaseUnavailable)


class Stopped(Exception):
    """A keeper was told to give up, in the midst of trying."""


class Keeper:
    """A connection to ``dsn`` on which payloads are raw JSON (``wire.adapt``).

    ``prepare`` is called with each new connection, before anybody else has it. ``on_state`` hears what is
    being waited for, at each try, and an empty text once that is over. ``passes`` says which errors are worth
    another try; those of a connection that broke always are. It is tried for ``give_up_after`` seconds
    (None: for ever), and until ``stop`` is set: then Stopped is raised. A server that says nothing for
    ``silence`` seconds (None: ``patience.SILENCE``) is lost.

    Threads: a keeper is one thread's, or guarded by a lock, as its connection is; ``stop`` is anybody's.
    """

    def __init__(
        self,
        dsn: str,
        *,
        prepare: Callable[[Connection], object] | None = None,
        on_state: Callable[[str], object] | None = None,
        passes: Callable[[BaseException], bool] = connection.is_transient,
        give_up_after: float | None = None,
        stop: threading.Event | None = None,
        backoff: Backoff | None = None,
        silence: float | None = None,
    ) -> None:
        self._dsn = dsn
        self._prepare = prepare
        self._on_state = on_state or _nobody
        self._passes = passes
        self._give_up_after = give_up_after
        self._stop = stop or threading.Event()
        self._backoff = backoff or Backoff(cap=CAP)
        self._silence = patience.SILENCE if silence is None else silence
        self._conn: Connection | None = None
        self._waits = False  # and somebody was told so

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def begin(self) -> Connection:
        """The first connection: only a server that is starting is waited for, all else is told at once.

        One that is lost while it is prepared is opened again: that server was there.
        """
        limit = _PATIENCE if self._give_up_after is None else self._give_up_after
        until = time.monotonic() + limit
        while True:
            conn = connection.connect_when_up(self._dsn, give_up_after=limit, silence=self._silence)
            try:
                return self._keep(conn)
            except psycopg.Error as error:
                over = time.monotonic() > until or not connection.is_connection_lost(error)
                if over or self._stop.wait(self._backoff.next()):
                    raise

    def connection(self) -> Connection:
        """The connection, a new one where there is none. Raises DatabaseError, ConfigError, Stopped."""
        return self._connection(self._give_up_after)

    def current(self) -> Connection | None:
        """The connection, if there is one and it is not known to be lost."""
        return None if self._broken else self._conn

    def call(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns; it is done again, maybe on a new connection, while its errors pass.

        Whether it was done before the connection was lost is not known then: it must bear being done twice.
        Raises its last error once it was tried for long enough.
        """
        until = None if self._give_up_after is None else time.monotonic() + self._give_up_after
        self.worked()
        while True:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                result = work(self._connection(left))
            except _TROUBLE as error:
                if not self.passes(error) or (until is not None and time.monotonic() > until):
                    raise
                if connection.wants_new_connection(error) or self._broken:
                    self.close()
                self._pause(error)
            else:
                self._goes_on()
                return result

    def serve(self, work: Callable[[Connection], object]) -> None:
        """Do ``work``, which lasts, until ``stop`` is set: on a new connection after each error that passes.

        ``work`` calls ``worked()`` when something got through.
        """
        while not self._stop.is_set():
            try:
                work(self.connection())
            except _TROUBLE as error:
                if not self.passes(error):
                    raise
                self.lost(error)

    def passes(self, error: BaseException) -> bool:
        """Whether what failed so is worth another try."""
        return self._passes(error) or (self._conn is not None and self._broken)

    def lost(self, error: BaseException) -> None:
        """Give the connection up, say so, and pause. Raises Stopped."""
        self.close()
        self._pause(error)

    def worked(self) -> None:
        """Something got through: the next pause is a short one."""
        self._backoff.reset()

    def close(self) -> None:
        """Close the connection; it is opened again when it is asked for."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                conn.close()

    @property
    def _broken(self) -> bool:
        return self._conn is None or self._conn.broken or self._conn.closed

    def _connection(self, give_up_after: float | None) -> Connection:
        conn = self._conn
        if conn is not None and not self._broken:
            return conn
        self.close()

        def report(error: DatabaseError, _pause: float) -> None:
            self._waits_for(str(error))

        try:
            conn = connection.retrying(
                self._dsn,
                give_up_after=give_up_after,
                stop=self._stop,
                backoff=self._backoff,
                report=report,
                silence=self._silence,
            )
        except DatabaseUnavailable as error:
            if self._stop.is_set():
                raise Stopped from error
            raise
        return self._keep(conn)

    def _keep(self, conn: Connection) -> Connection:
        try:
            wire.adapt(conn)
            if self._prepare is not None:
                self._prepare(conn)
        except BaseException:
            conn.close()
            raise
        self._conn = conn
        self._waits = False
        self._on_state("")
        return conn

    def _waits_for(self, text: str) -> None:
        self._waits = True
        self._on_state(text)

    def _goes_on(self) -> None:
        if self._waits:
            self._waits = False
            self._on_state("")

    def _pause(self, error: BaseException) -> None:
        if not self._stop.is_set():
            self._waits_for(first_line(error))
        if self._stop.wait(self._backoff.next()):
            raise Stopped from error


def ask(
    dsn: str,
    work: Callable[[Connection], T],
    *,
    prepare: Callable[[Connection], object] | None = None,
    silence: float | None = None,
) -> T:
    """What ``work`` returns, which may be done twice, on a connection of its own.

    A server that this process has reached before is waited for, as at each end of what took hours; any other
    is told of at once. Raises as :meth:`Keeper.begin` and :meth:`Keeper.call`.
    """
    is_told = False

    def tell(trouble: str) -> None:
        nonlocal is_told
        if trouble and not is_told:
            is_told = True
            _log.warning("waiting for the database, up to %g s: %s", _PATIENCE, trouble)

    with Keeper(dsn, prepare=prepare, on_state=tell, give_up_after=_PATIENCE, silence=silence) as keeper:
        keeper.begin()
        return keeper.call(work)


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _nobody(_text: str) -> None:
    """Nobody wants to know."""
