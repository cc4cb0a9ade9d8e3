"""What ``run()`` returns: one tolerated failure, or one odd result, is that item's affair alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pgflow_mp import Flow
from pgflow_mp.flows.results import typed_output
from pgflow_mp.testing import run_inline


@dataclass
class Point:
    x: int


def squares(handler: Any) -> Flow:
    flow = Flow("squares", max_attempts=1)
    flow.map("m", handler, tolerate=0.5)
    return flow


def test_one_tolerated_failure_leaves_the_type_of_the_others() -> None:
    def point(x: int) -> Point:
        if x == 2:
            raise ValueError(x)
        return Point(x)

    assert run_inline(squares(point), [1, 2, 3]) == {"m": [Point(1), None, Point(3)]}
    assert run_inline(squares(point), [1, 3]) == {"m": [Point(1), Point(3)]}


def as_set(x: int) -> set[int]:
    raise NotImplementedError


def as_path(x: int) -> Path:
    raise NotImplementedError


def as_pair(x: int) -> tuple[int, Point]:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("handler", "stored", "expected"),
    [
        (as_set, b"[[1, 2], null]", [{1, 2}, None]),
        (as_path, b'["a/b", null]', [Path("a/b"), None]),
        (as_pair, b'[[1, {"x": 2}], null]', [(1, Point(2)), None]),
        (as_set, b'[[1], "odd"]', [{1}, "odd"]),
        (as_set, b"[]", []),
    ],
)
def test_each_item_is_converted_by_itself(handler: Any, stored: bytes, expected: Any) -> None:
    assert typed_output(squares(handler), b'{"m": ' + stored + b"}") == {"m": expected}
