"""User code that a strict type checker accepts; checked by test_typing.py, never imported."""

# pyright: strict

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import assert_type

import msgspec

from pgflow_mp import Artifact, Context, FinishedItem, Flow, Json, PermanentError

flow = Flow("typed", max_attempts=3, base_delay=5, timeout=60, nan="null", artifacts=Path("kept"))


class Item(msgspec.Struct):
    name: str
    size: int = 0


@flow.step
def plain(flow_input: dict[str, int], ctx: Context) -> list[int]:
    if ctx.attempt > 2:
        raise PermanentError("no use")
    return list(flow_input.values())


@flow.array("named", depends_on=[plain], timeout=10)
def listed(plain: list[int]) -> Iterator[Item]:
    yield from (Item(str(size), size) for size in plain)


@flow.map(over=listed, max_attempts=5, when={"a": 1}, when_unmet="skip", when_exhausted="skip-cascade")
def mapped(item: Item) -> int:
    return item.size


@flow.map()
def empty_parentheses(x: int) -> str:
    return str(x)


stored = Flow("stored", storage="ranges")


@stored.map(storage="tasks", batch=256, barrier=True)
def batched(items: list[Item]) -> list[int]:
    return [item.size for item in items]


assert_type(batched([Item("a")]), list[int])
assert_type(plain({"a": 1}, Context()), list[int])
assert_type(mapped(Item("a")), int)
assert_type(empty_parentheses(1), str)

handler: Callable[[Item], int] = mapped

assert_type(flow.step("fluent", plain).map("more", mapped, over="named").array("last", listed), Flow)
assert_type(flow.to_sql(), str)
assert_type(flow.steps["plain"].dependencies, tuple[str, ...])


@flow.step(nan="error")
def file_of(flow_input: str, ctx: Context) -> list[Artifact]:
    with ctx.artifact("notes.txt", media_type="text/plain") as file:
        file.write(flow_input.encode())
    made = Artifact.from_bytes(file.artifact.read(), "copy.txt")
    assert_type(made.path, Path)
    return [file.artifact, made]


assert_type(next(flow.imap([{"a": 1}], workers=2, keep=False)), FinishedItem[Json, object])
