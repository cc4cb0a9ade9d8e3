"""The rows of an SQL query on any PostgreSQL, read by a cursor on the server: objects by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from pgflow_mp.errors import DatabaseUnavailable, InputError
from pgflow_mp.io.source import ElementBatch, ItemSource, Raw
from pgflow_mp.values.duplicates import find_duplicate

_AT_ONCE: Final = 1000


class Query(ItemSource):
    """A query that answers rows; what it answers is that of one moment, in a transaction that reads only."""

    def __init__(self, sql: str, dsn: str | Callable[[], AbstractContextManager[str]]) -> None:
        """``dsn``, or what opens the server while it is asked, and answers its connection string."""
        super().__init__("--sql")
        self._sql = sql.strip().rstrip(";")
        if not self._sql:
            raise InputError("--sql is empty", hint='Give it a query: --sql "select ...".')
        self._open = (lambda: nullcontext(dsn)) if isinstance(dsn, str) else dsn

    def parts(self) -> Iterator[tuple[list[Raw], int]]:
        import psycopg

        first = 0
        try:
            with self._open() as dsn, psycopg.connect(dsn, application_name="pgflow_mp --sql") as conn:
                conn.read_only = True
                with conn.cursor("pgflow_rows") as cursor:
                    query = f"select row_to_json(q)::text from (\n{self._sql}\n) q"  # noqa: S608 - it is to be run
                    cursor.execute(query.encode())
                    while rows := cursor.fetchmany(_AT_ONCE):
                        if first == 0 and (twice := find_duplicate(rows[0][0].encode())):
                            raise InputError(
                                f'The query of --sql has two columns "{twice.key[:60]}"',
                                hint="Name one of them otherwise: select ... as other_name.",
                            )
                        yield [row[0].encode() for row in rows], first
                        first += len(rows)
        except psycopg.OperationalError as error:
            hint = "Look at --sql-dsn, or, without one, at the server that --dsn or the environment names."
            raise DatabaseUnavailable(f"--sql: {_first_line(error)}", hint=hint) from error
        except psycopg.Error as error:
            hint = error.diag.message_hint or ""
            if isinstance(error, psycopg.errors.SyntaxError):
                hint = "It has to be one SELECT (or VALUES, WITH, TABLE) without parameters."
            raise InputError(f"The query of --sql was refused: {_first_line(error)}", hint=hint) from error

    def batch(self, part: tuple[list[Raw], int]) -> ElementBatch:
        return ElementBatch(part[0], lambda i: f"row {part[1] + i + 1} of --sql")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
