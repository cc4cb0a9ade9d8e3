"""Python's iterables, generators and async iterators as sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from pgflow_mp.errors import InputError
from pgflow_mp.io.source import BATCH_BYTES, ElementBatch, ItemSource, Raw
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import encode_output


class Items(ItemSource):
    """The elements of an iterable, encoded as what handlers return is. What it raises passes through.

    ``nulls``: NaN is null.
    """

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], *, nulls: bool = False) -> None:
        super().__init__("the items")
        self._items = items
        self._nulls = nulls

    def parts(self) -> Iterator[tuple[list[Raw], int]]:
        items = _drawn(self._items) if isinstance(self._items, AsyncIterable) else self._items
        bodies: list[Raw] = []
        first = size = 0
        for number, item in enumerate(items):
            try:
                body = encode_output(item, nulls=self._nulls)
            except OutputError as error:
                raise InputError(
                    f"Item {number} cannot be stored as JSON: {error}", hint=error.hint
                ) from None
            bodies.append(body)
            size += len(body)
            if size > BATCH_BYTES:
                yield bodies, first
                bodies, size, first = [], 0, number + 1
        if bodies:
            yield bodies, first

    def batch(self, part: tuple[list[Raw], int]) -> ElementBatch:
        return ElementBatch(part[0], lambda i: f"item {part[1] + i}")


def _drawn(items: AsyncIterable[Any]) -> Iterator[Any]:
    """What an async iterator gives, in a loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise InputError(
            "An async iterator cannot be read here: a loop runs in this thread",
            hint="Call it in a thread: await asyncio.to_thread(run, flow, items).",
        )
    iterator: AsyncIterator[Any] = aiter(items)
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(_next(iterator))
            except StopAsyncIteration:
                return


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)
