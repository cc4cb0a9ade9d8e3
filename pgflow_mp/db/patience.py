"""Connections that do not wait for ever for a server that has fallen silent.

TCP notices a peer that is gone (keep-alives, ``tcp_user_timeout``), but not one that is there and says
nothing: a frozen proxy, a stopped server, a load balancer that forgot the connection.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

R = TypeVar("R")

SILENCE: Final = 60.0
"""Seconds without a sign of an answer after which worker and client take a connection for dead."""


class PatientConnection(psycopg.Connection[Row]):
    """Takes itself for lost when a statement gets no sign of an answer for ``silence`` seconds.

    None: it waits for ever. Only while a statement is under way; waiting for notifications is no silence.
    Whatever the server does with the statement, it does: as after every lost connection, that is unknown.
    """

    silence: float | None = None

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **options: Any) -> R:
        """Wait for an answer. Raises OperationalError, and closes the connection, if it fails to come."""
        if self.silence is not None:
            gen = self._bounded(gen, self.silence)
        return super().wait(gen, *args, **options)

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


def limit(conn: psycopg.Connection[Any], silence: float | None) -> None:
    """Change how long a connection bears silence from now on."""
    if isinstance(conn, PatientConnection):
        conn.silence = silence
