"""Which types are one in JSON: what a parameter takes of what a parent gives, and what it does not."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy
import pytest
from step_types import Colour, Item, Level, Named, Number, Pair, Row, Tree, gives, refused, takes

from pgflow_mp import Flow

ASSIGNABLE: list[tuple[Any, Any]] = [
    (int, int),
    (int, float),
    (int, int | None),
    (Number, int),
    (int, Number),
    (bool, bool),
    (str, Path),
    (Path, str),
    (str, datetime.date),
    (datetime.date, str),
    (Decimal, Decimal),
    (int, Decimal),
    (str, Colour),
    (Colour, str),
    (Colour, Literal["red", "blue"]),
    (Literal["a"], Literal["a", "b"]),
    (Literal[1], float),
    (Level, int),
    (Level, float),
    (str, Literal["a"]),
    (list[int], list[float]),
    (list[int], Sequence[int]),
    (list[int], Iterable[int]),
    (Iterator[int], list[int]),
    (tuple[int, ...], set[int]),
    (tuple[int, str], Pair),
    (Pair, tuple[int, str]),
    (list[int], tuple[int, int]),
    (list[int], numpy.ndarray),
    (numpy.ndarray, list[float]),
    (list[Any], list[int]),
    (Any, int),
    (int, Any),
    (int, object),
    (object, int),
    (dict[str, Any], Item),
    (dict[str, int | str], Item),
    (Item, dict[str, Any]),
    (Item, Named),
    (Row, Item),
    (Item, Row),
    (Tree, Tree),
    (Tree, dict[str, list[Any]]),
    (Item | None, Item | None),
    (Mapping[str, int], dict[str, float]),
    ("Unknown", int),
    (int, "Unknown"),
]

NOT_ASSIGNABLE: list[tuple[Any, Any]] = [
    (int, str),
    (str, int),
    (float, int),
    (bool, int),
    (int, bool),
    (int, list[int]),
    (list[int], int),
    (list[int], list[str]),
    (list[int], Iterable[str]),
    (Iterator[int], list[str]),
    (list[int], dict[str, int]),
    (dict[str, int], list[int]),
    (int | None, int),
    (int | str, int),
    (Path, int),
    (datetime.date, int),
    (str, Level),
    (Literal["a", "c"], Literal["a", "b"]),
    (Level, str),
    (Item, str),
    (Item, dict[str, int]),
    (dict[str, int], Named),
    (Named, Row),
    (Pair, list[int]),
    (tuple[int, str], tuple[int, str, int]),
    (list[Item], list[Pair]),
    (Tree, Item),
    (int, Path),
]


@pytest.mark.parametrize(("given", "wanted"), ASSIGNABLE, ids=str)
def test_a_parameter_takes_what_json_makes_of_it(given: Any, wanted: Any) -> None:
    Flow("f").step("a", gives(given)).step("b", takes(wanted), depends_on="a")


@pytest.mark.parametrize(("given", "wanted"), NOT_ASSIGNABLE, ids=str)
def test_a_parameter_that_cannot_hold_a_parents_output_is_refused(given: Any, wanted: Any) -> None:
    flow = Flow("f").step("a", gives(given))
    text = refused(lambda: flow.step("b", takes(wanted), depends_on="a"))
    assert 'of step "b" of flow "f": the output of step "a" has type "' in text
    assert 'which is not assignable to parameter "a" of type "' in text
