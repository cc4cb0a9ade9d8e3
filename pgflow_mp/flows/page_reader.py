"""The connection by which a process reads outputs of parents by itself, besides the one that handlers get.

Of its own, since a handler may be in the middle of a transaction on the other.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgflow_mp import libpq
from pgflow_mp.errors import ConfigError, DatabaseUnavailable, PgflowError, RunNotFound

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

PAGE_BYTES: Final = 1 << 20
"""Of a page of outputs, as stored; one that is larger is a page by itself."""
_PATIENCE: Final = 60.0  # seconds
_READ: Final = (
    "select first_index, items, bytes, piece from pgflow.output_page(%s::uuid, %s, %s::int, %s::bigint)"
)
_IS_LIMITED: Final = (
    "select coalesce(bool_or(current_setting(name, true) <> '0'), false) from unnest(%s::text[]) name"
)
_RELAX: Final = (
    "select set_config(name, '0', true) from unnest(%s::text[]) name where current_setting(name, true) <> '0'"
)
_LIMITS: Final = ["statement_timeout", "transaction_timeout"]


class Page(NamedTuple):
    """Outputs of the items from ``first`` on, as a JSON array; or the output of a step of one task."""

    first: int
    items: int
    body: bytearray

    @property
    def end(self) -> int:
        """The item after the last one."""
        return self.first + self.items


class PageReader:
    """Reads pages of outputs, for all threads; connects when it has to, and again where that is lost."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._connection: Connection[Any] | None = None
        self._is_limited = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._of_parent: Connection[Any] | None = None

    def read(self, run_id: str, step_slug: str, index: int) -> Page:
        """The page that holds the output of this item.

        Raises RunNotFound if there is none, ConfigError without a database, DatabaseUnavailable if it cannot
        be reached for a minute.
        """
        import psycopg

        if self._pid != os.getpid():  # a fork by the handler: the socket belongs to the other process
            self._of_parent, self._connection = self._connection, None
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            deadline, pause = time.monotonic() + _PATIENCE, 0.1
            while True:
                try:
                    page = self._fetch(run_id, step_slug, index)
                    break
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    lost = self._connection is None or self._connection.broken
                    self._close()
                    if not lost or time.monotonic() > deadline:
                        text = f'The outputs of step "{step_slug}" cannot be read: {error}'
                        raise DatabaseUnavailable(text) from error
                except psycopg.Error as error:
                    raise PgflowError(
                        f'The outputs of step "{step_slug}" cannot be read from item {index} on: {error}'
                    ) from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
        if page is None:
            raise RunNotFound(
                f'The outputs of step "{step_slug}" are gone from item {index} on: run {run_id} was deleted'
            )
        return page

    def close(self) -> None:
        """Close the connection, if this process has opened one."""
        if self._connection is not None and self._pid == os.getpid():
            with self._lock:
                self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _connect(self) -> Connection[Any]:
        if self._connection is None:
            if self._dsn is None:
                raise ConfigError(
                    "Outputs of parents are to be read from the database, but there is none",
                    hint="That works in tasks that a worker runs.",
                )
            self._connection = libpq.connect(
                self._dsn, autocommit=True, prepare_threshold=None, application_name="pgflow_mp outputs"
            )
            self._is_limited = self._connection.execute(_IS_LIMITED, (_LIMITS,)).fetchone() == (True,)
        return self._connection

    def _fetch(self, run_id: str, step_slug: str, index: int) -> Page | None:
        connection = self._connect()
        with connection.cursor() as cursor:
            if not self._is_limited:
                return _assembled(cursor, run_id, step_slug, index)
            with connection.transaction():
                cursor.execute(_RELAX, (_LIMITS,))
                return _assembled(cursor, run_id, step_slug, index)


def _assembled(cursor: Cursor[Any], run_id: str, step_slug: str, index: int) -> Page | None:
    """One page of its pieces, which the driver hands over one by one: none occurs twice."""
    first, items, at = 0, 0, 0
    body: bytearray | None = None
    for row in cursor.stream(_READ, (run_id, step_slug, index, PAGE_BYTES), binary=True):
        if body is None:
            first, items, body = row[0], row[1] or 0, bytearray(row[2])
        piece: bytes = row[3]
        body[at : at + len(piece)] = piece
        at += len(piece)
    return None if body is None else Page(first, items, body)
