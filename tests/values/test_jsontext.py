"""What is said of JSON text does not depend on where it is cut into pieces."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgflow_mp.values import jsontext

parts = st.sampled_from(['"', "\\", "a", "é", "😀", "\0", "u0000", ":", "[", "{", ",", "5"])
texts = st.lists(parts, max_size=20).map("".join)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def count(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(count, value.values()))
    return sum(map(count, value)) if isinstance(value, list) else 0


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(values, st.booleans(), st.integers(7, 20))
def test_pieces_are_cut_between_escapes(value: Any, ascii: bool, size: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontext, "_PIECE", size)
        assert b"".join(piece for _, piece in jsontext.pieces(text)) == text
        nul = re.search(rb"(?<!\\)(?:\\\\)*(\\u0000)", text)
        assert jsontext.find_nul(text) == (nul.start(1) if nul else -1)
        outside = b"".join(jsontext.outside_strings(text))
        assert outside == re.sub(rb'"(?:[^"\\]|\\.)*"', b"s", text)
        assert jsontext.members(text) == count(value)
        assert jsontext.invalid_utf8(text) == -1
        assert jsontext.characters(text, 0, len(text)) == len(text.decode())


@pytest.mark.parametrize("at", [0, 5, 6, 7, 8, 20])
def test_a_byte_that_is_not_utf8_is_found(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "_PIECE", 7)
    text = "é".encode() * 20
    assert jsontext.invalid_utf8(text[: at * 2] + b"\xff" + text[at * 2 :]) == at * 2
    assert jsontext.invalid_utf8(text + b"\xc3") == len(text)


def test_the_digits_of_long_numbers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "_PIECE", 7)
    text = b'["' + b"1" * 50 + b'",' + b"2" * 30 + b",-0.5e7]"
    assert jsontext.has_longer_number(text, 29)
    assert not jsontext.has_longer_number(text, 30)
