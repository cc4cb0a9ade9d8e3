"""What is told of runs, their steps and items: one set of structs in plain data, for whoever tells it.

``observe.read_reports`` fills them. As JSON an object has the fields of its struct, times are ISO 8601. Items
and attempts are counted apart: an item that succeeds at its third attempt is one item and three attempts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, TypedDict

import msgspec

RunState = Literal[
    "queued",
    "running",
    "waiting",
    "paused",
    "completed",
    "completed_with_failures",
    "failed",
    "cancelled",
]
"""How a run is, as people mean it.

queued: nothing of it is in the hands of a worker. waiting: all that is left waits for its next attempt.
paused: nothing more of it is claimed, while what is in the hands of a worker ends.
completed_with_failures: to the end, though items failed, which was tolerated or had a step skipped.
"""
StepState = Literal[
    "pending",
    "queued",
    "running",
    "waiting",
    "paused",
    "completed",
    "completed_with_failures",
    "failed",
    "skipped",
    "cancelled",
]
"""The same of a step. pending: it waits for others. cancelled: it ended unfinished with its run."""
ItemState = Literal[
    "queued", "running", "waiting", "completed", "failed", "tolerated", "cancelled", "skipped"
]
"""The same of an item. tolerated: it failed for good, and its step went on."""

STATUSES: Final[dict[RunState, str]] = {
    "queued": "started",
    "running": "started",
    "waiting": "started",
    "paused": "started",
    "completed": "completed",
    "completed_with_failures": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
"""What ``pgflow.runs`` calls each state."""
OPEN_STATES: Final = tuple(state for state, status in STATUSES.items() if status == "started")
"""Those of runs that have not ended."""


class Sought(TypedDict, total=False):
    """Which runs are meant: of a flow, in these states, with these tags and key.

    ``since`` and ``until`` (exclusive) are about when they were started.
    """

    flow: str | None
    states: Collection[RunState] | None
    since: datetime | None
    until: datetime | None
    tags: Sequence[str]
    key: str | None


class ItemCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many items there are, how they are, and with how many attempts.

    ``items`` is the sum of completed, failed, running, waiting, queued, cancelled and skipped. Of those that
    ``failed`` for good, ``tolerated`` are those whose step went on. ``running`` items are in the hands of a
    worker, in a process or next in line; ``waiting`` ones wait for their next attempt. cancelled and skipped
    ones ended unfinished, with their run or with their step.
    """

    items: int = 0
    completed: int = 0
    failed: int = 0
    tolerated: int = 0
    running: int = 0
    waiting: int = 0
    queued: int = 0
    cancelled: int = 0
    skipped: int = 0
    attempts: int = 0

    @property
    def done(self) -> int:
        """Items that have ended by themselves."""
        return self.completed + self.failed


def total(counts: Iterable[ItemCounts]) -> ItemCounts:
    """The sum of all of them."""
    sums = dict.fromkeys(ItemCounts.__struct_fields__, 0)
    for each in counts:
        for name in sums:
            sums[name] += getattr(each, name)
    return ItemCounts(**sums)


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a run.

    ``status`` is that of ``pgflow.step_states``, ``state`` what people mean. ``initial_tasks`` items are
    known before the step starts, where its input is; ``counts`` are of a step that has started.
    ``next_retry``: seconds until the first of what waits is due. ``workers``: how many of those alive take
    items of the step. ``storage`` of a map is ranges or tasks.
    """

    step_slug: str
    step_type: str
    depends_on: list[str]
    status: str
    state: StepState
    storage: str | None
    initial_tasks: int | None
    remaining_tasks: int | None
    failed_tasks: int
    cancelled_tasks: int
    skipped_tasks: int
    counts: ItemCounts
    next_retry: float | None
    workers: int
    error_message: str | None
    skip_reason: str | None
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    """How long it was worked on, so far."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a list, without its steps.

    ``status`` is that of ``pgflow.runs``, ``state`` what people mean. ``items`` and ``done`` are of the steps
    that have started. ``unserved`` are steps with items that no worker alive takes; ``lacking`` has of those
    among them that require anything of a worker the labels that it needs. ``paused_until``: when the pause of
    a paused run is over by itself, None if somebody has to resume it.
    """

    run_id: str
    flow_slug: str
    status: str
    state: RunState
    items: int
    done: int
    counts: ItemCounts
    next_retry: float | None
    unserved: list[str]
    lacking: dict[str, list[str]] = {}
    remaining_steps: int
    priority: int
    key: str | None
    tags: list[str]
    started_at: datetime
    completed_at: datetime | None
    failed_at: datetime | None
    finished_at: datetime | None
    paused_until: datetime | None = None
    seconds: float
    """How long it was worked on, so far: a night without any worker is not part of it."""


class RunDetails(RunReport, frozen=True, kw_only=True):
    """A run with its steps in definition order."""

    steps: list[StepReport]

    def step(self, slug: str) -> StepReport | None:
        """The step with this slug."""
        return next((step for step in self.steps if step.step_slug == slug), None)


class ItemReport(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a step; ``status`` is that of ``pgflow.items``.

    ``input`` and ``output`` are JSON in one line, which may be cut off. ``next_retry``: in how many seconds
    it is tried again. ``seconds``: of its last attempt, of items in ranges of all that were done together.
    """

    index: int
    status: str
    state: ItemState
    attempts: int
    error: str | None
    worker_id: str | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    next_retry: float | None
    input: str | None
    output: str | None
