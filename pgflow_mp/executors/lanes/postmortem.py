"""What becomes of the chunks of a process that died: every item is reported, exactly once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.endings import Endings
from pgflow_mp.executors.events import Cause, LaneDied, LaneEvent
from pgflow_mp.executors.lanes.holding import HeldChunk
from pgflow_mp.executors.lanes.slots import Running
from pgflow_mp.executors.messages import Outcome
from pgflow_mp.executors.verdicts import KillReason


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


def settle(death: Death, flights: Sequence[tuple[HeldChunk, Endings]]) -> list[LaneEvent]:
    """The events of a death: LaneDied, then a closing one per chunk with what was not reported before.

    ``flights`` comes with what was just taken. The item that was running is charged, unless its
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
    seq = suspect = suspects = None
    if culprit is not None and death.running is not None:
        position, width = death.running.position, death.running.width
        if width > 1 and (verdict is not None or cause is Cause.LOST):
            suspects, verdict, seq = (position, width), None, culprit.chunk.seq
        elif verdict is not None:
            seq = culprit.chunk.seq
        elif cause is Cause.LOST:
            suspect = (culprit.chunk.seq, position)
    events: list[LaneEvent] = [
        LaneDied(death.lane, death.generation, cause, how, seq, verdict, trace, suspect, suspects)
    ]
    for flight, endings in flights:
        first = flight.count
        if verdict is not None and flight is culprit:
            endings.add_not_run(first, verdict.position)
            first = verdict.position + 1
        endings.add_not_run(first, flight.end)
        events.append(endings.event(death.lane, death.generation, done=True))
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
    _, step, _, index = flight.chunk.locate(running.position)
    error = death.reason.error if death.reason is not None else verdicts.crash_error(step, index, cause, how)
    seconds = (time.monotonic_ns() - running.started_ns) / 1e9
    return verdicts.verdict(cause, error, trace, running.position, seconds)
