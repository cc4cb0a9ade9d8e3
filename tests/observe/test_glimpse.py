"""Inputs in one line: short, of whole characters, without what commands a terminal or is secret."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pgflow_mp.observe.glimpse import MOST, named, of_raw, one_line

EVIL = "one \x1b[2J\x07\x9b31m\x7f two \u202ethree\u2066\u2028\u200b\u061c\ufeff"


def shown(value: Any, columns: int = 60, **how: Any) -> str:
    text, whole = of_raw(json.dumps(value, ensure_ascii=False, **how).encode())
    return one_line(text, columns, whole=whole)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a.gz", '"a.gz"'),
        ({"path": "a.gz", "size": 3}, '{"path": "a.gz", "size": 3}'),
        (None, "null"),
        (2**63, "9223372036854775808"),
        ("x" * 100, '"' + "x" * 56 + "..."),
        ("日" * 100, '"' + "日" * 28 + "..."),  # two columns each
        ("e\u0301" * 100, '"' + "e\u0301" * 56 + "..."),  # no accent without its letter
        ("\U0001f600" * 100, '"' + "\U0001f600" * 28 + "..."),
    ],
)
def test_a_value_is_shown_in_so_many_columns_and_whole_characters(value: Any, line: str) -> None:
    assert shown(value) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/data/" + "deep/" * 9 + "one/a.png", '".../deep/deep/deep/deep/one/a.png"'),
        ("/data of mine/" + "deep/" * 9 + "a.png", '".../deep/deep/deep/deep/deep/a.png"'),
        ("s3://bucket/" + "deep/" * 9 + "日本.png", '".../deep/deep/deep/deep/日本.png"'),
        ("data/" + "x" * 40 + ".png", '"data/' + "x" * 28 + "..."),  # no name has room
        ("either/or of " + "x" * 40, '"either/or of ' + "x" * 20 + "..."),  # no path
        ("/data/" + "\x1b/" * 20 + "a.png", '"/data/' + "\\u001b/" * 3 + "\\u001b..."),
    ],
)
def test_of_a_path_the_end_is_kept(path: str, line: str) -> None:
    assert shown(path, 37) == line


def test_no_escape_is_cut_in_two() -> None:
    for columns in range(8, 40):
        for value in ("\x1b" * 99, '"\\' * 99, "\U000e0001" * 99):
            line = shown(value, columns)
            assert len(line) <= columns
            json.loads(line.removesuffix("...") + '"')  # what is left is whole
            assert not line.removesuffix("...").endswith("\\udb40")


def test_nothing_commands_a_terminal_and_it_is_json_as_before() -> None:
    line = shown(EVIL, 400)
    assert line.isprintable()
    assert json.loads(line) == EVIL
    assert shown({EVIL: [EVIL]}, 400).isprintable()


def test_bytes_that_are_no_text_and_end_within_a_character() -> None:
    raw = b'"' + "é".encode() * 5000
    for size in (9, 10, 1599, 1600, 1605, 4095, 4096):
        text, _ = of_raw(raw[:size])
        assert set(text) <= {'"', "é"}
    assert one_line(of_raw(b"\xff\xfe{")[0]) == "{"
    assert of_raw(b"") == ("", True)


def test_passwords_are_not_shown_whether_or_not_their_end_is() -> None:
    secret = "postgresql://me:very-secret@host/db"
    assert shown({"dsn": secret}) == '{"dsn": "postgresql://me:***@host/db"}'
    for size in range(380, 420):  # the address is cut off in the password
        line = shown("x" * (size - 30) + " postgresql://me:" + "secret-" * 50, 1000)
        assert "secret-" not in line
    assert "secret" not in shown("postgresql://me:" + "secret-" * 100 + "@host/db", 1000)


def test_of_a_large_value_the_beginnings_of_its_members_are_shown() -> None:
    large = {"id": 7, "body": "y" * 10_000, "path": "a.gz", "rows": [1] * 5000, "more": {"a": "z" * 999}}
    text = '{"id": 7, "body": "yyyyyyyyyyyyyyyyyyyyyyyy...", "path": "a.gz", "rows": [...], "more": {...}}'
    assert shown(large, 200) == text
    assert shown([*range(100_000)], 30) == "[0, 1, 2, 3, 4, 5, 6, 7, 8,..."
    assert shown("y" * 100_000, 10) == '"yyyyyy...'
    assert of_raw(b"7" * 17_000_000) == ("", False)


def test_the_database_shows_the_same(tx: psycopg.Connection[tuple[Any, ...]]) -> None:
    values = [
        "a.gz", {"a": 1}, [1, 2], None, "x" * 300, "日" * 5000, "y" * 100_000, [*range(10_000)],
        {"id": 7, "body": "y" * 9000, "path": "a.gz"}, {f"k{i:03}": i for i in range(1000)}, ["z" * 300],
        [1] * 64 + ["q" * 5000], [[1] * 5000, {"a": "b" * 999}, "c"], "\x1b\x00"[:1] * 5000,
    ]  # fmt: skip
    for value in values:
        row = tx.execute("select pgflow._glimpse(%s::jsonb, %s)", (json.dumps(value), MOST)).fetchone()
        raw = tx.execute("select %s::jsonb::text", (json.dumps(value),)).fetchone()
        assert row
        assert raw
        text, whole = of_raw(raw[0].encode())
        theirs = one_line(row[0], 100, whole=len(row[0]) < MOST)
        assert theirs == one_line(text, 100, whole=whole), value


def test_errors_name_an_item_by_its_input() -> None:
    assert named("parse", 7, b'"a.gz"') == 'step "parse" task 7 ("a.gz")'
    assert named("parse", 7, b"") == 'step "parse" task 7'
