"""results --into DSN#TABLE: rows into a table of any PostgreSQL, all of them or none."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgflow_mp.cli.parser import UsageError
from pgflow_mp.errors import DatabaseError, InputError
from pgflow_mp.io.sinks.table import TableName, TableSink, columns_of
from pgflow_mp.redaction import redact

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class TableTarget:
    """A table, and the connection string of its database; None: that of the run."""

    dsn: str | None
    table: TableName

    @classmethod
    def parse(cls, text: str) -> TableTarget:
        """``postgresql://...#table`` or ``#table``. Raises UsageError, InputError, ConfigError."""
        from pgflow_mp.db import connection

        dsn, mark, table = text.rpartition("#")
        if not mark or not table.strip():
            raise UsageError(
                f"--into {redact(text)} names no table",
                hint="Give DSN#TABLE, as in postgresql://user@host/database#rows; #rows is one in the run's "
                "database.",
            )
        found = connection.discover_dsn(dsn) if dsn.strip() else None
        if found is not None:
            connection.parse(found)
        return cls(found, TableName.parse(table))

    @contextlib.contextmanager
    def open(self, dsn: str, place: str) -> Iterator[OpenTable]:
        """Connected, and seen to be fit. ``dsn`` is the run's, ``place`` the server's in words.

        Raises DatabaseError, InputError.
        """
        from pgflow_mp.db import fitness

        with self._connect(dsn) as conn:
            conn.execute("reset search_path")  # theirs, not ours
            fitness.check_writable(conn)
            if columns_of(conn, self.table) is None:
                _check_may_create(conn, self.table, place)
            with tempfile.TemporaryFile() as spool:
                yield OpenTable(TableSink(conn, self.table, spool), f"{self.table} at {place}")

    def _connect(self, dsn: str) -> psycopg.Connection[Any]:
        from pgflow_mp.db import connection

        try:
            return connection.connect_when_up(self.dsn or dsn)
        except DatabaseError as error:
            error.hint = "Look at the connection string of --into, and at that server."
            raise


@dataclass(frozen=True)
class OpenTable:
    """What takes rows, and what to call it: without secrets."""

    sink: TableSink
    name: str


def _check_may_create(conn: psycopg.Connection[Any], table: TableName, place: str) -> None:
    row = conn.execute(
        "select n.nspname, has_schema_privilege(n.oid, 'create') from pg_catalog.pg_namespace n "
        "where n.nspname = coalesce(%s, current_schema())",
        (table.schema,),
    ).fetchone()
    if row is None:
        name = "no schema to make tables in" if table.schema is None else f"no schema {table.schema}"
        raise InputError(
            f"--into {table}: there is {name} in {place}", hint="Create it first, or name another one."
        )
    if not row[1]:
        raise InputError(
            f"--into {table}: there is no such table, and none may be made in the schema {row[0]} of {place}",
            hint=f"Its owner can allow it: grant create on schema {row[0]} to {conn.info.user};",
        )
