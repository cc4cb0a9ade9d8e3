"""Maps say what their items are and what becomes of them, whatever stands before the item."""

# pyright: strict

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, assert_type

from pgflow_mp import Context, Failed, Flow, MapFunction

T = TypeVar("T")
flow = Flow[list[str]]("typed_maps")


@flow.map
def size(line: str) -> int:
    return len(line)


@flow.map(over=size, tolerate=0.5)
def half(ctx: Context, size: int) -> float:
    return size / 2


@flow.map(over=half, batch=10)
def shown(halves: list[float | None]) -> list[str | Failed]:
    return [str(half) for half in halves]


@flow.map(over="size")
def parts(size: int) -> Iterator[bytes]:
    yield bytes(size)


def item(of: MapFunction[..., object, object, T, object]) -> T:
    raise NotImplementedError


def result(of: MapFunction[..., object, object, object, T]) -> T:
    raise NotImplementedError


assert_type(item(size), str)
assert_type(result(size), int)
assert_type(item(half), int)
assert_type(result(half), float)
assert_type(item(shown), float | None)
assert_type(result(shown), str)
assert_type(item(parts), object)
assert_type(result(parts), list[bytes])
