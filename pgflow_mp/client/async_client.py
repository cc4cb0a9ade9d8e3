"""The client for programs with an event loop: the same methods as :class:`Client`, awaited."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Iterable,
)
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pgflow_mp.client.asking import ItemStatus
from pgflow_mp.client.async_events import AsyncEvents
from pgflow_mp.client.async_run import AsyncRun, plain_run
from pgflow_mp.client.async_starts import AsyncStarts
from pgflow_mp.client.client import Client
from pgflow_mp.client.event_feed import Event, EventLog, event_rounds
from pgflow_mp.client.finished_items import finished_items
from pgflow_mp.client.following import item_rounds
from pgflow_mp.client.like import like
from pgflow_mp.client.progressing import RunProgress, progress_rounds
from pgflow_mp.client.waiting import Deadline
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.observe.reports import FailureGroup
from pgflow_mp.observe.run_reports import ItemReport, RunDetails, RunReport, RunState, StepReport
from pgflow_mp.observe.worker_reports import FlowReport, WorkerInfo
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import OneMap, OneStep, Out, PlainFunction, StepLike, T, X
    from pgflow_mp.observe.read_stacks import WorkerStacks


@like(Client)
class AsyncClient(AsyncStarts):
    """A :class:`Client` for programs with an event loop: the same methods, awaited or iterated.

    What waits (``wait``, ``events``, ``progress``, ``as_completed``) takes no thread while it does: one
    asynchronous connection listens for all of it. Single calls and the reading of streams run in threads of
    the client's own, so the loop is never held up; items that an async iterator gives are drawn in the
    loop. What a call has begun is done, though whoever awaited it is cancelled. Mistakes in what an
    iterator is asked for are raised when it is first asked. For one event loop at a time.
    """

    def __init__(self, dsn: str | None = None, *, data_dir: Path | str | None = None) -> None:
        super().__init__(Client(dsn, data_dir=data_dir))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    # -- reading -----------------------------------------------------------------------------------

    async def get_run(self, run_id: str) -> AsyncRun | None:
        run = await self._do(lambda: self._sync.get_run(run_id))
        return None if run is None else AsyncRun(self, run)

    async def run(self, run_id: str) -> AsyncRun:
        return AsyncRun(self, await self._do(lambda: self._sync.run(run_id)))

    async def runs(
        self,
        limit: int = 50,
        *,
        flow: str | None = None,
        states: RunState | Collection[RunState] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tag: str | None = None,
        key: str | None = None,
        after: RunReport | None = None,
    ) -> list[RunReport]:
        return await self._do(
            lambda: self._sync.runs(
                limit, flow=flow, states=states, since=since, until=until, tag=tag, key=key, after=after
            )
        )

    async def report(self, run: AsyncRun | str) -> RunDetails:
        return await self._do(lambda: self._sync.report(plain_run(run)))

    async def html_report(self, run: AsyncRun | str) -> str:
        return await self._do(lambda: self._sync.html_report(plain_run(run)))

    async def steps(self, run: AsyncRun | str) -> list[StepReport]:
        return await self._do(lambda: self._sync.steps(plain_run(run)))

    def items(
        self,
        run: AsyncRun | str,
        step: StepLike,
        *,
        statuses: ItemStatus | Collection[ItemStatus] | None = None,
        start: int = 0,
        limit: int | None = None,
        chars: int = 200,
    ) -> AsyncIterator[ItemReport]:
        return self._stream(
            lambda: self._sync.items(
                plain_run(run), step, statuses=statuses, start=start, limit=limit, chars=chars
            )
        )

    async def workers(self, *, alive_only: bool = True) -> list[WorkerInfo]:
        return await self._do(lambda: self._sync.workers(alive_only=alive_only))

    async def stacks(self, *, wait: float = 5.0) -> list[WorkerStacks]:
        return await self._do_aside(lambda: self._sync.stacks(wait=wait))

    async def flows(self) -> list[FlowReport]:
        return await self._do(self._sync.flows)

    @overload
    def results(self, run: AsyncRun | str, step: str) -> AsyncIterator[Json]: ...

    @overload
    def results(self, run: AsyncRun | str, step: OneMap[T, X]) -> AsyncIterator[X]: ...

    @overload
    def results(self, run: AsyncRun | str, step: OneStep[Out]) -> AsyncIterator[Out]: ...

    @overload
    def results(self, run: AsyncRun | str, step: PlainFunction) -> AsyncIterator[object]: ...

    def results(self, run: AsyncRun | str, step: StepLike) -> AsyncIterator[Any]:
        return self._stream(lambda: self._sync.results(plain_run(run), step))

    @overload
    def indexed_results(self, run: AsyncRun | str, step: str) -> AsyncIterator[tuple[int, Json]]: ...

    @overload
    def indexed_results(self, run: AsyncRun | str, step: OneMap[T, X]) -> AsyncIterator[tuple[int, X]]: ...

    @overload
    def indexed_results(self, run: AsyncRun | str, step: OneStep[Out]) -> AsyncIterator[tuple[int, Out]]: ...

    @overload
    def indexed_results(
        self, run: AsyncRun | str, step: PlainFunction
    ) -> AsyncIterator[tuple[int, object]]: ...

    def indexed_results(self, run: AsyncRun | str, step: StepLike) -> AsyncIterator[tuple[int, Any]]:
        return self._stream(lambda: self._sync.indexed_results(plain_run(run), step))

    async def failures(
        self, run: AsyncRun | str, step: StepLike | None = None, *, error: str | None = None
    ) -> list[FailureGroup]:
        return await self._do(lambda: self._sync.failures(plain_run(run), step, error=error))

    # -- waiting -----------------------------------------------------------------------------------

    async def wait(
        self,
        run: AsyncRun | str,
        timeout: float | None = 300.0,
        status: Literal["completed", "failed"] = "completed",
    ) -> AsyncRun:
        known = await self._do(lambda: self._sync._run(plain_run(run)))
        return await AsyncRun(self, known).wait(timeout, status)

    @overload
    def as_completed(
        self, run: AsyncRun | str, step: str, *, ordered: bool = False, timeout: float | None = None
    ) -> AsyncIterator[FinishedItem[Json, Json]]: ...

    @overload
    def as_completed(  # type: ignore[overload-overlap]
        self,
        run: AsyncRun | str,
        step: OneMap[T, X],
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[FinishedItem[T, X]]: ...

    @overload
    def as_completed(
        self,
        run: AsyncRun | str,
        step: OneStep[Out],
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[FinishedItem[Json, Out]]: ...

    @overload
    def as_completed(
        self,
        run: AsyncRun | str,
        step: PlainFunction,
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[FinishedItem[object, object]]: ...

    async def as_completed(
        self,
        run: AsyncRun | str,
        step: StepLike,
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[FinishedItem[Any, Any]]:
        known = await self._do(lambda: self._sync._run(plain_run(run)))
        wanted = await self._do(lambda: self._sync._step_of(known, step))
        deadline = Deadline(timeout, f"run {known.run_id} to reach status 'completed'")
        found = self._rounds(
            lambda keeper: item_rounds(keeper, known, wanted.slug, deadline, ordered=ordered), [known.run_id]
        )
        async for ended in found:
            for each in ended:
                for item in finished_items(each, wanted.output.tasks, wanted.read_inputs):
                    yield item

    def events(
        self,
        runs: AsyncRun | str | Iterable[AsyncRun | str],
        *,
        since: str | None = None,
        follow: bool = True,
        timeout: float | None = None,
    ) -> AsyncEvents:
        wanted = [plain_run(run) for run in ([runs] if isinstance(runs, AsyncRun | str) else runs)]

        def found(log: EventLog) -> AsyncGenerator[list[Event], None]:
            deadline = log.deadline(timeout)
            return self._rounds(
                lambda keeper: event_rounds(keeper, log, deadline, follow=follow), log.run_ids
            )

        return AsyncEvents(lambda: self._do(lambda: self._sync._event_log(wanted, since)), found, since)

    async def progress(
        self,
        run: AsyncRun | str,
        *,
        step: StepLike | None = None,
        interval: float = 0.5,
        timeout: float | None = None,
    ) -> AsyncIterator[RunProgress]:
        run_id, slug = await self._do(lambda: self._sync._progress_of(plain_run(run), step, interval))
        deadline = Deadline(timeout, f"run {run_id} to reach status 'completed'")
        found = self._rounds(
            lambda keeper: progress_rounds(keeper, run_id, slug, interval, deadline), [run_id]
        )
        async for now in found:
            yield now
