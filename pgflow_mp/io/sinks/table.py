"""Rows into a table of PostgreSQL: an element a row, the fields of objects as columns.

An element that is no object has the one column ``value``. A table that is missing is made with types that fit
all values: bigint, numeric, double precision, boolean, text, or jsonb for arrays, objects and columns of
several kinds. One that is there has to have the columns, and PostgreSQL decides what fits their types.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pgflow_mp.errors import DatabaseUnavailable, InputError, PgflowError
from pgflow_mp.io.sinks.csvwriter import VALUE

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

MOST_COLUMNS: Final = 1600
_LONGEST: Final = 63  # bytes of a name
_NAME: Final = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([A-Za-z_][\w$]*))\s*(?:\.|$)')
_SYSTEM: Final = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
_FORBIDDEN: Final = re.compile(r"pgflow|pgmq|pg_.*|information_schema")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_EXACT: Final = 2**53
_DIGITS: Final = 15
"""That every double keeps."""


class TableName(NamedTuple):
    """A table's name, and its schema's if it was given: as PostgreSQL has them, without quotes."""

    schema: str | None
    table: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Of ``name``, ``schema.name``, ``"A Name"``; without quotes in lower case, as in SQL. InputError."""
        parts: list[str] = []
        at = 0
        while at < len(text) and (found := _NAME.match(text, at)):
            parts.append(found[1].replace('""', '"') if found[1] else found[2].lower())
            at = found.end()
        if at < len(text) or not 1 <= len(parts) <= 2 or text.rstrip().endswith("."):
            shown = (
                "What follows the # of --into" if set(text) & set("@/:?") else repr(text)
            )  # or of a password
            raise InputError(
                f"{shown} is not the name of a table", hint='As in SQL: rows, results.rows, or "My Rows".'
            )
        for part in parts:
            if len(part.encode()) > _LONGEST:
                raise InputError(f"The name {part!r} is longer than {_LONGEST} bytes", hint="Shorten it.")
        schema = parts[0] if len(parts) == 2 else None
        if schema is not None and _FORBIDDEN.fullmatch(schema):
            raise InputError(f"Nothing is written into the schema {schema}", hint="Name another one.")
        return cls(schema, parts[-1])

    @property
    def quoted(self) -> sql.Identifier:
        """As it is written in statements."""
        from psycopg import sql

        return sql.Identifier(*([self.table] if self.schema is None else [self.schema, self.table]))

    def __str__(self) -> str:
        return self.table if self.schema is None else f"{self.schema}.{self.table}"


def columns_of(conn: psycopg.Connection[Any], name: TableName) -> dict[str, str] | None:
    """Its columns with their types; None where there is no such table. InputError if it is no table."""
    row = conn.execute(
        "select c.oid, c.relkind::text, n.nspname from pg_catalog.pg_class c "
        "join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass(%s)",
        (name.quoted.as_string(conn),),
    ).fetchone()
    if row is None:
        return None
    if row[1] not in ("r", "p"):
        raise InputError(f"{name} is not a table", hint="Name a table, or one that is not there yet.")
    if _FORBIDDEN.fullmatch(row[2]):
        raise InputError(f"Nothing is written into the schema {row[2]}", hint="Name another table.")
    rows = conn.execute(
        "select attname, format_type(atttypid, null) from pg_catalog.pg_attribute "
        "where attrelid = %s and attnum > 0 and not attisdropped order by attnum",
        (row[0],),
    ).fetchall()
    return dict(rows)


class TableSink:
    """Keeps elements in ``spool``, and copies them in one transaction when the types of all columns are
    known."""

    def __init__(self, conn: psycopg.Connection[Any], name: TableName, spool: IO[bytes]) -> None:
        self._conn = conn
        self._name = name
        self._spool = spool
        self._kinds: dict[str, set[str]] = {}
        self._rows = 0

    def write(self, element: bytes) -> None:
        self._spool.write(element + b"\n")
        self._rows += 1
        kinds = self._kinds
        for field, raw in _fields(element):
            known = kinds.get(field)
            if known is None:
                known = kinds[field] = set()
                _check_column(field, len(kinds))
            known.add(_kind(raw))

    def finish(self) -> None:
        """Write all rows, or none. Raises InputError for columns that the table lacks, PgflowError."""
        import psycopg

        try:
            with self._conn.transaction():
                types = self._types()
                self._copy(types)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(
                f"--into {self._name}: {_first_line(error)}", hint="Nothing was written: try it again."
            ) from error
        except psycopg.Error as error:
            where = (error.diag.context or "").splitlines()[:1]
            place = f" ({where[0][:200]})" if where else ""
            raise PgflowError(
                f"--into {self._name}: {_first_line(error)}{place}", hint="Nothing was written."
            ) from error

    def _types(self) -> dict[str, str]:
        """The columns to fill, with their types; makes the table where it is missing."""
        from psycopg import sql

        wanted = list(self._kinds) or [VALUE]
        known = columns_of(self._conn, self._name)
        if known is not None:
            if not self._kinds:
                return {}
            if lost := [field for field in wanted if field not in known]:
                raise InputError(
                    f"--into {self._name}: the table has no column {', '.join(map(repr, lost[:5]))}; "
                    f"it has {', '.join(list(known)[:20])}",
                    hint="Pick what it has with --fields, or name a table that is not there yet.",
                )
            return {field: known[field] for field in wanted}
        types = {field: _type_of(self._kinds.get(field, set())) for field in wanted}
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(field), sql.SQL(type)) for field, type in types.items()
        ]
        self._conn.execute(
            sql.SQL("create table {} ({})").format(self._name.quoted, sql.SQL(", ").join(columns))
        )
        return types

    def _copy(self, types: dict[str, str]) -> None:
        from psycopg import sql

        if not self._rows:
            return
        columns = sql.SQL(", ").join(map(sql.Identifier, types or [VALUE]))
        statement = sql.SQL("copy {} ({}) from stdin").format(self._name.quoted, columns)
        as_json = {field for field, type in types.items() if type in ("json", "jsonb")}
        self._spool.seek(0)
        with self._conn.cursor() as cursor, cursor.copy(statement) as copy:
            for line in self._spool:
                found = dict(_fields(line[:-1]))
                copy.write_row([_cell(found.get(field), field in as_json) for field in types or [VALUE]])


def _fields(element: bytes) -> Iterable[tuple[str, bytes]]:
    if element[:1] == b"{":
        return [(name, bytes(raw)) for name, raw in _OBJECT.decode(element).items()]
    return [] if element == b"null" else [(VALUE, element)]


def _cell(raw: bytes | None, as_json: bool) -> str | None:
    if raw is None or raw == b"null":
        return None
    return _TEXT.decode(raw) if raw[:1] == b'"' and not as_json else raw.decode()


def _kind(raw: bytes) -> str:
    """null, bool, text, json; int, long (more than a double keeps), huge (than a bigint), float, decimal."""
    first = raw[:1]
    if first == b'"':
        return "text"
    if first in b"{[":
        return "json"
    if first in b"tfn":
        return "null" if first == b"n" else "bool"
    if raw.removeprefix(b"-").isdigit() and len(raw) <= 20:
        value = int(raw)
        if abs(value) <= _EXACT:
            return "int"
        if -(2**63) <= value < 2**63:
            return "long"
    if len(raw) <= _DIGITS or Decimal(raw.decode()) == Decimal(repr(float(raw))):
        return "float"
    return "huge" if raw.removeprefix(b"-").isdigit() else "decimal"


def _type_of(kinds: set[str]) -> str:
    kinds = kinds - {"null"}
    if kinds <= {"text"}:
        return "text"
    if kinds == {"bool"}:
        return "boolean"
    if kinds <= {"int", "long"}:
        return "bigint"
    if kinds <= {"int", "float"}:
        return "double precision"
    return "numeric" if kinds <= {"int", "long", "huge", "float", "decimal"} else "jsonb"


def _check_column(field: str, count: int) -> None:
    """Raise InputError for what cannot be the name of a column."""
    if count > MOST_COLUMNS:
        raise InputError(
            f"The items have more than {MOST_COLUMNS:,} different fields, too many for a table",
            hint="Pick some with --fields, or write lines of JSON: --output rows.jsonl.",
        )
    if not field or len(field.encode()) > _LONGEST or field in _SYSTEM:
        raise InputError(
            f"No column of PostgreSQL can be called {field!r}",
            hint=f"Names have 1 to {_LONGEST} bytes. Pick other fields with --fields.",
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
