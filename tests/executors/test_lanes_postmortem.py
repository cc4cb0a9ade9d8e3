"""Who is charged for a death, and what becomes of the rest; without a process."""

from __future__ import annotations

import pytest
from lane_harness import chunk_of

from pgflow_mp.executors.endings import Endings, TaskEndings
from pgflow_mp.executors.events import Cause, LaneDied, Outcomes
from pgflow_mp.executors.lanes.holding import HeldChunk
from pgflow_mp.executors.lanes.postmortem import Death, settle
from pgflow_mp.executors.lanes.slots import Running
from pgflow_mp.executors.messages import Kind
from pgflow_mp.executors.verdicts import KillReason


def death(reason: KillReason | None, running: Running | None, *, lost: bool = False) -> Death:
    return Death(0, 1, -9, lost, False, reason, running, "")


def flights() -> list[tuple[HeldChunk, Endings]]:
    """Chunk 11 with its first item finished and reported, chunk 12 not begun; three items each."""
    return [
        (HeldChunk(1, chunk_of(11, [1, 2, 3]), [None], count=1), TaskEndings(11)),
        (HeldChunk(2, chunk_of(12, [1, 2, 3]), [None]), TaskEndings(12)),
    ]


def handed_back(events: list[object]) -> dict[int, list[int]]:
    closing = [event for event in events if isinstance(event, Outcomes)]
    assert all(event.done and {o.kind for o in event.outcomes} == {Kind.NOT_RUN} for event in closing)
    return {event.seq: [o.position for o in event.outcomes] for event in closing}


def test_the_running_item_of_a_crash_is_charged() -> None:
    events = settle(death(None, Running(1, 1, 0)), flights())
    assert isinstance(events[0], LaneDied)
    assert events[0].verdict is not None
    assert (events[0].seq, events[0].verdict.position, events[0].cause) == (11, 1, Cause.CRASH)
    assert handed_back(list(events)) == {11: [2], 12: [0, 1, 2]}


@pytest.mark.parametrize(
    ("reason", "running", "lost"),
    [
        (KillReason(Cause.TIMEOUT, "too late", (1, 0)), Running(1, 1, 0), False),  # the next item had begun
        (KillReason(Cause.CANCELLED), Running(1, 1, 0), False),
        (KillReason(Cause.STOPPED, "", (1, 1)), Running(1, 1, 0), False),
        (KillReason(Cause.TIMEOUT, "too late", (1, 1)), None, False),
        (None, Running(1, 1, 0), True),  # its forkserver died
        (None, Running(1, 0, 0), False),  # already reported: it died after publishing
        (None, None, False),
    ],
)
def test_nobody_is_charged_for_what_is_no_fault_of_the_running_item(
    reason: KillReason | None, running: Running | None, lost: bool
) -> None:
    events = settle(death(reason, running, lost=lost), flights())
    assert isinstance(events[0], LaneDied)
    assert (events[0].verdict, events[0].seq) == (None, None)
    assert handed_back(list(events)) == {11: [1, 2], 12: [0, 1, 2]}


@pytest.mark.parametrize(
    ("reason", "lost", "named"),
    [
        (None, False, True),
        (KillReason(Cause.TIMEOUT, "too late", (1, 1)), False, True),
        (KillReason(Cause.MEMORY, "too much", (1, 1)), False, True),
        (None, True, True),  # its forkserver died, perhaps of this batch
        (KillReason(Cause.TIMEOUT, "too late", (1, 0)), False, False),
        (KillReason(Cause.CANCELLED), False, False),
        (KillReason(Cause.STOPPED, "", (1, 1)), False, False),
    ],
)
def test_a_batch_is_named_where_one_item_would_be_to_blame_and_handed_back_whole(
    reason: KillReason | None, lost: bool, named: bool
) -> None:
    events = settle(death(reason, Running(1, 1, 0, width=2), lost=lost), flights())
    died = events[0]
    assert isinstance(died, LaneDied)
    assert (died.verdict, died.suspect) == (None, None)
    assert (died.seq, died.suspects) == ((11, (1, 2)) if named else (None, None))
    assert handed_back(list(events)) == {11: [1, 2], 12: [0, 1, 2]}
