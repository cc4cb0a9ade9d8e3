"""The first elements of an array, as a whole parse would give them, at the price of a look at them."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow_mp.values.sampling import first_elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\\\[]{},: é') | st.floats(-1, 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='",[]}'), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=6), st.integers(0, 7), st.sampled_from([None, 1]))
def test_they_are_those_of_a_whole_parse(values: list[Any], count: int, indent: int | None) -> None:
    array = json.dumps(values, indent=indent).encode()
    whole = msgspec.json.decode(array, type=list[msgspec.Raw])
    assert [element.strip() for element in first_elements(array, count)] == [bytes(raw) for raw in whole][
        :count
    ]


@pytest.mark.parametrize("element", [b"7", b'"' + b"x" * 1000 + b'"', b'{"a": [1, 2]}'])
def test_a_large_array_is_not_looked_through(element: bytes) -> None:
    array = b"[" + (element + b",") * (30_000_000 // len(element)) + element + b"]"
    began = time.process_time()
    assert first_elements(array, 100) == [element] * 100
    assert time.process_time() - began < 0.05


def test_elements_that_end_too_far_away_are_not_waited_for() -> None:
    deep = b"[[" + b"[1]," * 2_000_000 + b"1]]"
    began = time.process_time()
    assert first_elements(deep, 100) == []
    assert first_elements(b'["' + b"\\\\" * 10_000_000 + b'"]', 100) == []
    assert time.process_time() - began < 3
