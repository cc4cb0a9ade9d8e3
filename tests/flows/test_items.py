"""What a flow says about items: how its map wants the columns of a table, and who else reads the input."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict

import msgspec
import pytest

from pgflow_mp import Context, Flow
from pgflow_mp.flows.items import reads_whole_input, row_type


class Level(enum.Enum):
    """By number."""

    LOW = 1


class Typed(TypedDict):
    n: int
    maybe: NotRequired[float]


@dataclasses.dataclass
class Plain:
    n: int | None
    text: str = ""


class Renamed(msgspec.Struct, rename="camel"):
    is_it: bool
    kind: Literal["a", 1]
    level: Level
    parts: list[int]


def typed(row: Typed) -> None: ...
def plain(row: Plain) -> None: ...
def renamed(row: Renamed) -> None: ...
def mapping(row: dict[str, float]) -> None: ...
def members(**row: int) -> None: ...
def either(row: Plain | None) -> None: ...
def batch(rows: list[Typed]) -> Any: ...
def text(row: str) -> None: ...
def anything(row: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "fields", "others"),
    [
        (typed, {"n": (["int"], True), "maybe": (["float"], False)}, None),
        (batch, {"n": (["int"], True), "maybe": (["float"], False)}, None),
        (plain, {"n": (["int", "null"], True), "text": (["str"], False)}, None),
        (either, {"n": (["int", "null"], True), "text": (["str"], False)}, None),
        (
            renamed,
            {
                "isIt": (["bool"], True),
                "kind": (["str", "int"], True),
                "level": (["int"], True),
                "parts": (["json"], True),
            },
            None,
        ),
        (mapping, {}, ["float"]),
        (members, {}, ["int"]),
    ],
)
def test_columns_are_what_the_annotation_asks_for(
    handler: Callable[..., Any], fields: dict[str, Any], others: list[str] | None
) -> None:
    options: dict[str, Any] = {"batch": 5} if handler is batch else {}
    found = row_type(Flow("f").map("m", handler, **options))
    assert found is not None
    got = {name: (each.kinds, each.required) for name, each in found.fields.items()}
    assert {name: (sorted(kinds), required) for name, (kinds, required) in got.items()} == {
        name: (sorted(kinds), required) for name, (kinds, required) in fields.items()
    }
    assert (found.others.kinds if found.others else None) == others


def test_what_says_nothing_about_columns_leaves_them_texts() -> None:
    for handler in (text, anything, lambda row: row):
        assert row_type(Flow("f").map("m", handler)) is None
    assert row_type(Flow("f").step("s", typed)) is None


def reads(flow_input: list[int]) -> None: ...
def looks(x: int, ctx: Context) -> Any:
    return ctx.flow_input


def indexes(x: int, ctx: Context) -> Any:
    return ctx.task_index


def test_who_reads_the_whole_input() -> None:
    def of(handler: Callable[..., Any], **options: Any) -> bool:
        return reads_whole_input(Flow("f").map("m", handler, **options))

    assert not of(typed)
    assert not of(indexes)
    assert of(looks)
    assert of(typed, when={"go": True})
    assert reads_whole_input(Flow("f").map("m", typed).step("s", reads))
    assert reads_whole_input(Flow("f").map("m", typed).step("s", text))
    assert not reads_whole_input(Flow("f").map("m", typed).step("s", lambda: 1))
    assert not reads_whole_input(Flow("f").map("m", typed).step("s", lambda m: m, depends_on=["m"]))
    assert reads_whole_input(Flow("f").map("m", typed).step("s", reads, depends_on=["m"]))
