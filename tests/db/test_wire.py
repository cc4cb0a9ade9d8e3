"""Values keep their meaning between Python and PostgreSQL, as raw bytes where they are JSON."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgflow_mp.db import wire
from pgflow_mp.db.wire import Int4Array, Int8Array, RawJson, RawJsonArray


@pytest.fixture
def wired(tx: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    wire.adapt(tx)
    return tx


@pytest.mark.parametrize("items", [[], [0], [1, -1, 2**31 - 1, -(2**31)], list(range(1000))])
def test_integers_arrive_as_they_are(wired: psycopg.Connection[Any], items: list[int]) -> None:
    assert wired.execute("select %s, pg_typeof(%s)::text", [Int4Array(items)] * 2).fetchone() == (
        items,
        "integer[]",
    )
    large = [item * 2**32 for item in items]
    assert wired.execute("select %s, pg_typeof(%s)::text", [Int8Array(large)] * 2).fetchone() == (
        large,
        "bigint[]",
    )


def test_an_integer_that_does_not_fit_is_refused_before_it_is_sent(wired: psycopg.Connection[Any]) -> None:
    with pytest.raises(Exception, match="'i' format requires"):
        wired.execute("select %s", [Int4Array([2**31])])


@pytest.mark.parametrize("binary", [False, True])
def test_json_is_loaded_as_its_text(wired: psycopg.Connection[Any], binary: bool) -> None:
    row = wired.execute("select %s", [RawJson(b'{"a": [1, null, "\xc3\xa4"]}')], binary=binary).fetchone()
    assert row == (b'{"a": [1, null, "\xc3\xa4"]}',)


def test_an_array_of_json_keeps_sql_null_apart_from_json_null(wired: psycopg.Connection[Any]) -> None:
    rows = wired.execute(
        "select e, e is null from unnest(%s) e", [RawJsonArray([b"1", None, b"null", b'"x"'])]
    ).fetchall()
    assert rows == [(b"1", False), (None, True), (b"null", False), (b'"x"', False)]
    assert wired.execute("select cardinality(%s)", [RawJsonArray([])]).fetchone() == (0,)
    texts = [b'"%s"' % (b"x" * size) for size in range(1100)]
    assert wired.execute("select %s", [RawJsonArray(texts)]).fetchone() == (texts,)


@pytest.mark.parametrize("binary", [False, True])
def test_uuids_are_text(wired: psycopg.Connection[Any], binary: bool) -> None:
    text = "0b6d1c2e-93b1-4d5f-8a39-0a1b2c3d4e5f"
    assert wired.execute("select %s::uuid", [text], binary=binary).fetchone() == (text,)
