"""What the worker's threads tell its main loop, besides the lane pool's events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pgflow_mp.db.claiming import Refused
from pgflow_mp.db.engine import Settled, StepProgress
from pgflow_mp.db.item_ranges import ElementPage, Limited
from pgflow_mp.observe.observer import Level
from pgflow_mp.worker.batches import Batch
from pgflow_mp.worker.planner import ClaimRequest
from pgflow_mp.worker.ranges import RangeBatch
from pgflow_mp.worker.startup import Policies


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim came back after ``seconds``; ``batch`` is None if there was nothing to run.

    ``condemned`` are tasks that are to be failed without being run.
    ``refused`` are tasks that were claimed, too, and that have no input.
    ``ranges`` are leases of items of maps in ranges, ``pages`` those that were read for them. Of the items of
    ``pageless`` ones the elements are nowhere. ``limited``: limits of the flow left some of it to later.
    """

    flow: str
    queue: str
    worker_id: str
    batch: Batch | None
    asked: ClaimRequest
    seconds: float
    condemned: Batch | None = None
    refused: Sequence[Refused] = ()
    ranges: Sequence[RangeBatch] = ()
    pages: Sequence[ElementPage] = ()
    pageless: Sequence[RangeBatch] = ()
    limited: Limited | None = None


@dataclass(frozen=True, slots=True)
class ClaimFailed:
    """A claim ended by an error and changed nothing: whether there is work is unknown."""

    queue: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class ClaimLost:
    """A claim of this worker id went wrong when it may have been made: what it holds by it is unknown."""

    queue: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class WorkAnnounced:
    """This flow has new tasks: they were just handed back."""

    flow: str


@dataclass(frozen=True, slots=True)
class WorkHinted:
    """Somebody says that this flow has new tasks; mostly the database does, but anybody can."""

    flow: str


@dataclass(frozen=True, slots=True)
class SettledCall:
    """One call of a settled batch. ``late`` of its results were not wanted any more.

    ``lost`` are the first items of parts of ranges that are not the lease's any more.
    """

    run: str
    step: str
    worker_id: str
    failures: bool
    result: Settled
    late: int
    seconds: float
    lost: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class BatchSettled:
    """A batch was recorded."""

    calls: Sequence[SettledCall]
    replayed: bool


@dataclass(frozen=True, slots=True)
class LeasesLost:
    """These messages are no longer ours: finished by others, taken over, or their run is over."""

    worker_id: str
    msg_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class MapsOver:
    """These maps in ranges, by run and step, have ended: nothing of them is wanted."""

    maps: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TakenForDead:
    """These worker ids were declared dead; the tasks they held are not ours any more."""

    worker_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deprecated:
    """An operator wants this worker to finish and go."""


@dataclass(frozen=True, slots=True)
class OpenItems:
    """Of a step: items in the hands of a worker, and those that wait for their next attempt.

    ``due``: when the first of these is (time.monotonic). ``failed``: for good.
    """

    running: int
    waiting: int
    due: float | None
    failed: int


@dataclass(frozen=True, slots=True)
class RunSeen:
    """The state of the run that is being served; ``open_items`` of steps a moment ago, if that is wanted."""

    run: str
    status: str | None
    steps: Sequence[StepProgress]
    open_items: Mapping[str, OpenItems] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunsSeen:
    """The status of runs that were ``asked`` about; those that are gone are not among the ``found``."""

    asked: Sequence[str]
    found: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PoliciesSeen:
    """The retry options of our steps, by (flow, step), as they are now."""

    policies: Policies


@dataclass(frozen=True, slots=True)
class ParkedSeen:
    """How many tasks are left of the runs in question, besides parked ones; some may be missing."""

    number: int
    asked: Collection[str]
    left: dict[str, int]


@dataclass(frozen=True, slots=True)
class Said:
    """A message for the observer."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """A thread lost its connection (``text`` says what it waits for) or has it again (empty text)."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class ThreadFailed:
    """A thread of the worker ended by an error that retrying cannot cure."""

    who: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the worker to stop."""
