"""A step that reads a map which tolerates failures can be given null, or is refused where it is defined."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional, TypedDict

import msgspec
import numpy
import pytest

from pgflow_mp import Context, Flow, FlowDefinitionError
from pgflow_mp.flows.handlers import check


class Both(TypedDict):
    m: list[int]


class AnyBoth(TypedDict):
    m: list[int | None]


@dataclasses.dataclass
class Record:
    m: list[str]


class Struct(msgspec.Struct):
    x: int


def tolerant(**options: Any) -> Flow:
    return Flow("f").map("m", abs, **{"tolerate": 2, **options})


def annotated(annotation: Any, name: str = "m", star: str = "") -> Callable[..., Any]:
    """A function of one parameter with this annotation, a type or text."""
    scope: dict[str, Any] = {"annotation": annotation, **globals()}
    shown = annotation if isinstance(annotation, str) else "annotation"
    exec(f"def handler({star}{name}: {shown}): return 1", scope)
    handler: Callable[..., Any] = scope["handler"]
    return handler


REFUSED = [
    (list[int], "list[int | None]"),
    ("list[int]", "list[int | None]"),
    (Sequence[float], "Sequence[float | None]"),
    (Iterable[str], "Iterable[str | None]"),
    (Iterator[bool], "Iterator[bool | None]"),
    (tuple[int, ...], "tuple[int | None, ...]"),
    (set[int], "set[int | None]"),
    (Optional[list[int]], "list[int | None] | None"),  # noqa: UP045
    (list[int] | None, "list[int | None] | None"),
    (list[dict[str, int]], "list[dict[str, int] | None]"),
    (list[Struct], "| None]"),
    (list[Decimal], "list[decimal.Decimal | None]"),
    (list[Path], "list[pathlib.Path | None]"),
    (collections.deque[int], "deque[int | None]"),
]
TAKEN = [
    list[int | None],
    "list[int | None]",
    list[Optional[int]],  # noqa: UP045
    Sequence[float | None],
    Iterable[object],
    tuple[int | None, ...],
    list,
    list[Any],
    Any,
    object,
    "list[Unknown]",
]


@pytest.mark.parametrize(("annotation", "better"), REFUSED, ids=str)
def test_a_reader_of_elements_that_cannot_be_null_is_refused(annotation: Any, better: str) -> None:
    with pytest.raises(FlowDefinitionError) as refused:
        tolerant().step("total", annotated(annotation), depends_on="m")
    text = str(refused.value)
    assert 'step "total" of flow "f": parameter "m" is annotated ' in text
    assert 'step "m" tolerates failed items' in text
    assert better in refused.value.hint
    assert 'or remove tolerate= of step "m"' in refused.value.hint


@pytest.mark.parametrize("annotation", TAKEN, ids=str)
def test_a_reader_that_can_be_given_null_is_taken(annotation: Any) -> None:
    tolerant().step("total", annotated(annotation), depends_on="m")


@pytest.mark.parametrize("options", [{"tolerate": None}, {"tolerate": 0}, {"tolerate": 0.0}])
def test_without_tolerated_failures_there_is_no_null(options: dict[str, Any]) -> None:
    tolerant(**options).step("total", annotated(list[int]), depends_on="m")
    tolerant(**options).map("n", annotated(int, "item"), over="m")


def test_a_share_is_a_tolerance_too() -> None:
    with pytest.raises(FlowDefinitionError, match="tolerates failed items"):
        tolerant(tolerate=0.01).step("total", annotated(list[int]), depends_on="m")


@pytest.mark.parametrize("annotation", [int, "int", Struct, dict[str, int], "Struct"])
def test_a_map_over_it_whose_item_cannot_be_null_is_refused(annotation: Any) -> None:
    with pytest.raises(
        FlowDefinitionError, match=r'parameter "item" is annotated .*cannot hold null'
    ) as refused:
        tolerant().map("n", annotated(annotation, "item"), over="m")
    assert "| None, or remove" in refused.value.hint


def test_a_map_over_it_whose_item_can_be_null_is_taken() -> None:
    for annotation in (int | None, "int | None", Any, object, float | str | None):
        tolerant().map("n", annotated(annotation, "item"), over="m")
    tolerant().map("n", abs, over="m")


def test_batches_of_it_are_lists_whose_elements_can_be_null() -> None:
    def takes(numbers: list[int | None], ctx: Context) -> list[int]:
        return [0] * len(numbers)

    def refuses(numbers: Sequence[int]) -> list[int]:
        return [0] * len(numbers)

    def array(numbers: numpy.ndarray) -> list[int]:
        return [0] * len(numbers)

    tolerant().map("n", takes, over="m", batch=4)
    tolerant().map("n", array, over="m", batch=4)
    with pytest.raises(FlowDefinitionError) as refused:
        tolerant().map("n", refuses, over="m", batch=4)
    assert "Annotate it Sequence[int | None], or" in refused.value.hint


def test_members_of_an_item_are_none_where_it_is_null() -> None:
    with pytest.raises(FlowDefinitionError) as refused:
        tolerant().map("n", annotated(int, "row", "**"), over="m")
    assert "**row: int" in str(refused.value)
    assert "item: dict[str, Any] | None, without **" in refused.value.hint


@pytest.mark.parametrize(
    ("annotation", "better"),
    [
        (Mapping[str, list[int]], "Mapping[str, list[int | None]]"),
        (dict[str, Sequence[str]], "dict[str, Sequence[str | None]]"),
        (Both, "m: list[int | None] there"),
        (Record, "m: list[str | None] there"),
    ],
)
def test_the_mapping_of_all_parents_is_looked_into(annotation: Any, better: str) -> None:
    with pytest.raises(FlowDefinitionError) as refused:
        tolerant().step("total", annotated(annotation, "given"), depends_on="m")
    assert f"Annotate it {better}, or" in refused.value.hint


@pytest.mark.parametrize(
    "annotation", [Mapping[str, list[int | None]], AnyBoth, dict, Mapping[str, Any], Any]
)
def test_a_mapping_that_can_hold_null_is_taken(annotation: Any) -> None:
    tolerant().step("total", annotated(annotation, "given"), depends_on="m")


def test_parents_that_no_parameter_names_are_looked_at() -> None:
    flow = tolerant().step("s", lambda: 1)

    def total(s: int, **others: list[int]) -> int:
        return s

    with pytest.raises(FlowDefinitionError, match='parameter "others" is annotated'):
        flow.step("total", total, depends_on=["s", "m"])


def test_another_parent_is_none_of_it() -> None:
    flow = tolerant().map("n", abs)
    flow.step("total", annotated(list[int], "n"), depends_on=["m", "n"])


def test_what_cannot_be_resolved_yet_is_refused_when_the_flow_is_loaded() -> None:
    scope: dict[str, Any] = {"Flow": Flow}
    code = """
from __future__ import annotations
flow = Flow("f").map("m", abs, tolerate=1)
@flow.step(depends_on=["m"])
def total(m: list[Later]) -> int:
    return 1
Later = int
"""
    exec(code, scope)
    with pytest.raises(FlowDefinitionError, match=r'parameter "m" is annotated .*int.*cannot hold null'):
        check(scope["flow"])
