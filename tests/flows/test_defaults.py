"""Parameters that say by their default what they receive: output_of, input_of, value_of."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pytest

from pgflow_mp import Context, Flow, FlowDefinitionError, input_of, output_of, value_of
from pgflow_mp.flows.binding import Source
from pgflow_mp.loading import shipping
from pgflow_mp.testing import execute_inline, run_inline


class Request(msgspec.Struct):
    texts: list[str]
    least: int = 0


flow = Flow[Request]("defaults")


@flow.on_start
def scale() -> Iterator[int]:
    yield 10


@flow.array
def texts(request: Request) -> list[str]:
    return request.texts


@flow.map(over=texts)
def length(text: str, by: int = value_of(scale)) -> int:
    return len(text) * by


@flow.step(when={"texts": ["none"]})
def empty(given: list[str] = output_of(texts)) -> str:
    return f"{len(given)} with none"


@flow.step
def summary(
    lengths: Iterable[int] = output_of(length),
    note: str | None = output_of(empty),
    *,
    asked: Request = input_of(flow),
    ctx: Context,
) -> list[Any]:
    return [sum(lengths), note, asked.least, ctx.step_slug]


def refused(define: Callable[[], object]) -> str:
    with pytest.raises(FlowDefinitionError) as error:
        define()
    return f"{error.value}\n{error.value.hint}"


def test_a_step_depends_on_what_its_defaults_name() -> None:
    assert flow.steps["summary"].dependencies == ("length", "empty")
    assert flow.steps["empty"].dependencies == ("texts",)
    assert [(each.name, each.source, each.of) for each in flow.steps["summary"].arguments] == [
        ("lengths", Source.PARENT, "length"),
        ("note", Source.PARENT, "empty"),
        ("asked", Source.FLOW_INPUT, "flow_input"),
        ("ctx", Source.CONTEXT, "ctx"),
    ]


def test_parameters_of_any_name_receive_outputs_the_input_and_values() -> None:
    assert run_inline(flow, Request(["a", "bcd"], 7)) == {"summary": [40, None, 7, "summary"]}
    given = execute_inline(flow, Request(["none", "x"]), on_start={"scale": 1})
    assert given.output == {"summary": [5, "2 with none", 0, "summary"]}


def test_functions_stay_functions_that_are_pickled_by_their_path() -> None:
    assert length("abc", 2) == 6
    assert pickle.loads(pickle.dumps(length)) is length
    with pytest.raises(TypeError, match=r"output_of\(texts\) is what a flow gives"):
        empty()


def test_it_is_the_same_as_depends_on_and_a_parameter_of_the_parents_name() -> None:
    named, asked = Flow("f"), Flow("f")

    def first(x: int) -> int:
        return x

    def by_name(first: int) -> int:
        return first

    for each in (named, asked):
        each.step(first)

    def by_default(any_name: int = output_of(first)) -> int:
        return any_name

    named.step("second", by_name, depends_on=first)
    asked.step("second", by_default)
    assert asked.shape() == named.shape()
    assert asked.to_sql() == named.to_sql()


def test_parents_that_are_named_twice_are_parents_once_and_come_in_the_order_they_are_given() -> None:
    made = Flow("f").step("a", len).step("b", len).step("c", len)

    def handler(c: int = output_of("c"), again: int = output_of("c"), b: int = output_of("b")) -> int:
        return c + again + b

    made.step("d", handler, depends_on=["a", "b"])
    assert made.steps["d"].dependencies == ("a", "b", "c")
    assert run_inline(made, [1, 2]) == {"d": 6}


def test_the_names_of_parents_and_their_defaults_go_together() -> None:
    made = Flow("f").step("a", len).step("b", len)

    def handler(a: int, other: int = output_of("b")) -> list[int]:
        return [a, other]

    def swapped(b: int = output_of("a"), a: int = output_of("b")) -> list[int]:
        return [a, b]

    made.step("c", handler, depends_on=["a"]).step("d", swapped)
    assert run_inline(made, [1]) == {"c": [1, 1], "d": [1, 1]}


def test_a_default_that_the_flow_does_not_have_is_refused() -> None:
    def other(x: int) -> int:
        return x

    def asks_function(x: int = output_of(other)) -> int:
        return x

    def asks_slug(x: int = output_of("nowhere")) -> int:
        return x

    def asks_value(x: int = value_of(other)) -> int:
        return x

    def asks_input(x: Request = input_of(flow)) -> int:
        return x.least

    assert 'Step "s" depends on undefined step "other"' in refused(lambda: Flow("f").step("s", asks_function))
    assert 'depends on undefined step "nowhere"' in refused(lambda: Flow("f").step("s", asks_slug))
    text = refused(lambda: Flow("f").on_start("made", list).step("s", asks_value))
    assert 'step "s" of flow "f": parameter "x" receives value_of(other) by its default' in text
    assert "Those defined before it: made." in text
    text = refused(lambda: Flow("f").step("s", asks_input))
    assert 'parameter "x" receives the input of another flow by its default, "defaults"' in text


def test_a_map_receives_elements_and_no_outputs() -> None:
    def handler(item: int, everything: list[int] = output_of("a")) -> int:
        return item

    text = refused(lambda: Flow("f").array("a", list).map("m", handler, over="a"))
    assert 'step "m" of flow "f": parameter "everything" receives all of the output of step "a"' in text
    assert "over=a for its elements" in text


def test_a_free_parameter_beside_such_a_default_can_never_be_supplied() -> None:
    def handler(request: Request, count: int = output_of("a")) -> int:
        return count

    text = refused(lambda: Flow("f").step("a", len).step("s", handler))
    assert 'parameter "request" can never be supplied' in text


def test_a_default_of_a_wrapped_function_counts() -> None:
    def logged(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> int:
            return function(*args, **kwargs)

        return call

    made = Flow("f").step("a", len)

    @made.step
    @logged
    def double(count: int = output_of("a")) -> int:
        return 2 * count

    assert run_inline(made, [1, 2, 3]) == {"double": 6}


def test_a_flow_that_is_sent_to_workers_keeps_its_defaults() -> None:
    pytest.importorskip("cloudpickle")
    made = Flow[list[int]]("sent")

    @made.on_start
    def two() -> int:
        return 2

    @made.map
    def double(x: int, by: int = value_of(two)) -> int:
        return by * x

    @made.step
    def total(doubled: list[int] = output_of(double), asked: list[int] = input_of(made)) -> int:
        return sum(doubled) + len(asked)

    assert run_inline(shipping.unpack(shipping.pack(made)), [1, 2, 3]) == {"total": 15}
