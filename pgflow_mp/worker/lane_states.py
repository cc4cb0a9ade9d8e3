"""How a worker is at one moment: what each of its lanes runs, and how busy they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pgflow_mp.executors.messages import Chunk
from pgflow_mp.executors.protocol import Executor, LaneNow, TellsLanes
from pgflow_mp.worker.batches import Flight


@dataclass(frozen=True, slots=True)
class LaneLook:
    """A lane; ``flow`` to ``since`` are of the item that it runs, or of the first of its chunk. ``since`` is
    time.monotonic(); None where it runs nothing. ``pid``: 0 where it has no process that we know.
    """

    lane: int
    pid: int = 0
    flow: str | None = None
    run: str | None = None
    step: str | None = None
    index: int | None = None
    attempt: int | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A worker. ``utilisation`` (0..1): of the lanes' time since the last look, by handlers."""

    lanes: int
    busy: int
    utilisation: float
    claimed: int
    unsettled: int
    states: tuple[LaneLook, ...]


class Utilisation:
    """The share of the lanes' time in which handlers ran, between two looks."""

    def __init__(self, now: float) -> None:
        self._busy = 0.0
        self._last = now

    def look(self, now: float, busy: float, flights: Collection[Flight], lanes: int) -> float:
        """``busy``: seconds that handlers ran so far.

        What a lane runs is in it only once it has ended; one that has been at the same chunk since the last
        look was busy all the time.
        """
        occupied = len({flight.lane for flight in flights if flight.sent <= self._last})
        lanes = max(1, lanes)
        spent = (busy - self._busy) / max(1e-6, (now - self._last) * lanes)
        self._busy, self._last = busy, now
        return max(0.0, min(1.0, max(spent, occupied / lanes)))


def look(executor: Executor, flights: Collection[Flight]) -> tuple[LaneLook, ...]:
    """Every lane of which anything is known, by what the executor tells, else by what it was given."""
    first: dict[int, Flight] = {}
    by_seq: dict[int, Flight] = {}
    for flight in flights:
        by_seq[flight.chunk.seq] = flight
        if flight.lane not in first or flight.sent < first[flight.lane].sent:
            first[flight.lane] = flight
    told: Sequence[LaneNow] = executor.lanes_now() if isinstance(executor, TellsLanes) else ()
    states = {now.lane: _told(now, by_seq.get(now.seq) if now.seq is not None else None) for now in told}
    for lane, flight in first.items():
        if lane not in states or states[lane].since is None:  # between two quick items
            states[lane] = _assumed(flight, states[lane].pid if lane in states else 0)
    return tuple(states[lane] for lane in sorted(states))


def _told(now: LaneNow, flight: Flight | None) -> LaneLook:
    if flight is None or now.position is None or not now.position < flight.chunk.size:
        return LaneLook(now.lane, now.pid)
    return _at(flight, now.pid, now.position, now.since)


def _assumed(flight: Flight, pid: int) -> LaneLook:
    return _at(flight, pid, 0, flight.sent)


def _at(flight: Flight, pid: int, position: int, since: float | None) -> LaneLook:
    chunk = flight.chunk
    run, step, _, index = chunk.locate(position)
    attempt = chunk.items[position].attempt if isinstance(chunk, Chunk) else 1
    return LaneLook(flight.lane, pid, flight.batch.flow, run, step, index, attempt, since)
