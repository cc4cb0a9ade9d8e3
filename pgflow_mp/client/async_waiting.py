"""Waiting for runs without a thread: one connection listens for all that is waited for in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg

from pgflow_mp.client.waiting import PAUSES, Rest, Rounds
from pgflow_mp.db import async_connection
from pgflow_mp.db.hints import REST
from pgflow_mp.errors import PgflowError

_AGAIN: Final = (0.1, 5.0)  # seconds until a lost connection is opened again: the first and the longest pause
_RUN: Final = re.compile(r'"run_id": "([0-9a-f-]{36})"')
_STREAMS: Final = 8
_END: Final = object()

T = TypeVar("T")


class Listening:
    """Wakes those who wait for runs, by what one connection hears; opened again whenever it is lost.

    Who waits looks by itself, now and then, too: what is heard is a hint. All of it is for one event loop
    at a time; in another one it begins anew.
    """

    def __init__(self, dsn: Callable[[], Awaitable[str]]) -> None:
        self._dsn = dsn
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, run_ids: Collection[str], seconds: float) -> None:
        """Wait for so long, or less if there is an event of one of these runs."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._loop is not loop:
            self._waiting.clear()
            self._loop, self._task = loop, loop.create_task(self._listen(), name="pgflow listening")
        woken, least = asyncio.Event(), loop.time() + min(seconds, PAUSES[0])
        for run_id in run_ids:
            self._waiting.setdefault(run_id, set()).add(woken)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), seconds)
        finally:
            for run_id in run_ids:
                of_run = self._waiting.get(run_id, set())
                of_run.discard(woken)
                if not of_run:
                    self._waiting.pop(run_id, None)
        if (early := least - loop.time()) > 0:  # whoever may log in may send events, as many as it likes
            await asyncio.sleep(early)

    async def close(self) -> None:
        """Listen no more."""
        task, self._task = self._task, None
        if task is not None and self._loop is asyncio.get_running_loop():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen(self) -> None:
        pause = _AGAIN[0]
        while True:
            try:
                conn = await async_connection.connect(await self._dsn())
                async with conn:
                    await conn.execute("listen pgflow_events")
                    pause = _AGAIN[0]
                    self._wake([*self._waiting])  # what was announced while nobody listened
                    while True:
                        async for notify in conn.notifies(stop_after=1):  # with all that came with it
                            self._wake(_RUN.findall(notify.payload))
                        await asyncio.sleep(REST)
            except (psycopg.Error, PgflowError, OSError):
                await asyncio.sleep(pause)
                pause = min(_AGAIN[1], 2 * pause)

    def _wake(self, run_ids: Collection[str]) -> None:
        for run_id in run_ids:
            for woken in self._waiting.get(run_id, ()):
                woken.set()


class Threads:
    """What a client's calls run in, which would hold up the event loop: one for calls, a few for streams."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    @property
    def calls(self) -> Executor:
        """Those on the client's one connection, one after the other."""
        return self._pool(1)

    @property
    def streams(self) -> Executor:
        """Those on connections of their own."""
        return self._pool(_STREAMS)

    def close(self) -> None:
        """Wait for nothing; the next call makes new ones."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=False)

    def _pool(self, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if size not in self._pools:
                self._pools[size] = ThreadPoolExecutor(size, "pgflow-client")
            return self._pools[size]


class _Stream:
    """A generator that is asked in threads, one at a time, and closed once none asks it."""

    def __init__(self, generator: Any, close: Callable[[], object]) -> None:
        self._generator = generator
        self._close = close
        self._lock = threading.Lock()

    def next(self) -> Any:
        with self._lock:
            return next(self._generator, _END)

    def close(self) -> None:
        with self._lock:
            self._generator.close()
            self._close()


async def rounds_async(
    rounds: Rounds[T],
    pool: Executor,
    wait: Callable[[float], Awaitable[None]],
    close: Callable[[], object] = lambda: None,
) -> AsyncGenerator[T, None]:
    """What the rounds find; they read in the pool's threads, pauses take none. Ends with ``close``."""
    loop, stream = asyncio.get_running_loop(), _Stream(rounds, close)
    try:
        while (found := await loop.run_in_executor(pool, stream.next)) is not _END:
            if isinstance(found, Rest):
                await wait(found.seconds)
            else:
                yield found
    finally:
        pool.submit(stream.close)  # not awaited: whoever is cancelled is not held up by a read that lasts


async def streamed(generator: Any, pool: Executor, at_once: int) -> AsyncGenerator[Any, None]:
    """What a generator yields, which reads in the pool's threads, so many at once."""

    def pages() -> Any:
        page: list[Any] = []
        for each in generator:
            page.append(each)
            if len(page) == at_once:
                yield page
                page = []
        yield page

    loop, stream = asyncio.get_running_loop(), _Stream(pages(), getattr(generator, "close", lambda: None))
    try:
        while (page := await loop.run_in_executor(pool, stream.next)) is not _END:
            for each in page:
                yield each
    finally:
        pool.submit(stream.close)
