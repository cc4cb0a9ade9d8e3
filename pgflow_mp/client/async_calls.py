"""What the methods of an asynchronous client are made of: calls in threads, and waiting without any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import wait
from typing import Any, Final, TypeVar

from pgflow_mp.client.async_waiting import Listening, Threads, rounds_async, streamed
from pgflow_mp.client.calls import Calls
from pgflow_mp.client.client import Client
from pgflow_mp.client.like import like
from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.waiting import Rounds
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.errors import InputError

_AT_ONCE: Final = 200  # results that come out of a thread together
_LOOK: Final = 1.0  # seconds after which a thread asks whether the loop is there still

T = TypeVar("T")


@like(Calls)
class AsyncCalls:
    """Another client's calls, from an event loop."""

    def __init__(self, client: Client) -> None:
        self._sync = client
        self._threads = Threads()
        self._listening = Listening(lambda: self._do(self._sync._dsn))

    async def close(self) -> None:
        await self._listening.close()
        await self._do(self._sync.close)
        self._threads.close()

    async def _do(self, work: Callable[[], T]) -> T:
        """What a call on the client's connection answers, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads.calls, work)

    async def _do_aside(self, work: Callable[[], T]) -> T:
        """The same of one that lasts, on a connection of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads.streams, work)

    async def _rounds(
        self, make: Callable[[Keeper], Rounds[T]], run_ids: Collection[str]
    ) -> AsyncGenerator[T, None]:
        keeper = await self._do(self._sync._new_keeper)
        found = rounds_async(
            make(keeper),
            self._threads.streams,
            lambda seconds: self._listening.wait(run_ids, seconds),
            keeper.close,
        )
        try:
            with public_errors():
                async for each in found:
                    yield each
        finally:
            await found.aclose()

    async def _await(self, run: Run, rounds: Rounds[None]) -> None:
        """Wait until the rounds end, which look by the client's connection; raises what they raise."""
        found = rounds_async(
            rounds, self._threads.calls, lambda seconds: self._listening.wait([run.run_id], seconds)
        )
        async for _ in found:
            pass

    async def _stream(self, make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        """What an iterator of the other client yields."""
        async for each in streamed(await self._do(make), self._threads.streams, _AT_ONCE):
            yield each


def drawn_in(loop: asyncio.AbstractEventLoop, items: AsyncIterator[Any]) -> Iterator[Any]:
    """The items of an async iterator of this loop, drawn in a thread that is not the loop's."""

    async def draw() -> list[Any]:
        return [item async for item in _first(items)]

    while True:
        drawing = asyncio.run_coroutine_threadsafe(draw(), loop)
        while not wait([drawing], _LOOK).done:
            if loop.is_closed():
                raise InputError("The event loop has ended before all items were drawn")
        found = drawing.result()
        if not found:
            return
        yield from found


async def _first(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The next one, if there is any."""
    async for item in items:
        yield item
        return
