"""The estimate that keeps results within what PostgreSQL's jsonb can hold."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest

from pgflow_mp.values.jsontext import jsonb_size


@pytest.mark.parametrize(
    "value",
    [
        [1] * 9999,
        [i / 7 for i in range(9999)],
        [[]] * 9999,
        [{"a": i, "b": 'x"'} for i in range(9999)],
        [True, False, None, -123.456] * 3333,
        [[["text, with: [commas]"]]] * 9999,
    ],
    ids=["ones", "floats", "empty", "dicts", "literals", "strings"],
)
def test_the_size_in_jsonb_is_known_before_it_is_sent(value: Any, tx: psycopg.Connection[tuple[int]]) -> None:
    body = msgspec.json.encode(value)
    row = tx.execute("SELECT pg_column_size(%s::text::jsonb)", (body.decode(),)).fetchone()
    assert row is not None
    assert 0.9 < jsonb_size(body) / row[0] < 1.1
