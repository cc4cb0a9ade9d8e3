"""What a step receives has to be of the type of its parameter: what is refused where the step is defined."""

from __future__ import annotations

import collections
import functools
import importlib
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy
import pytest
from numpy.typing import NDArray
from step_types import Colour, Item, Pair, Row, gives, refused, takes

from pgflow_mp import Context, Failed, Flow, output_of
from pgflow_mp.flows import handlers
from pgflow_mp.flows.assignable import element_of


def test_the_error_says_step_parameter_both_types_and_what_to_do() -> None:
    flow = Flow("f").map("count", gives(int))

    def total(words: list[str] = output_of("count")) -> int:
        return len(words)

    assert refused(lambda: flow.step(total)).partition(".")[2] == (
        'total" of step "total" of flow "f": the output of step "count" has type "list[int]", which is not '
        'assignable to parameter "words" of type "list[str]"\nAnnotate it list[int], or give it list[str].'
    )


def test_elements_and_batches_of_what_a_map_is_over_are_compared() -> None:
    flow = Flow("f").array("words", gives(list[str]))
    text = refused(lambda: flow.map("m", takes(int), over="words"))
    assert 'an element of the output of step "words" has type "str", which is not assignable' in text
    flow.map("m", takes(str, int), over="words")
    text = refused(lambda: flow.map("n", takes(str), over="m"))
    assert 'an element of the output of step "m" has type "int"' in text
    text = refused(lambda: flow.map("n", takes(list[str], list[str]), over="m", batch=3))
    assert 'a list of elements of the output of step "m" has type "list[int]"' in text
    flow.map("n", takes(list[float], list[int | Failed]), over="m", batch=3)
    text = refused(lambda: flow.map("p", takes(str), over="n"))
    assert 'an element of the output of step "n" has type "int"' in text


@pytest.mark.parametrize(
    ("returned", "element"),
    [
        (list[int], int),
        (list[None], type(None)),
        (set[int], int),
        (collections.deque[int], int),
        (tuple[int, ...], int),
        (tuple[int], int),
        (Iterator[int], int),
        (Generator[int, str, None], int),
        (NDArray[numpy.float64], Any),  # whose arguments are its shape and a dtype
        (tuple[int, str], Any),
        (collections.Counter[str], Any),
        (collections.OrderedDict[str, int], Any),
        (list, Any),
        (list[int] | None, Any),
        (dict[str, int], None),
        (str, None),
    ],
    ids=str,
)
def test_elements_have_the_type_that_an_annotation_says(returned: Any, element: Any) -> None:
    assert element_of(returned) == element
    if element is Any:
        Flow("f").step("a", gives(returned)).map("b", takes(float), over="a")


def test_a_map_over_what_is_no_array_is_refused() -> None:
    flow = Flow("f").step("text", gives(str)).step("row", gives(Row))
    for parent in ("text", "row"):
        text = refused(lambda: flow.map("m", takes(Any), over=parent))  # noqa: B023
        assert f'Map step "m" of flow "f" runs over the output of step "{parent}", of type "' in text
        assert "which has no elements" in text


def test_an_array_step_whose_result_is_no_array_is_refused() -> None:
    wrong: list[Any] = [int, str, dict[str, int], Item]
    right: list[Any] = [list[int], Iterator[int], tuple[int, ...], Pair, numpy.ndarray, Any, list[int] | None]
    for returned in wrong:
        text = refused(lambda: Flow("f").array("a", gives(returned)))  # noqa: B023
        assert 'step "a" of flow "f": an array step gives a list, yet its result has type "' in text
    for returned in right:
        Flow("f").array("a", gives(returned))


def test_the_input_that_a_flow_says_it_has_is_compared() -> None:
    def root(order: int) -> int:
        return order

    def later(a: int, flow_input: str) -> int:
        return a

    orders: Any = Flow[Item]("f")
    texts: Any = Flow[list[str]]("f")
    number: Any = Flow[int]("f")
    text = refused(lambda: orders.step(root))
    assert 'the input of flow "f" has type "Item", which is not assignable to parameter "order"' in text
    assert 'an element of the input of flow "f" has type "str"' in refused(lambda: texts.map(root))
    text = refused(lambda: number.map(root))
    assert 'Map step "root" of flow "f" runs over the input of flow "f", of type "int", which has no' in text
    flow = Flow[int]("f").step("a", root)
    text = refused(lambda: flow.step("b", later, depends_on=["a"]))
    assert 'the input of flow "f" has type "int", which is not assignable to parameter "flow_input"' in text

    class Orders(Flow[str]):
        """A class of flows says it, too."""

    assert 'the input of flow "f" has type "str"' in refused(lambda: Orders("f").step("a", root))
    assert Orders("f").module == __name__


def test_a_parent_that_may_be_skipped_gives_none_unless_a_default_stands_for_it() -> None:
    def without(a: int) -> int:
        return a

    def with_none(a: int | None) -> int:
        return a or 0

    def with_default(a: int = 0) -> int:
        return a

    skipping: list[Any] = [{"when": {"x": 1}}, {"unless": {"x": 1}}, {"when_exhausted": "skip"}]
    for options in skipping:
        flow = Flow("f").step("a", gives(int), **options)
        text = refused(lambda: flow.step("b", without, depends_on="a"))  # noqa: B023
        assert 'the output of step "a" has type "int | None", which is not assignable' in text
        flow.step("b", with_none, depends_on="a").step("c", with_default, depends_on="a")
    others: list[Any] = [{"when_unmet": "fail"}, {"when_unmet": "skip-cascade"}]
    for options in others:
        flow = Flow("f").step("a", gives(int), when={"x": 1}, **options)
        flow.step("b", without, depends_on="a")


def test_what_a_decorator_returns_is_not_known() -> None:
    def as_text(function: Callable[..., int]) -> Callable[..., str]:
        @functools.wraps(function)
        def call(*args: Any) -> str:
            return str(function(*args))

        return call

    @as_text
    def number(x: int) -> int:
        return x

    Flow("f").step("a", number).step("b", takes(str), depends_on="a")


LATE = """from __future__ import annotations
from pgflow_mp import Flow, output_of
flow = Flow("late")
@flow.step
def first(x: int) -> Later:
    return Later(x)
@flow.step
def second(later: Latest = output_of(first)) -> str:
    return later.name
import msgspec
class Later(msgspec.Struct):
    size: int
class Latest(msgspec.Struct):
    name: str
"""


def test_types_that_are_defined_later_are_compared_when_the_flow_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_types.py").write_text(LATE)
    monkeypatch.syspath_prepend(tmp_path)
    flow = importlib.import_module("late_types").flow
    text = refused(lambda: handlers.check(flow))
    assert 'the output of step "first" has type "Later", which is not assignable to parameter "later"' in text


def test_the_context_and_all_parents_as_one_are_not_compared() -> None:
    def mapping(parents: Mapping[str, int], ctx: Context) -> int:
        return len(parents)

    def others(**parents: str) -> int:
        return len(parents)

    flow = Flow("f").step("a", gives(int))
    flow.step("b", mapping, depends_on="a").step("c", others, depends_on="a")


def test_a_condition_that_names_no_parent_is_refused() -> None:
    flow = Flow("f").step("total", gives(int))
    for option in ("when", "unless"):
        condition: Any = {option: {"totl": 1}}
        text = refused(lambda: flow.step("b", len, depends_on="total", **condition))  # noqa: B023
        assert f'{option}= of step "b" of flow "f" names "totl", which is not a parent of the step' in text
        assert "(its parents: total)" in text


@pytest.mark.parametrize(
    ("returned", "pattern"),
    [
        (int, "285"),
        (int, {"a": 1}),
        (int, None),
        (str, 5),
        (bool, 1),
        (list[int], {"a": 1}),
        (list[int], ["a"]),
        (Item, {"nmae": "x"}),
        (Item, {"size": "1"}),
        (dict[str, int], {"a": "x"}),
        (Literal["a", "b"], "c"),
        (Colour, "blue"),
        (int | None, "x"),
    ],
    ids=str,
)
def test_a_condition_that_is_never_met_by_its_type_is_refused(returned: Any, pattern: Any) -> None:
    flow = Flow("f").step("a", gives(returned))
    text = refused(lambda: flow.step("b", takes(Any), depends_on="a", when={"a": pattern}))
    assert 'when= of step "b" of flow "f": the output of step "a" has type "' in text
    assert f"which never contains {pattern!r}" in text
    if isinstance(pattern, dict):
        refused(lambda: Flow[returned]("f").step("b", gives(Any), when=pattern))


@pytest.mark.parametrize(
    ("returned", "pattern"),
    [
        (int, 285),
        (int, 1.0),
        (float, 1),
        (int | None, None),
        (list[int], [1]),
        (list[Item], [{"name": "x"}]),
        (Item, {"name": "x", "size": 1}),
        (Item, {}),
        (dict[str, Any], {"a": {"b": [1]}}),
        (Any, {"x": 1}),
        (Path, "a/b"),
        (numpy.ndarray, [1]),
        (Colour, "red"),
        (Row, {"size": 1}),
        ("Unknown", 1),
    ],
    ids=str,
)
def test_a_condition_that_may_be_met_is_taken(returned: Any, pattern: Any) -> None:
    Flow("f").step("a", gives(returned)).step("b", takes(Any), depends_on="a", unless={"a": pattern})


def test_a_condition_of_a_root_step_is_compared_with_the_input_that_the_flow_says_it_has() -> None:
    text = refused(lambda: Flow[Item]("f").step("a", gives(int), when={"nmae": "x"}))
    assert 'when= of step "a" of flow "f": the input of flow "f" has type "Item"' in text
    Flow[Item]("f").step("a", gives(int), when={"name": "x"})
