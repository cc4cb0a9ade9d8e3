"""A run as an asynchronous client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, overload

from pgflow_mp.client.async_events import AsyncEvents
from pgflow_mp.client.like import like
from pgflow_mp.client.progressing import RunProgress
from pgflow_mp.client.retried import Indexes, Retry
from pgflow_mp.client.run_handles import Run
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.observe.reports import FailureGroup
from pgflow_mp.observe.run_reports import StepReport
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.client.async_client import AsyncClient
    from pgflow_mp.flows.typed import OneMap, OneStep, Out, PlainFunction, StepLike, T, X


@like(Run)
class AsyncRun:
    """A run as of its last :meth:`refresh`: what the database said then.

    A :class:`Run` whose calls are awaited; payloads, the key and the error are methods.
    """

    def __init__(self, client: AsyncClient, run: Run) -> None:
        self._client = client
        self._run = run

    def __repr__(self) -> str:
        return f"<AsyncRun {self.run_id} of {self.flow_slug}: {self.status}>"

    @property
    def run_id(self) -> str:
        return self._run.run_id

    @property
    def flow_slug(self) -> str:
        return self._run.flow_slug

    @property
    def status(self) -> str:
        return self._run.status

    @property
    def remaining_steps(self) -> int:
        return self._run.remaining_steps

    @property
    def started_at(self) -> datetime:
        return self._run.started_at

    @property
    def completed_at(self) -> datetime | None:
        return self._run.completed_at

    @property
    def failed_at(self) -> datetime | None:
        return self._run.failed_at

    async def key(self) -> str | None:
        return await self._client._do(lambda: self._run.key)

    async def input(self) -> Json:
        return await self._client._do(lambda: self._run.input)

    async def output(self) -> dict[str, Json] | None:
        return await self._client._do(lambda: self._run.output)

    async def error(self) -> str | None:
        return await self._client._do(lambda: self._run.error)

    async def steps(self) -> list[StepReport]:
        """The steps in definition order, with their states and numbers."""
        return await self._client.steps(self)

    async def refresh(self) -> AsyncRun:
        await self._client._do(self._run.refresh)
        return self

    async def wait(
        self, timeout: float | None = 300.0, status: Literal["completed", "failed"] = "completed"
    ) -> AsyncRun:
        await self._client._await(self._run, self._run._waiting(status, timeout))
        return self

    @overload
    async def result(self, timeout: float | None = 300.0) -> dict[str, Json] | None: ...

    @overload
    async def result(self, timeout: float | None = 300.0, *, output: str) -> Json: ...

    @overload
    async def result(self, timeout: float | None = 300.0, *, output: OneStep[Out]) -> Out: ...

    @overload
    async def result(self, timeout: float | None = 300.0, *, output: PlainFunction) -> object: ...

    async def result(self, timeout: float | None = 300.0, *, output: StepLike | None = None) -> Any:
        if output is None:
            return await (await self.wait(timeout)).output()
        wanted = await self._client._do(lambda: self._client._sync._step_of(self._run, output))
        await self._client._do(lambda: self._client._sync._check_step(wanted.run_id, wanted.slug))
        await self.wait(timeout)
        return await self._client._do(lambda: self._client._sync._read_output(wanted))

    @overload
    def results(self, step: str) -> AsyncIterator[Json]: ...

    @overload
    def results(self, step: OneMap[T, X]) -> AsyncIterator[X]: ...

    @overload
    def results(self, step: OneStep[Out]) -> AsyncIterator[Out]: ...

    @overload
    def results(self, step: PlainFunction) -> AsyncIterator[object]: ...

    def results(self, step: StepLike) -> AsyncIterator[Any]:
        return self._client.results(self, step)

    @overload
    def as_completed(
        self, step: str, *, ordered: bool = False, timeout: float | None = None
    ) -> AsyncIterator[FinishedItem[Json, Json]]: ...

    @overload
    def as_completed(  # type: ignore[overload-overlap]
        self, step: OneMap[T, X], *, ordered: bool = False, timeout: float | None = None
    ) -> AsyncIterator[FinishedItem[T, X]]: ...

    @overload
    def as_completed(
        self, step: OneStep[Out], *, ordered: bool = False, timeout: float | None = None
    ) -> AsyncIterator[FinishedItem[Json, Out]]: ...

    @overload
    def as_completed(
        self, step: PlainFunction, *, ordered: bool = False, timeout: float | None = None
    ) -> AsyncIterator[FinishedItem[object, object]]: ...

    def as_completed(
        self, step: StepLike, *, ordered: bool = False, timeout: float | None = None
    ) -> AsyncIterator[FinishedItem[Any, Any]]:
        return self._client.as_completed(self, step, ordered=ordered, timeout=timeout)

    def events(
        self, *, since: str | None = None, follow: bool = True, timeout: float | None = None
    ) -> AsyncEvents:
        return self._client.events(self, since=since, follow=follow, timeout=timeout)

    def progress(
        self, *, step: StepLike | None = None, interval: float = 0.5, timeout: float | None = None
    ) -> AsyncIterator[RunProgress]:
        return self._client.progress(self, step=step, interval=interval, timeout=timeout)

    async def failures(self, step: StepLike | None = None, *, error: str | None = None) -> list[FailureGroup]:
        return await self._client.failures(self, step, error=error)

    async def cancel(self, reason: str = "Run cancelled") -> AsyncRun:
        await self._client._do(lambda: self._run.cancel(reason))
        return self

    async def retry_failed(self) -> int:
        return await self._client._do(self._run.retry_failed)

    async def retry(
        self,
        *,
        steps: StepLike | Iterable[StepLike] | None = None,
        indexes: Indexes | None = None,
        errors: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> Retry:
        return await self._client._do(
            lambda: self._run.retry(steps=steps, indexes=indexes, errors=errors, dry_run=dry_run)
        )


def plain_run(run: AsyncRun | str) -> Run | str:
    """What a synchronous client takes it for."""
    return run._run if isinstance(run, AsyncRun) else run
