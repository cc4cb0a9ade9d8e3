"""The methods of an asynchronous client that start runs and jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from pgflow_mp.client.async_calls import drawn_in
from pgflow_mp.client.async_run import AsyncRun
from pgflow_mp.client.async_steering import AsyncSteering
from pgflow_mp.client.like import like
from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.starts import Starts
from pgflow_mp.db.pausing import When
from pgflow_mp.flows.flow import Flow

if TYPE_CHECKING:
    from pgflow_mp.client.arguments import FlowOf, StartArguments, StartFlowArguments
    from pgflow_mp.client.async_client import AsyncClient
    from pgflow_mp.flows.typed import Input, StepLike, T


@like(Starts)
class AsyncStarts(AsyncSteering):
    """Starting runs, and plain background jobs."""

    @overload
    async def start_flow(
        self, flow: Flow[Input], /, input: Input, run_id: str | None = None, **how: Unpack[StartFlowArguments]
    ) -> AsyncRun: ...

    @overload
    async def start_flow(
        self, slug: str, input: object, run_id: str | None = None, **how: Unpack[StartFlowArguments]
    ) -> AsyncRun: ...

    async def start_flow(
        self,
        slug: str | Flow[Any],
        input: object,
        run_id: str | None = None,
        *,
        priority: int = 0,
        tags: Sequence[str] = (),
        after: When | None = None,
        key: str | None = None,
        from_run: str | None = None,
        reuse: Sequence[StepLike] = (),
    ) -> AsyncRun:
        begin: Callable[..., Run] = self._sync.start_flow
        run = await self._do(
            lambda: begin(
                slug,
                input,
                run_id,
                priority=priority,
                tags=tags,
                after=after,
                key=key,
                from_run=from_run,
                reuse=reuse,
            )
        )
        return AsyncRun(cast("AsyncClient", self), run)

    @overload
    async def start(
        self,
        flow: FlowOf[T],
        items: Iterable[T] | AsyncIterable[T],
        **how: Unpack[StartArguments],
    ) -> AsyncRun: ...

    @overload
    async def start(
        self,
        flow: Flow[Input],
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object],
        **how: Unpack[StartArguments],
    ) -> AsyncRun: ...

    @overload
    async def start(
        self,
        flow: str,
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object] | None = None,
        **how: Unpack[StartArguments],
    ) -> AsyncRun: ...

    async def start(
        self,
        flow: Flow[Any] | str,
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object] | None = None,
        run_id: str | None = None,
        priority: int = 0,
        tags: Sequence[str] = (),
        after: When | None = None,
        key: str | None = None,
        from_run: str | None = None,
        reuse: Sequence[StepLike] = (),
    ) -> AsyncRun:
        loop = asyncio.get_running_loop()
        drawn = drawn_in(loop, aiter(items)) if isinstance(items, AsyncIterable) else items
        begin: Callable[..., Run] = self._sync.start
        run = await self._do_aside(
            lambda: begin(
                flow,
                drawn,
                params=params,
                run_id=run_id,
                priority=priority,
                tags=tags,
                after=after,
                key=key,
                from_run=from_run,
                reuse=reuse,
            )
        )
        return AsyncRun(cast("AsyncClient", self), run)

    async def enqueue(self, queue: str, payload: object, *, delay: float = 0) -> int:
        return await self._do(lambda: self._sync.enqueue(queue, payload, delay=delay))

    async def enqueue_many(self, queue: str, payloads: Iterable[object], *, delay: float = 0) -> list[int]:
        return await self._do(lambda: self._sync.enqueue_many(queue, payloads, delay=delay))
