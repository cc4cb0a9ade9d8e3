"""What a handler with batch= may say that it receives and returns, and what becomes of its results."""

from __future__ import annotations

import collections
import collections.abc
import enum
import typing
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from pgflow_mp import Context, Failed, Flow
from pgflow_mp.cli.preflight import _mismatch
from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows import handlers
from pgflow_mp.flows.batch_types import item_of
from pgflow_mp.flows.checks import reader
from pgflow_mp.flows.results import typed_leaf
from pgflow_mp.values.inputs import RunInput

T = typing.TypeVar("T")


class Row(msgspec.Struct):
    name: str


class Pair(NamedTuple):
    left: int
    right: int


class Record(TypedDict):
    name: str


class Color(enum.Enum):
    RED = "red"


class Items(list[int]):
    pass


class Own(Sequence[int]):
    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        raise IndexError


class Holder(typing.Protocol):
    def __len__(self) -> int: ...


def handler(received: Any, answered: Any = None) -> Callable[..., Any]:
    """A function with these annotations; None: without one."""

    def work(batch: Any) -> Any:
        return batch

    given = {"batch": received, "return": answered}
    work.__annotations__ = {name: kind for name, kind in given.items() if kind is not None}
    return work


def defined(function: Callable[..., Any], batch: int | None = 8) -> Flow:
    flow = Flow("f").map("m", function, batch=batch)
    handlers.check(flow)
    return flow


HOLD = [
    *(None, Any, object, list, tuple, list[int], list[Row], list[Any], tuple[int, ...], Sequence[Row]),
    *(Iterable[int], Iterator[int], collections.abc.Collection[int], collections.deque[int], Items),
    *(typing.Annotated[list[int], "some"], list[int] | None, typing.NewType("Many", list[int])),
]
HOLD_NONE = [
    *(int, str, bool, float, dict, dict[str, int], Mapping[str, int], set[int], frozenset[str], Row, Pair),
    *(Record, Color, Path, tuple[int, str], int | str, typing.Literal["a"], type(None), bytes),
    *(typing.Annotated[int, "some"], typing.NewType("One", int)),
]


@pytest.mark.parametrize("annotation", HOLD, ids=str)
def test_a_batch_can_be_taken_as_any_list(annotation: Any) -> None:
    defined(handler(annotation))


@pytest.mark.parametrize("annotation", HOLD_NONE, ids=str)
def test_what_can_hold_no_batch_is_refused_where_it_is_written(annotation: Any) -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        Flow("f").map("m", handler(annotation), batch=8)
    said = str(caught.value)
    assert (
        'of step "m" of flow "f": parameter "batch" receives a list of items, since the map has batch='
        in said
    )
    assert "numpy.ndarray, or remove batch=." in caught.value.hint
    Flow("f").map("m", handler(annotation))


def test_the_error_names_the_list_that_is_meant() -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        Flow("f").map("m", handler(int), batch=1)
    assert caught.value.hint == "Annotate it list[int] or numpy.ndarray, or remove batch=."


@pytest.mark.parametrize(
    "annotation",
    [*HOLD, Holder, Own, range, Generator[int, None, None], list[int | ValueError | Failed]],
    ids=str,
)
def test_a_batch_can_be_answered_with_any_list(annotation: Any) -> None:
    defined(handler(None, annotation))


@pytest.mark.parametrize("annotation", [each for each in HOLD_NONE if each is not type(None)], ids=str)
def test_what_is_no_list_answers_no_batch(annotation: Any) -> None:
    with pytest.raises(FlowDefinitionError, match=r"a batch is answered with a list, a result an item"):
        Flow("f").map("m", handler(None, annotation), batch=8)


def test_nothing_answers_no_batch() -> None:
    def work(batch: list[int]) -> None: ...

    with pytest.raises(FlowDefinitionError, match=r'"test_.*work" of step "m" of flow "f" returns None'):
        Flow("f").map("m", work, batch=8)
    Flow("f").map("m", work)


def test_results_of_a_batch_that_cannot_be_stored_are_refused() -> None:
    with pytest.raises(
        FlowDefinitionError, match=r"returns what cannot be stored .*complex \(at \[\.\.\.\]\)"
    ):
        Flow("f").map("m", handler(list[int], list[complex]), batch=8)


def test_an_annotation_that_is_resolved_later_is_refused_when_the_flow_is_loaded() -> None:
    def work(batch: Later) -> list[int]:  # type: ignore[name-defined]  # noqa: F821
        return list(batch)

    flow = Flow("f").map("m", work, batch=8)
    work.__globals__["Later"] = int
    try:
        with pytest.raises(FlowDefinitionError, match="receives a list of items"):
            handlers.check(flow)
    finally:
        del work.__globals__["Later"]


def test_members_of_an_object_are_none_of_a_batch() -> None:
    def work(**row: Any) -> list[Any]:
        return [row]

    with pytest.raises(FlowDefinitionError, match=r"parameter \*\*row receives the members of an item"):
        Flow("f").map("m", work, batch=8)


def test_other_parameters_are_not_meant() -> None:
    def work(batch: list[int], ctx: Context, flow_input: dict[str, int], more: int = 3) -> list[int]:
        return batch

    step = defined(work).steps["m"]
    assert [argument.name for argument in step.arguments] == ["batch", "ctx", "flow_input"]
    assert step.facts.batch


def test_a_parameter_that_nothing_supplies_is_told_what_there_is() -> None:
    def work(batch: list[int], other: int) -> list[int]:
        return batch

    with pytest.raises(FlowDefinitionError, match="available are the list of elements"):
        Flow("f").map("m", work, batch=8)


def test_a_batch_is_decoded_as_its_annotation_says() -> None:
    step = defined(handler(list[Row])).steps["m"]
    decode = reader(step.handler, step.arguments[0], step.facts)[1]
    assert decode(b'[{"name": "a"}, {"name": "b"}]') == [Row("a"), Row("b")]


@pytest.mark.parametrize(
    ("annotation", "item"),
    [
        (list[int], int),
        (Iterator[Row], Row),
        (Sequence[int | None], int | None),
        (list[int | ValueError], int),
        (list[int | str | KeyError], int | str),
        (Iterator[Row | Failed], Row),
        (tuple[float, ...], float),
        (list[int] | None, int),
        (list[int] | tuple[str, ...], Any),
        (list, Any),
        (Any, Any),
        (T, Any),
    ],
    ids=str,
)
def test_the_annotation_of_a_result_tells_the_type_of_one_item(annotation: Any, item: Any) -> None:
    assert item_of(annotation) == item


def test_the_output_of_a_batched_leaf_is_typed_item_by_item() -> None:
    flow = defined(handler(list[int], list[Row]))
    raw = b'[{"name": "a"}, null, {"name": "b"}]'
    assert typed_leaf(flow, "m", raw) == [Row("a"), None, Row("b")]


def test_an_input_that_fits_no_item_of_a_batch_is_seen_before_it_is_started() -> None:
    flow = defined(handler(list[int]))
    assert _mismatch(flow, RunInput(b"[1, 2]", "x")) == ""
    assert _mismatch(flow, RunInput(b'["a", 2]', "x")) == ""
    assert _mismatch(flow, RunInput(b'["a", "b"]', "x")).startswith(
        "No element of the input (x, an array) fits"
    )


def test_arrays_of_numpy_are_batches() -> None:
    np = pytest.importorskip("numpy")
    npt = pytest.importorskip("numpy.typing")
    for annotation in (np.ndarray, npt.NDArray[np.float64]):
        step = defined(handler(annotation, annotation)).steps["m"]
        made = reader(step.handler, step.arguments[0], step.facts)[1](b"[1, 2, 3]")
        assert isinstance(made, np.ndarray)
        assert item_of(annotation) is Any
    for annotation in (np.float64, np.int32):
        with pytest.raises(FlowDefinitionError, match="receives a list of items"):
            Flow("f").map("m", handler(annotation), batch=8)
