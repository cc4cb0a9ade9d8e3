"""Decorated handlers: what the decorator gives is left to it. And ``**row``, which takes an object apart."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sqlite3
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import pytest

from pgflow_mp import Context, Flow, FlowDefinitionError
from pgflow_mp.testing import run_inline

SESSION = sqlite3.connect(":memory:")
Handler = Callable[..., Any]


def by_keyword(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, session=SESSION, **kwargs)

    return inner


def by_item(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        kwargs["session"] = SESSION
        return function(*args, **kwargs)

    return inner


def by_update(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        kwargs.update({"session": SESSION})
        return function(*args, **kwargs)

    return inner


def in_front(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(SESSION, *args, **kwargs)

    return inner


def positional_only(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(SESSION, *args)

    return inner


def open_session(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        with contextlib.nullcontext(SESSION) as session:
            return function(session, *args, **kwargs)

    return inner


def named(**more: Any) -> Callable[[Handler], Handler]:
    def decorate(function: Handler) -> Handler:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **{**kwargs, **more})

        return inner

    return decorate


class Giving:
    """A decorator that is a class."""

    def __init__(self, function: Handler) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, session=SESSION, **kwargs)


def passing(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def exact(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(item: int) -> Any:
        return function(item, SESSION)

    return inner


def signed(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs, session=SESSION)

    whole = inspect.signature(function)
    kept = [parameter for name, parameter in whole.parameters.items() if name != "session"]
    inner.__signature__ = whole.replace(parameters=kept)  # type: ignore[attr-defined]
    return inner


def asking(function: Handler) -> Handler:
    @functools.wraps(function)
    def inner(*args: Any, ctx: Context, **kwargs: Any) -> Any:
        return function(*args, session=ctx.task_index, **kwargs)

    return inner


def item_first(item: int, session: Any) -> Any:
    return [item, session is SESSION]


def item_last(session: Any, item: int) -> Any:
    return [item, session is SESSION]


def typed(item: int, session: sqlite3.Connection) -> Any:
    return [item, session is SESSION]


def typed_last(connection: sqlite3.Connection, item: int) -> Any:
    return [item, connection is SESSION]


def by_name_only(item: int, *, session: Any) -> Any:
    return [item, session is SESSION]


KEYWORDS: list[Callable[[Handler], Handler]] = [
    by_keyword,
    by_item,
    by_update,
    Giving,
    named(session=SESSION),
    signed,
]
GIVING: list[Handler] = [
    *(decorate(handler) for decorate in KEYWORDS for handler in (item_first, typed, by_name_only)),
    *(decorate(item_last) for decorate in (by_keyword, by_item, Giving, in_front, positional_only)),
    *(decorate(typed_last) for decorate in (in_front, positional_only, open_session)),
    *(open_session(item_last), exact(item_first), passing(by_keyword(item_first)), by_item(passing(typed))),
    functools.cache(by_keyword(item_first)),
]


@pytest.mark.parametrize("handler", GIVING, ids=range(len(GIVING)))
def test_what_a_decorator_gives_is_left_to_it(handler: Handler) -> None:
    assert run_inline(Flow("demo").map("m", handler), [7, 8]) == {"m": [[7, True], [8, True]]}
    assert run_inline(Flow("demo").step("s", handler), 7) == {"s": [7, True]}


def test_the_outputs_of_parents_go_by_name_past_a_decorator() -> None:
    @by_keyword
    def join(session: Any, left: int, right: int, ctx: Context) -> Any:
        return [left, right, session is SESSION, ctx.step_slug]

    @in_front
    def load(session: sqlite3.Connection) -> int:
        assert session is SESSION
        return 1

    flow = Flow("demo").step("left", load).step("right", lambda: 2)
    assert run_inline(flow.step("join", join, depends_on=["left", "right"]), output="join") == [
        1,
        2,
        True,
        "join",
    ]


def test_a_decorator_may_ask_for_the_context_itself() -> None:
    def work(item: int, session: int) -> list[int]:
        return [item, session]

    assert run_inline(Flow("demo").map("m", asking(work)), [7, 8]) == {"m": [[7, 0], [8, 1]]}


def test_a_parameter_that_a_decorator_does_not_give_is_refused_as_without_it() -> None:
    def join(left: int, rigth: int) -> None: ...

    def log(function: Handler) -> Handler:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    flow = Flow("demo").step("left", lambda: 1).step("right", lambda: 2)
    with pytest.raises(FlowDefinitionError, match='parameter "rigth" can never be supplied'):
        flow.step("join", log(join), depends_on=["left", "right"])
    with pytest.raises(FlowDefinitionError, match='parameter "session" can never be supplied'):
        Flow("demo").map("m", passing(item_first))


class Row(TypedDict):
    name: str
    size: int


def test_an_object_is_taken_apart_by_keywords() -> None:
    def whole(**row: Any) -> Any:
        return sorted(row.items())

    def numbers(ctx: Context, **row: int) -> int:
        return sum(row.values()) + ctx.task_index

    def typed(**row: Unpack[Row]) -> str:
        return row["name"] * row["size"]

    def first(item: dict[str, int], **rest: int) -> Any:
        return [item, rest]

    row = {"name": "a", "size": 2}
    assert run_inline(Flow("demo").map("m", whole), [row], output="m") == [[["name", "a"], ["size", 2]]]
    assert run_inline(Flow("demo").step("s", whole), row, output="s") == [["name", "a"], ["size", 2]]
    assert run_inline(Flow("demo").map("m", numbers), [{"a": 1}, {"a": 1, "b": 2}], output="m") == [1, 4]
    assert run_inline(Flow("demo").map("m", typed), [row], output="m") == ["aa"]
    assert run_inline(Flow("demo").map("m", first), [{"a": 1}], output="m") == [[{"a": 1}, {}]]


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ([1], "Expected `object`, got `array`"),
        ({"a": "x"}, r"Expected `int`, got `str` - at `\$\[\.\.\.\]`"),
        ({"ctx": 1}, 'it has a member "ctx", which is another parameter'),
    ],
)
def test_what_cannot_be_taken_apart_fails_for_good(element: Any, words: str) -> None:
    calls: list[Any] = []

    def take(ctx: Context, **row: int) -> None:
        calls.append(row)

    with pytest.raises(Exception, match=f'does not fit parameter "row": {words}'):
        run_inline(Flow("demo", max_attempts=3).map("m", take), [element])
    assert calls == []


def test_a_catch_all_receives_the_element_whole() -> None:
    def everything(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    assert run_inline(Flow("demo").map("m", everything), [{"a": 1}, [2]], output="m") == [
        [[{"a": 1}], {}],
        [[[2]], {}],
    ]
    assert run_inline(Flow("demo").map("m", lambda *args: args), [[1, 2]], output="m") == [[[1, 2]]]
