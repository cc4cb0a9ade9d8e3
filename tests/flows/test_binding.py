"""A parameter that names no parent receives the mapping of all outputs, or is refused if it cannot."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest

from pgflow_mp import Flow, FlowDefinitionError
from pgflow_mp.flows.resolving import resolve


class Table(msgspec.Struct):
    f: int


@dataclass
class Record:
    f: int


class Typed(TypedDict):
    f: int


class Pair(NamedTuple):
    f: int


class Colour(enum.Enum):
    RED = 1


Number = NewType("Number", int)
Outputs = NewType("Outputs", dict[str, int])
T = TypeVar("T")

HOLDING: list[Any] = [
    *(Any, object, dict, dict[str, int], Mapping, Mapping[str, Any], Table, Record, Typed, Outputs, T),
    *(list[int] | dict[str, int], Table | None, Annotated[Mapping[str, int], "all"], msgspec.Raw),
    *(Iterable[str], Hashable),
]
NOT_HOLDING: list[Any] = [
    *(int, str, float, bool, bytes, list, list[int], tuple[int, ...], set[int], frozenset, Pair, Colour),
    *(datetime.date, datetime.datetime, datetime.timedelta, UUID, Number, Sequence[int], Collection[int]),
    *(None, int | None, Annotated[list[int], "some"], Literal["a"]),
    Annotated[int, 1] | list[dict[str, int]],
]


def define(annotation: Any, *parents: str, name: str = "ff") -> Flow:
    """A flow whose step g depends on all others, and has one parameter of that name and annotation."""

    scope: dict[str, Any] = {}
    exec(f"def g({name}): ...", scope)
    scope["g"].__annotations__[name] = annotation
    flow = Flow("demo")
    for parent in parents:
        flow.step(parent, lambda: 1)
    return flow.step("g", scope["g"], depends_on=parents)


@pytest.mark.parametrize("annotation", HOLDING, ids=str)
def test_what_can_hold_a_mapping_is_accepted(annotation: Any) -> None:
    assert len(define(annotation, "f").steps["g"].arguments) == 1


@pytest.mark.parametrize("annotation", NOT_HOLDING, ids=str)
def test_what_cannot_hold_a_mapping_is_refused(annotation: Any) -> None:
    with pytest.raises(
        FlowDefinitionError, match=r"(?m)ff is not a parent of g \(its parents: f\); did you mean f\?$"
    ):
        define(annotation, "f")
    define(annotation, "f", name="f")
    define(annotation, name="ff")


def test_the_parent_that_was_meant_is_named_where_there_are_several() -> None:
    with pytest.raises(FlowDefinitionError, match=r"its parents: total, names\); did you mean total\?"):
        define(int, "total", "names", name="totals")
    with pytest.raises(FlowDefinitionError, match=r"(?m)its parents: total, names\)$") as caught:
        define(list[int], "total", "names", name="xyz")
    assert caught.value.hint.endswith("cannot be converted to list[int].")


def test_an_annotation_in_a_string_is_looked_at_as_well() -> None:
    def g(ff: list[int]) -> None: ...

    def f() -> None: ...

    flow = Flow("demo").step("f", f)
    with pytest.raises(FlowDefinitionError, match="did you mean f"):
        flow.step("g", g, depends_on=[f])


def test_a_name_in_an_annotation_is_what_the_function_sees_under_it() -> None:
    def of_local(here: type) -> tuple[object, object]:
        def handler() -> type:
            return here

        return resolve("here", handler), resolve("int", handler, {"int": str})

    assert of_local(float) == (float, str)
    assert resolve("int", test_a_name_in_an_annotation_is_what_the_function_sees_under_it) is int
    assert resolve("int | None", len) == int | None
    assert resolve("None", len) is type(None)
    with pytest.raises(NameError):
        resolve("Nowhere", len)
