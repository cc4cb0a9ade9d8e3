"""The methods of an asynchronous client that have runs started by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, overload

from pgflow_mp.client.async_calls import AsyncCalls
from pgflow_mp.client.like import like
from pgflow_mp.client.schedule_calls import DEFAULT_NAME, Missed, Planned
from pgflow_mp.client.timetable import Timetable
from pgflow_mp.db.schedules import Schedule
from pgflow_mp.flows.flow import Flow

if TYPE_CHECKING:
    from pgflow_mp.client.arguments import ScheduleArguments
    from pgflow_mp.flows.typed import Input


@like(Timetable)
class AsyncTimetable(AsyncCalls):
    """Schedules. One is named by its flow, or as FLOW/NAME."""

    @overload
    async def schedule(
        self, flow: Flow[Input], cron: str, input: Input | None = None, **how: Unpack[ScheduleArguments]
    ) -> Planned: ...

    @overload
    async def schedule(
        self, flow: str, cron: str, input: object = None, **how: Unpack[ScheduleArguments]
    ) -> Planned: ...

    async def schedule(
        self,
        flow: Flow[Any] | str,
        cron: str,
        input: object = None,
        *,
        time_zone: str = "UTC",
        name: str = DEFAULT_NAME,
        missed: Missed = "once",
        due_as: str | None = None,
        priority: int = 0,
    ) -> Planned:
        return await self._do(
            lambda: self._sync.schedule(
                flow,
                cron,
                input,
                time_zone=time_zone,
                name=name,
                missed=missed,
                due_as=due_as,
                priority=priority,
            )
        )

    async def schedules(self, flow: str | None = None) -> list[Schedule]:
        return await self._do(lambda: self._sync.schedules(flow))

    async def backfill(self, schedule: str, span: str) -> tuple[int, int]:
        return await self._do(lambda: self._sync.backfill(schedule, span))

    async def pause_schedule(self, schedule: str) -> bool:
        return await self._do(lambda: self._sync.pause_schedule(schedule))

    async def resume_schedule(self, schedule: str) -> bool:
        return await self._do(lambda: self._sync.resume_schedule(schedule))

    async def delete_schedule(self, schedule: str) -> None:
        await self._do(lambda: self._sync.delete_schedule(schedule))
