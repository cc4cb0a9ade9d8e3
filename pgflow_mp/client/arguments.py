"""Keyword arguments that several forms of a call share, for type checkers; the calls say what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor as Pool
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from pgflow_mp.client.schedule_calls import Missed
from pgflow_mp.db.pausing import When
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.run_options import RunOptions
from pgflow_mp.flows.typed import T
from pgflow_mp.observe.observer import Observer

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import StepLike

FlowOf = Flow[list[T]] | Flow[Sequence[T]] | Flow[Iterable[T]] | Flow[tuple[T, ...]]
"""A flow whose runs are given many T."""


class ResumeArguments(RunOptions, total=False):
    """Of resume()."""

    workers: int | None
    batch_size: int | None
    max_poll_seconds: float
    dsn: str | None
    data_dir: Path | str | None
    timeout: float | None
    observer: Observer | None
    executor: Pool | Callable[[], Pool] | str | None
    ship: Literal["cloudpickle"] | None
    progress: bool


class RunArguments(ResumeArguments, total=False):
    """Of run()."""

    params: Mapping[str, object] | None
    run_id: str | None
    key: str | None
    priority: int
    tags: Sequence[str]
    from_run: str | None
    reuse: Sequence[StepLike]


class StartFlowArguments(TypedDict, total=False):
    """Of Client.start_flow(), by name."""

    priority: int
    tags: Sequence[str]
    after: When | None
    key: str | None
    from_run: str | None
    reuse: Sequence[StepLike]


class StartArguments(StartFlowArguments, total=False):
    """Of Client.start()."""

    run_id: str | None


class ScheduleArguments(TypedDict, total=False):
    """Of Client.schedule()."""

    time_zone: str
    name: str
    missed: Missed
    due_as: str | None
    priority: int
