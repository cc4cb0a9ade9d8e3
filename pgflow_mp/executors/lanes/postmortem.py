"""What becomes of the chunks of a process that died: every item is reported, exactly once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.events import Cause, LaneDied, LaneEvent, Outcomes
from pgflow_mp.executors.lanes.slots import Running
from pgflow_mp.executors.messages import Chunk, Kind, Outcome
from pgflow_mp.executors.verdicts import KillReason


@dataclass(slots=True)
class HeldChunk:
    """A chunk that a process holds. ``count`` and ``length`` say how much of its buffer has been taken.

    Items from position ``end`` on were taken away from it and are reported.
    """

    ordinal: int
    chunk: Chunk
    timeouts: Sequence[float | None]
    count: int = 0
    length: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        self.end = len(self.chunk.items)

    def unreported(self, first: int) -> list[Outcome]:
        """Items from ``first`` on that the process still has, as not run."""
        return [Outcome(position, Kind.NOT_RUN, b"", 0.0) for position in range(first, self.end)]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    ``reason`` if we killed it, ``told_to_leave`` if it was ended along with the whole worker, ``running``
    the item it was executing, if any.
    """

    lane: int
    generation: int
    exitcode: int | None
    lost: bool
    oom_killed: bool
    reason: KillReason | None
    running: Running | None
    trace: str
    told_to_leave: bool = False


def settle(death: Death, flights: Sequence[tuple[HeldChunk, list[Outcome]]]) -> list[LaneEvent]:
    """The events of a death: LaneDied, then one closing Outcomes per chunk with what was not reported before.

    ``flights`` comes with the outcomes just taken. The item that was running is charged, unless its
    process was killed on account of another or for no item's fault; what had not begun is handed back.
    """
    how = verdicts.describe_exit(death.exitcode)
    if death.reason is not None:
        cause = death.reason.cause
    else:
        cause = verdicts.cause_of(
            death.exitcode,
            lost=death.lost,
            oom_killed=death.oom_killed,
            told_to_leave=death.told_to_leave,
        )
    trace = verdicts.shorten_trace(death.trace)
    culprit = _culprit(death, [flight for flight, _ in flights])
    verdict = _verdict(death, culprit, cause, how, trace) if culprit is not None else None
    seq = culprit.chunk.seq if culprit is not None and verdict is not None else None
    suspect = None
    if cause is Cause.LOST and culprit is not None and death.running is not None:
        suspect = (culprit.chunk.seq, death.running.position)
    events: list[LaneEvent] = [
        LaneDied(death.lane, death.generation, cause, how, seq, verdict, trace, suspect)
    ]
    for flight, outcomes in flights:
        charged = verdict.position if verdict is not None and flight is culprit else None
        rest = [outcome for outcome in flight.unreported(flight.count) if outcome.position != charged]
        events.append(Outcomes(death.lane, death.generation, flight.chunk.seq, outcomes + rest, True))
    return events


def _culprit(death: Death, flights: Sequence[HeldChunk]) -> HeldChunk | None:
    """The chunk whose running item is to blame."""
    running, reason = death.running, death.reason
    if running is None or (reason is not None and reason.target != (running.ordinal, running.position)):
        return None
    for flight in flights:
        if flight.ordinal == running.ordinal and flight.count <= running.position < flight.end:
            return flight
    return None


def _verdict(death: Death, flight: HeldChunk, cause: Cause, how: str, trace: str) -> Outcome | None:
    running = death.running
    if running is None:
        return None
    item = flight.chunk.items[running.position]
    error = (
        death.reason.error
        if death.reason is not None
        else verdicts.crash_error(flight.chunk.steps[item.step], item.index, cause, how)
    )
    seconds = (time.monotonic_ns() - running.started_ns) / 1e9
    return verdicts.verdict(cause, error, trace, running.position, seconds)
