"""Reading the input of a run."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow_mp.errors import InputError
from pgflow_mp.values.inputs import RunInput, encode_input, parse_json, parse_jsonl, read_input


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(text: str, data: bytes | str | None = None, **options: Any) -> InputError:
    if data is not None:
        Path(text).write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError) as caught:
        read_input(text, **options)
    return caught.value


def test_what_was_written_is_kept_byte_for_byte() -> None:
    text = '{ "a" : 1.50, "b": [1e3,\t"\\u00e9"], "c": 2 }'
    assert read_input(text) == RunInput(text.encode(), "--input")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": [1, float("nan")]}, "NaN and Infinity are not JSON (at $.a[1])"),
        (float("-inf"), "NaN and Infinity are not JSON"),
        ([{"a": "\0"}], "PostgreSQL stores no string with a NUL character (at $[0].a)"),
        ([1, object()], "Objects of type object are not JSON (at $[1])"),
        ({(1, 2): 3}, "A key of a dict is no string or number"),
        ("\ud800", "A string with a lone surrogate is not UTF-8"),
    ],
)
def test_a_value_that_json_or_postgresql_cannot_hold_is_refused_with_the_place(
    value: Any, error: str
) -> None:
    with pytest.raises(InputError) as caught:
        encode_input(value)
    assert str(caught.value) == f"The input cannot be stored as JSON: {error}"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ((n for n in (1, 2)), b"[1,2]"),
        (map(str, (1, 2)), b'["1","2"]'),
        (range(3), b"[0,1,2]"),
        ([Path("/a"), b"a"], b'["/a","YQ=="]'),
        (MappingProxyType({"a": None}), b'{"a":null}'),
        (None, b"null"),
    ],
)
def test_a_value_is_encoded_as_what_a_handler_returns(value: Any, json: bytes) -> None:
    assert encode_input(value) == json


@pytest.mark.parametrize("text", ["5", "-1.5", "true", "null", '"x"', "[]", "{}"])
def test_any_json_value_may_stand_on_the_command_line(text: str) -> None:
    assert read_input(text).json == text.encode()


def test_a_json_file_is_read_whatever_its_name() -> None:
    Path("5.txt").write_text(" [1, 2] \n")
    assert read_input("5.txt").json == b"[1, 2]"


def test_a_jsonl_file_becomes_an_array_of_its_lines() -> None:
    Path("x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n"two"\r\n3')
    found = read_input("x.jsonl")
    assert json.loads(found.json) == [{"a": 1}, "two", 3]
    assert found.items == 3


def test_an_empty_jsonl_file_is_an_empty_array() -> None:
    Path("x.ndjson").write_bytes(b"\n")
    assert read_input("x.ndjson").json == b"[]"


def test_lines_of_a_file_with_another_ending_are_read_on_request() -> None:
    Path("x.txt").write_text("1\n2\n")
    assert read_input("x.txt", jsonl=True).json == b"[1,\n2]"
    assert "--jsonl" in refused("x.txt").hint


def test_a_json_document_in_a_jsonl_file_is_recognised() -> None:
    error = refused("x.jsonl", "[\n 1,\n 2\n]\n")
    assert "x.jsonl, line 1, column 2" in str(error)
    assert ".json" in error.hint
    assert read_input("x.jsonl", jsonl=False).is_array


@pytest.mark.parametrize(("data", "items"), [(b'{"a": 1}', None), (b"[1,\n2]", None), (b"1\n2\n3\n", 3)])
def test_standard_input_is_json_or_else_lines(data: bytes, items: int | None) -> None:
    assert read_input("-", stdin=io.BytesIO(data)).items == items


def test_standard_input_that_is_neither_is_reported_as_json() -> None:
    with pytest.raises(InputError, match=r"standard input, line 2, column 1"):
        read_input("-", stdin=io.BytesIO(b'{"a": 1,\n}'))
    with pytest.raises(InputError, match="standard input is empty"):
        read_input("-", stdin=io.BytesIO(b" \n"))


def test_lines_on_standard_input_of_which_one_is_bad_are_reported_as_lines() -> None:
    for text, told in (
        ('{"a": 1}\n{"a": 2\n{"a": 3}\n', "line 2, column 8: it ends in the middle of a value"),
        ("[1]\n\n[NaN]\n", "line 3, column 2: NaN is not JSON"),
        ('1\n"\\u0000"\n', "line 2, column 2: PostgreSQL cannot store"),
    ):
        with pytest.raises(InputError) as caught:
            read_input("-", stdin=io.BytesIO(text.encode()))
        assert str(caught.value).startswith(f"standard input, {told}")


def test_line_and_column_of_an_error_are_told_with_the_place() -> None:
    error = refused("x.json", '{\n  "ä": 1,\n  "é": 1 2\n}\n')
    assert str(error).splitlines() == [
        "x.json, line 3, column 10: expected ',' or '}'",
        '      "é": 1 2',
        "             ^",
    ]


def test_the_line_of_an_error_in_jsonl_is_told() -> None:
    error = refused("x.jsonl", '{"a": 1}\n\n{"a": 1\n{"a": 3}\n')
    assert str(error).startswith("x.jsonl, line 3, column 8: it ends in the middle of a value")


def test_only_the_surroundings_of_an_error_are_shown() -> None:
    error = refused("x.json", '{"a": "' + "b" * 10_000 + '", nope}')
    assert len(str(error)) < 200
    assert "column 10011" in str(error)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "Infinity is not JSON"),
        ("[None]", "None is not JSON"),
        ("{'a': 1}", "strings need double quotes"),
        ("[1, 2", "it ends in the middle of a value"),
        ("[1, 2,]", "trailing comma"),
        ("[1] 2", "there is more after the end"),
        ('"\\u0000"', "PostgreSQL cannot store the character \\u0000"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('"\\udc00\\ud800"', "surrogate"),
        ('["\\ud800", "and more text"]', "line 1, column 3: half of a surrogate pair"),
        ("[01]", "invalid number"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_what_is_not_strict_json_is_refused(text: str, reason: str) -> None:
    assert reason in str(refused(text))


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert read_input('"\\\\u0000"').json == b'"\\\\u0000"'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("[1]".encode("utf-16"), "x.json is UTF-16"),
        (b"\x1f\x8b\x08\x00", "x.json is gzip data"),
        (b'["a\xff"]', "line 1, column 4: byte 0xff is not UTF-8"),
        (b"", "x.json is empty"),
    ],
)
def test_a_file_that_is_no_text_is_named_as_what_it_is(data: bytes, reason: str) -> None:
    assert reason in str(refused("x.json", data))


def test_a_missing_file_is_told_with_the_nearest_name() -> None:
    Path("numbers.jsonl").write_text("1\n")
    error = refused("nubmers.jsonl")
    assert str(error) == "There is no file nubmers.jsonl"
    assert error.hint == "Did you mean numbers.jsonl?"
    assert "There is no directory nowhere" in refused("nowhere/x.json").hint


def test_text_that_is_neither_file_nor_json_is_told_so() -> None:
    assert "'nonsense' is neither a file nor JSON" in str(refused("nonsense"))
    assert "directory" in str(refused("."))
    assert "--input is empty" in str(refused(""))
    assert "too long" in str(refused("x" * 5000))
    assert "null byte" in str(refused("a\0b"))


def test_quotes_that_the_shell_has_eaten_are_suspected() -> None:
    assert "single quotes" in refused("{value: 3}").hint
    assert "single quotes" in refused("[a, b]").hint
    assert "single quotes" not in refused('{"value": 3').hint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values, st.booleans())
def test_all_json_that_python_writes_is_taken_as_it_is(value: object, escape: bool) -> None:
    text = json.dumps(value, ensure_ascii=escape)
    if "\\u0000" in text or any(0xD800 <= ord(character) < 0xE000 for character in text):
        return
    assert parse_json(text.encode(), "x").json == text.encode()
    if "\n" not in text:
        assert json.loads(parse_jsonl(f"{text}\n\n{text}".encode(), "x").json) == [value, value]


@given(st.binary(max_size=40))
def test_no_input_does_anything_but_pass_or_be_refused(data: bytes) -> None:
    for parse in (parse_json, parse_jsonl):
        with contextlib.suppress(InputError):
            json.loads(parse(data, "x").json)
