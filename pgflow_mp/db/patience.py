"""Connections that do not wait for ever for a server that has fallen silent.

TCP notices a peer that is gone (keep-alives, ``tcp_user_timeout``), but not one that is there and says
nothing: a frozen proxy, a stopped server, a load balancer that forgot the connection.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import Row
from psycopg.waiting import Ready, Wait

R = TypeVar("R")

SILENCE: Final = 60.0
"""Seconds without a sign of an answer after which worker and client take a connection for dead."""


class PatientConnection(psycopg.Connection[Row]):
    """Takes itself for lost when a statement gets no sign of an answer for ``silence`` seconds.

    None: it waits for ever. Only while a statement is under way; waiting for notifications is no silence.
    Whatever the server does with the statement, it does: as after every lost connection, that is unknown.
    """

    silence: float | None = None
    pooled = False
    """Whether it leads to a pooler, so that each transaction may run in another session of the server."""
    releases_early: bool | None = None
    """Whether commits on it can release their locks early, see early_release; None: it was not asked yet."""
    relax: LiteralString | None = None
    """Behind a pooler: the statement that lifts the limits of the server's sessions for its transaction."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> psycopg.Cursor[Row]:
        """Execute a statement, without the limits of the server's session."""
        idle = self.info.transaction_status == TransactionStatus.IDLE and self._pipeline is None
        if self.relax is None or not (self.autocommit and idle):
            return super().execute(query, params, **options)
        with self.pipeline(), self.transaction():
            return super().execute(query, params, **options)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A transaction without the limits of the server's session."""
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.relax is not None:
                super().execute(self.relax)
            yield transaction

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **options: Any) -> R:
        """Wait for an answer. Raises OperationalError, and closes the connection, if it fails to come."""
        if self._pipeline is not None:
            gen = self._sending(gen)
        if self.silence is not None:
            gen = self._bounded(gen, self.silence)
        return super().wait(gen, *args, **options)

    def _sending(self, gen: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
        """``gen``, but what is unsent is sent where it would only wait for the answer.

        psycopg leaves it so in a pipeline whose last statement is larger than the buffers between us and the
        server: both would wait for ever.
        """
        try:
            wanted = next(gen)
            while True:
                unsent = wanted == Wait.R and self.pgconn.flush() == 1
                ready = yield Wait.RW if unsent else wanted
                wanted = gen.send(ready & Ready.R if unsent else ready)
        except StopIteration as stop:
            result: R = stop.value
            return result

    def _bounded(self, gen: Generator[Any, Any, R], limit: float) -> Generator[Any, Any, R]:
        """``gen`` with a look at the clock at every wake-up; psycopg wakes it up ten times a second."""
        since = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    since = now
                elif now - since > limit and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not answered for {limit:g} s")
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: R = stop.value
            return result


def lift_limits(conn: psycopg.Connection[Any]) -> None:
    """In a pipeline, after its ``begin``: lift the limits of the server's session where nobody else does."""
    if isinstance(conn, PatientConnection) and conn.relax is not None:
        conn.execute(conn.relax)


def limit_statements(conn: psycopg.Connection[Any], seconds: int) -> None:
    """Have the server end statements after so long; not behind a pooler, where others would get the limit."""
    if not (isinstance(conn, PatientConnection) and conn.pooled):
        conn.execute("select set_config('statement_timeout', %s, false)", (f"{seconds}s",))


def limit_locks(conn: psycopg.Connection[Any], seconds: float) -> None:
    """Have the server end statements that wait for a lock so long; not behind a pooler."""
    if not (isinstance(conn, PatientConnection) and conn.pooled):
        conn.execute("select set_config('lock_timeout', %s, false)", (f"{round(1000 * seconds)}ms",))


def read_only(conn: psycopg.Connection[Any]) -> None:
    """Have the server refuse to change anything; not behind a pooler."""
    if not (isinstance(conn, PatientConnection) and conn.pooled):
        conn.execute("select set_config('default_transaction_read_only', 'on', false)")


def limit(conn: psycopg.Connection[Any], silence: float | None) -> None:
    """Change how long a connection bears silence from now on."""
    if isinstance(conn, PatientConnection):
        conn.silence = silence
