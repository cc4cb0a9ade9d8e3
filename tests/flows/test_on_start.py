"""@flow.on_start: what is refused when it is written, and what is called, given and ended."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from pgflow_mp import Context, Flow, FlowDefinitionError, OnStartFailed
from pgflow_mp.flows import handlers
from pgflow_mp.flows.invocation import InputMismatch
from pgflow_mp.flows.on_start import ProcessValues
from pgflow_mp.testing import run_inline


class Model:
    def __init__(self, name: str = "m") -> None:
        self.name = name


def flow_with(*functions: Callable[..., Any]) -> Flow:
    flow = Flow("f")
    for function in functions:
        flow.on_start(function)
    return flow


def model() -> Model:
    return Model()


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(FlowDefinitionError) as caught:
        act()
    return f"{caught.value} | {caught.value.hint}"


# -- definitions ----------------------------------------------------------------------------------------


def test_a_handler_receives_the_value_by_name_as_it_is_wherever_the_parameter_stands() -> None:
    flow = flow_with(model)
    flow.map("after", lambda item, model: [item, model.name])
    flow.map("before", lambda model, item: [item, model.name])

    @flow.map
    def named(item: int, ctx: Context, *, model: Model, more: int = 3) -> list[Any]:
        return [item, ctx.task_index, model.name, more]

    flow.step("single", lambda model: model.name)
    flow.array("array", lambda flow_input, model: [flow_input, model.name])
    flow.step("joined", lambda single, model: [single, model.name], depends_on=["single"])
    flow.step("all", lambda parents, model: [sorted(parents), model.name], depends_on=["single", "array"])
    flow.map("batch", lambda items, model: [[item, model.name] for item in items], batch=2)
    output = run_inline(flow, [1, 2])
    assert output == {
        "after": [[1, "m"], [2, "m"]],
        "before": [[1, "m"], [2, "m"]],
        "named": [[1, 0, "m", 3], [2, 1, "m", 3]],
        "joined": ["m", "m"],
        "all": [["array", "single"], "m"],
        "batch": [[1, "m"], [2, "m"]],
    }


def test_the_quick_way_of_a_map_gives_values_too() -> None:
    flow = flow_with(model)

    @flow.map
    def act(item: int, model: Model) -> list[Any]:
        return [item, model.name]

    values = ProcessValues("f", flow.start_functions)
    prepared = handlers.prepare(flow, "act", values.start())
    assert prepared.quick_output(b"5", None, Context()) == b'[5,"m"]'
    assert prepared.quick_output is not prepared.output
    with pytest.raises(InputMismatch):
        prepared.quick_output(b'"x"', None, Context())
    kind, text = handlers.prepare(flow, "act").execute(b"5", None, Context())
    assert (kind, b'on_start function "model" has not been called' in text) == (handlers.FAILED, True)


def test_a_decorator_leaves_values_to_us_and_rows_keep_their_members() -> None:
    flow = flow_with(model)

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @flow.map
    @logged
    def act(item: int, model: Model) -> str:
        return f"{item}{model.name}"

    @flow.map
    def rows(model: Model, **row: int) -> list[Any]:
        return [model.name, row]

    assert run_inline(flow_with(model).map("act", act), [1]) == {"act": ["1m"]}
    with pytest.raises(FlowDefinitionError, match="nothing receives"):
        flow_with(model).map("act", lambda model: model)
    values = ProcessValues("f", flow.start_functions)
    prepared = handlers.prepare(flow, "rows", values.start())
    assert prepared.execute(b'{"a":1}', None, Context()) == (0, b'["m",{"a":1}]')
    assert b'it has a member "model"' in prepared.execute(b'{"model":1}', None, Context())[1]


def test_names_that_mean_two_things_are_refused_where_they_are_written() -> None:
    flow = flow_with(model)
    assert 'on_start function "model" of flow "f" already exists' in refused(lambda: flow.on_start(model))
    assert 'step "model" of flow "f" has the name of an on_start function' in refused(
        lambda: flow.step("model", lambda: 1)
    )
    before = Flow("f").map("act", lambda item, model=None: item)
    text = refused(lambda: before.on_start(model))
    assert 'is defined after step "act", whose handler has a parameter of this name' in text
    assert "Define it before the steps" in text
    assert "has the name of a step" in refused(lambda: Flow("f").step("model", list).on_start(model))
    for name in ("ctx", "context", "flow_input"):
        assert f'a parameter "{name}" receives something else' in refused(
            functools.partial(Flow("f").on_start, name, model)
        )

    def typed(item: int, model: Context) -> int:
        return item

    assert "yet receives the Context by its annotation" in refused(lambda: flow.map("t", typed))

    def element(model: str) -> str:
        return model

    text = refused(lambda: flow.map("e", element))
    assert "nothing receives the element" in text
    assert "Add a parameter for the element" in text

    def other(item: int, model: str) -> str:
        return model

    text = refused(lambda: flow.map("o", other))
    assert "of type Model, yet it is annotated str" in text
    assert "as_it_is" not in flow.map("fine", lambda item, model: item).steps


def test_a_value_may_be_a_subclass_a_number_or_of_any_type_that_is_not_plain() -> None:
    class Better(Model):
        pass

    class Row(msgspec.Struct):
        pass

    def better() -> Better:
        return Better()

    def row() -> Row:
        return Row()

    def count() -> int:
        return 3

    flow = flow_with(better, row, count)

    @flow.map
    def act(item: int, better: Model, count: float, row: "Unknown") -> Any:  # type: ignore[name-defined]  # noqa: F821, UP037
        return [item, count]

    assert run_inline(flow, [1]) == {"act": [[1, 3]]}


def test_functions_that_cannot_be_called_are_refused() -> None:
    assert "no name" in refused(lambda: Flow("f").on_start(lambda: 1))
    assert "takes a function, not int" in refused(lambda: Flow("f").on_start("x", 3))  # type: ignore[call-overload]
    assert "no parameter can be called 'a b'" in refused(lambda: Flow("f").on_start("a b", model))

    async def soon() -> int:
        return 1

    assert "is a coroutine function" in refused(lambda: Flow("f").on_start(soon))

    def needs(nothing: int) -> int:
        return nothing

    text = refused(lambda: flow_with(model, needs))
    assert 'on_start function "needs" of flow "f": parameter "nothing" can never be supplied' in text
    assert "values of those before it: model" in text
    text = refused(lambda: flow_with(model).map("act", lambda item, modle: item))
    assert "available are the element (first free parameter), model, flow_input, and ctx" in text


def test_it_is_a_decorator_with_or_without_a_name_and_a_call() -> None:
    flow = Flow("f")

    @flow.on_start
    def one() -> int:
        return 1

    @flow.on_start("two")
    def second(one: int, /, unused: int = 5) -> int:
        return one + 1

    assert flow.on_start("three", lambda one, two: one + two) is flow
    assert one() == 1
    assert list(flow.start_functions) == ["one", "two", "three"]
    assert dict(ProcessValues("f", flow.start_functions).start()) == {"one": 1, "two": 2, "three": 3}
    shape = Flow("f").step("s", lambda: 1).shape()
    assert flow.step("s", lambda three: 1).shape() == shape  # the database knows nothing of it


# -- what is called and ended ---------------------------------------------------------------------------


def test_they_are_called_once_in_order_and_ended_in_the_other() -> None:
    done: list[str] = []

    def first() -> Iterator[str]:
        done.append("first")
        yield "1"
        done.append("first ends")

    @contextlib.contextmanager
    def second(first: str) -> Iterator[str]:
        done.append("second")
        yield first + "2"
        done.append("second ends")

    flow = flow_with(first, second).map("act", lambda item, second: item + second)
    assert run_inline(flow, ["a", "b"]) == {"act": ["a12", "b12"]}
    assert done == ["first", "second", "second ends", "first ends"]
    assert run_inline(flow, ["a"], on_start={"second": "!"}) == {"act": ["a!"]}
    assert done[4:] == ["first", "first ends"]
    with pytest.raises(FlowDefinitionError, match='no on_start function "third"') as caught:
        run_inline(flow, ["a"], on_start={"third": 1})
    assert caught.value.hint == "It has first, second."


def test_one_that_fails_is_named_and_those_before_it_are_ended() -> None:
    done: list[str] = []

    def first() -> Iterator[int]:
        yield 1
        done.append("ended")

    def broken(first: int) -> int:
        raise FileNotFoundError("weights.bin")

    flow = flow_with(first, broken).map("act", lambda item, broken: item)
    with pytest.raises(OnStartFailed) as caught:
        run_inline(flow, [1])
    head, _, rest = str(caught.value).partition("\n")
    assert head == 'on_start function "broken" of flow "f" failed: FileNotFoundError: weights.bin'
    assert "in broken" in rest
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert done == ["ended"]


def test_generators_that_yield_never_or_twice_and_ends_that_fail() -> None:
    ended: list[str] = []

    def never() -> Iterator[int]:
        yield from ()

    with pytest.raises(OnStartFailed, match="ended without a yield"):
        run_inline(flow_with(never).step("s", lambda never: 1))

    def outer() -> Iterator[int]:
        yield 1
        ended.append("outer")

    def twice() -> Iterator[int]:
        yield 1
        yield 2

    with pytest.raises(OnStartFailed, match=r"failed at the end: .*more than once"):
        run_inline(flow_with(outer, twice).step("s", lambda twice: 1))
    assert ended == ["outer"]

    def leaves() -> int:
        raise SystemExit(3)

    with pytest.raises(OnStartFailed, match='"leaves" of flow "f" failed: SystemExit: 3'):
        run_inline(flow_with(leaves).step("s", lambda leaves: 1))
