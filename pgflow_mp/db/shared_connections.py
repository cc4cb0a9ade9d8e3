"""A few connections that many share: one is lent for each reading (extra ``web``: psycopg-pool).

Threads: whoever asks is lent a connection of their own; the pool has threads that open and close them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from pgflow_mp.db import connection, patience, wire
from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import DatabaseUnavailable


class _Shared(psycopg.Connection[Any]):
    """What the pool is told to open: a connection as all of ours are."""

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Any:
        return connection.connect(conninfo, **options)


class SharedConnections:
    """At most ``most`` connections to a database, opened when they are needed.

    Unless it ``writes``, nothing can be changed on them. ``seconds``: how long a statement may take. Behind a
    pooler, where sessions are others', both are left to the role.
    """

    def __init__(self, dsn: str, *, most: int = 4, seconds: int = 30, writes: bool = False) -> None:
        self._seconds = seconds
        self._writes = writes
        self._pool: ConnectionPool[Any] = ConnectionPool(
            dsn,
            connection_class=_Shared,
            kwargs={"application_name": "pgflow_mp web", "silence": patience.SILENCE},
            min_size=0,
            max_size=most,
            max_idle=60.0,
            timeout=5.0,
            reconnect_timeout=1.0,
            configure=self._prepare,
            check=ConnectionPool.check_connection,
            open=False,
            name="pgflow-shared",
        )

    def open(self) -> None:
        """Begin; nothing is connected yet."""
        self._pool.open()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close(timeout=2.0)

    @contextlib.contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection for the length of a ``with`` block. Raises DatabaseUnavailable."""
        try:
            with self._pool.connection() as conn:
                yield conn
        except PoolTimeout as error:
            raise DatabaseUnavailable(
                "The database cannot be reached, or all connections are in use",
                hint="Look at the server and the network.",
            ) from error

    def _prepare(self, conn: Connection) -> None:
        wire.adapt(conn)
        patience.limit_statements(conn, self._seconds)
        if not self._writes:
            patience.read_only(conn)
