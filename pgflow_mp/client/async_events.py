"""Events of runs for an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from pgflow_mp.client.event_feed import Event, EventLog, Events
from pgflow_mp.client.like import like


@like(Events)
class AsyncEvents(AsyncIterator[Event]):
    """An asynchronous iterator over events, which waits for those to come.

    ``cursor`` is where to go on after the last one that it gave: give it to ``events`` as ``since``, also in
    another process. ``close()`` ends it.
    """

    def __init__(
        self,
        log: Callable[[], Awaitable[EventLog]],
        found: Callable[[EventLog], AsyncGenerator[list[Event], None]],
        since: str | None,
    ) -> None:
        self._make_log, self._make_found = log, found
        self._log: EventLog | None = None
        self._since = since
        self._events: AsyncGenerator[Event, None] | None = None

    def __aiter__(self) -> AsyncEvents:
        return self

    async def __anext__(self) -> Event:
        if self._events is None:
            self._log = await self._make_log()
            self._events = self._each(self._log)
        return await anext(self._events)

    @property
    def cursor(self) -> str:
        if self._log is None:
            return self._since or EventLog([]).cursor
        return self._log.cursor

    async def close(self) -> None:
        if self._events is not None:
            await self._events.aclose()

    async def _each(self, log: EventLog) -> AsyncGenerator[Event, None]:
        found = self._make_found(log)
        try:
            async for batch in found:
                for event in batch:
                    log.take(event)
                    yield event
        finally:
            await found.aclose()
