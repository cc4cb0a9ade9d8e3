"""Rows into tables of PostgreSQL: types, names, what fits and what does not, and all or nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from database_server import DatabaseServer

from pgflow_mp.errors import InputError, PgflowError
from pgflow_mp.io.sinks.table import TableName, TableSink, columns_of

Connection = psycopg.Connection[tuple[Any, ...]]
HOSTILE = 'a "quoted", text\r\nof \\N lines\n\t\\. and ünï 漢 🎈'


@pytest.fixture(scope="module")
def db(server: DatabaseServer) -> Iterator[Connection]:
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def write(db: Connection, name: str, items: list[Any], raw: bytes | None = None) -> list[tuple[Any, ...]]:
    sink = TableSink(db, TableName.parse(name), io.BytesIO())
    for item in items:
        sink.write(msgspec.json.encode(item))
    if raw is not None:
        sink.write(raw)
    sink.finish()
    return db.execute(b"select * from " + name.encode()).fetchall()


def types(db: Connection, name: str) -> dict[str, str] | None:
    return columns_of(db, TableName.parse(name))


def test_a_missing_table_is_made_with_types_that_keep_everything(db: Connection) -> None:
    items = [
        {
            "i": -(2**63),
            "u": 2**63,
            "f": 0.1,
            "s": HOSTILE,
            "b": True,
            "j": {"a": [1, "é"]},
            "m": 1,
            "n": None,
        },
        {"i": 2**63 - 1, "u": 1, "f": 5e-324, "s": "", "b": False, "j": [], "m": "x", "n": None},
        {"i": None, "u": None, "f": None, "s": None, "b": None, "j": None, "m": None, "n": None},
        {"f": 7, "s": "\\N"},
        None,
    ]
    found = write(db, "made", items)
    assert types(db, "made") == {
        "i": "bigint", "u": "numeric", "f": "double precision", "s": "text", "b": "boolean", "j": "jsonb",
        "m": "jsonb", "n": "text",
    }  # fmt: skip
    assert found == [
        (-(2**63), Decimal(2**63), 0.1, HOSTILE, True, {"a": [1, "é"]}, 1, None),
        (2**63 - 1, Decimal(1), 5e-324, "", False, [], "x", None),
        (None,) * 8,
        (None, None, 7.0, "\\N", None, None, None, None),
        (None,) * 8,
    ]
    assert write(db, "digits", [], b'{"n": 1.10, "m": 123456789012345678901234567890.5}') == [
        (1.1, Decimal("123456789012345678901234567890.5"))
    ]
    assert write(db, "mixed", [{"n": 2**53 + 1}, {"n": 0.5}]) == [(Decimal(2**53 + 1),), (Decimal("0.5"),)]
    assert write(db, "huge", [1.5e300]) == [(1.5e300,)]
    assert write(db, "plain", [3, None]) == [(3,), (None,)]
    assert write(db, "nothing", []) == []
    assert types(db, "nothing") == {"value": "text"}


def test_a_table_that_is_there_is_appended_to_where_it_has_the_columns(db: Connection) -> None:
    db.execute(
        "create table days (id int generated always as identity, day date, n float4, doc json, tag text)"
    )
    items: list[Any] = [{"day": "2026-01-31", "n": 1, "doc": "text", "tag": 5}, {"tag": ["x"]}]
    write(db, "days", items)
    assert write(db, "days", [{"n": None}]) == [
        (1, date(2026, 1, 31), 1.0, "text", "5"),
        (2, None, None, None, '["x"]'),
        (3, None, None, None, None),
    ]
    with pytest.raises(InputError, match="the table has no column 'more'; it has id, day, n, doc, tag"):
        write(db, "days", [{"n": 1, "more": 2}])
    with pytest.raises(
        PgflowError, match=r"invalid input syntax for type date.*line 2, column day"
    ) as caught:
        write(db, "days", [{"day": "2026-01-01"}, {"day": "soon"}])
    assert "Nothing was written" in caught.value.hint
    assert db.execute("select count(*) from days").fetchone() == (3,)


def test_a_table_that_cannot_be_filled_is_not_made_either(db: Connection) -> None:
    sink = TableSink(db, TableName.parse("half"), io.BytesIO())
    sink.write(b'"fine"')
    sink._spool.write(b'"\\udead"\n')  # what no text of PostgreSQL can be
    with pytest.raises((PgflowError, ValueError)):
        sink.finish()
    assert types(db, "half") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rows", (None, "rows")),
        ('"My ""Rows"', (None, 'My "Rows')),
        (' results . "T.x" ', ("results", "T.x")),
        ("a$1", (None, "a$1")),
    ],
)
def test_names_are_those_of_sql(db: Connection, text: str, expected: tuple[str | None, str]) -> None:
    name = TableName.parse(text)
    assert tuple(name) == expected
    if name.schema is None:
        sink = TableSink(db, name, io.BytesIO())
        sink.write(b"1")
        sink.finish()
        assert columns_of(db, name) == {"value": "bigint"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b.c",
        "a b",
        "a;drop table x",
        '"',
        "1a",
        "a.",
        "x" * 64,
        "pgflow.runs",
        "pg_catalog.x",
        "PGMQ.q",
    ],
)
def test_names_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        TableName.parse(text)


def test_a_part_of_a_password_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        TableName.parse("secret@host/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("field", ["", "x" * 64, "ctid"])
def test_fields_that_can_be_no_columns_are_refused(db: Connection, field: str) -> None:
    with pytest.raises(InputError, match="No column of PostgreSQL can be called"):
        write(db, "odd", [{field: 1}])
    assert types(db, "odd") is None


def test_what_is_no_table_is_refused_and_fields_may_be_called_anything_else(db: Connection) -> None:
    db.execute("create view shown as select 1 as value")
    with pytest.raises(InputError, match="shown is not a table"):
        write(db, "shown", [1])
    with pytest.raises(InputError, match="more than 1,600 different fields"):
        write(db, "wide", [{f"f{n}": 1 for n in range(1601)}])
    names = ['a"b', "select", "A", "a", "ü", "x; drop table made", "%s", "{}"]
    assert write(db, "quoted", [dict.fromkeys(names, 1)]) == [(1,) * len(names)]
    assert list(types(db, "quoted") or {}) == names
