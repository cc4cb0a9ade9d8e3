"""The methods of an asynchronous client that change what runs do."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from pgflow_mp.client.async_run import AsyncRun, plain_run
from pgflow_mp.client.async_timetable import AsyncTimetable
from pgflow_mp.client.like import like
from pgflow_mp.client.retried import Indexes, Retry
from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.steering import Steering
from pgflow_mp.db.draining import Drained
from pgflow_mp.db.pausing import When
from pgflow_mp.db.pruning import Pruned

if TYPE_CHECKING:
    from pgflow_mp.client.async_client import AsyncClient
    from pgflow_mp.flows.typed import StepLike


@like(Steering)
class AsyncSteering(AsyncTimetable):
    """Cancelling, trying again, pausing, deleting."""

    async def cancel(self, run: AsyncRun | str, reason: str = "Run cancelled") -> AsyncRun:
        return AsyncRun(
            cast("AsyncClient", self), await self._do(lambda: self._sync.cancel(plain_run(run), reason))
        )

    async def retry_failed(self, run: AsyncRun | str) -> int:
        return await self._do(lambda: self._sync.retry_failed(plain_run(run)))

    async def retry(
        self,
        run: AsyncRun | str,
        *,
        steps: StepLike | Iterable[StepLike] | None = None,
        indexes: Indexes | None = None,
        errors: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> Retry:
        return await self._do(
            lambda: self._sync.retry(
                plain_run(run), steps=steps, indexes=indexes, errors=errors, dry_run=dry_run
            )
        )

    async def pause(
        self,
        run: AsyncRun | str | None = None,
        *,
        flow: str | None = None,
        reason: str | None = None,
        until: When | None = None,
    ) -> bool:
        return await self._do(lambda: self._sync.pause(_maybe(run), flow=flow, reason=reason, until=until))

    async def resume(self, run: AsyncRun | str | None = None, *, flow: str | None = None) -> bool:
        return await self._do(lambda: self._sync.resume(_maybe(run), flow=flow))

    async def drain(self, *, flow: str | None = None, worker: str | None = None) -> list[Drained]:
        return await self._do(lambda: self._sync.drain(flow=flow, worker=worker))

    async def delete(self, run: AsyncRun | str | None = None, *, flow: str | None = None) -> None:
        await self._do(lambda: self._sync.delete(_maybe(run), flow=flow))

    async def prune(self, keep: timedelta | float, *, flow: str | None = None) -> Pruned:
        return await self._do_aside(lambda: self._sync.prune(keep, flow=flow))


def _maybe(run: AsyncRun | str | None) -> Run | str | None:
    return None if run is None else plain_run(run)
