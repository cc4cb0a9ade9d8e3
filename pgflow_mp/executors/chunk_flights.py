"""Chunks that were handed to an executor which reports them whole, and the parts that they are cut into."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pgflow_mp.executors.messages import AnyChunk
from pgflow_mp.executors.protocol import IN_FLIGHT


@dataclass(slots=True)
class ChunkFlight:
    """A chunk that was taken, with the seconds that its steps may take, and the parts of it not reported."""

    lane: int
    chunk: AnyChunk
    timeouts: Sequence[float | None] = ()
    parts: set[FlightPart] = field(default_factory=set)


@dataclass(frozen=True, slots=True, eq=False)
class FlightPart:
    """Items ``first`` to ``end`` - 1 of a chunk.

    ``alone``: it runs while nothing else does. ``losses``: how often the process that ran it was lost, alone
    or with all that was there; ``hosts``: how often more than that was.
    """

    flight: ChunkFlight
    first: int
    end: int
    alone: bool = False
    losses: int = 0
    hosts: int = 0

    @property
    def size(self) -> int:
        """Items."""
        return self.end - self.first

    @property
    def chunk(self) -> AnyChunk:
        """These items as a chunk."""
        whole = self.flight.chunk
        return whole if self.size == whole.size else whole.part(self.first, self.end)


class Flights:
    """What was taken and not reported, and what of it is to run again. From any thread, under ``lock``."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.again: deque[FlightPart] = deque()
        """To be sent soon, as the rest is."""
        self.suspects: deque[FlightPart] = deque()
        """To be sent alone, one by one."""
        self._flights: dict[int, ChunkFlight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def rooms(self, lanes: int) -> list[tuple[int, int]]:
        """(lane, chunks it would take) of those that would take any."""
        held = [0] * lanes
        for flight in self._flights.values():
            if flight.lane < lanes:
                held[flight.lane] += 1
        return [(lane, IN_FLIGHT - count) for lane, count in enumerate(held) if count < IN_FLIGHT]

    def take(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None]) -> FlightPart | None:
        """The chunk as one part; None if the lane holds enough."""
        if sum(flight.lane == lane for flight in self._flights.values()) >= IN_FLIGHT:
            return None
        flight = self._flights[chunk.seq] = ChunkFlight(lane, chunk, timeouts)
        part = FlightPart(flight, 0, chunk.size)
        flight.parts.add(part)
        return part

    def parts(self) -> list[FlightPart]:
        """All of what was not reported."""
        with self.lock:
            return [part for flight in self._flights.values() for part in flight.parts]

    def retry(self, part: FlightPart, losses: int, hosts: int) -> None:
        """Have it run once more, after so many more losses."""
        again = dataclasses.replace(part, losses=part.losses + losses, hosts=part.hosts + hosts)
        if part in part.flight.parts:
            part.flight.parts.remove(part)
            part.flight.parts.add(again)
            if again.alone:
                self.suspects.appendleft(again)
            else:
                self.again.append(again)

    def suspect(self, part: FlightPart, isolates: bool) -> None:
        """Have its halves run; unless the engine ``isolates`` it runs whole first, and all of that alone."""
        flight = part.flight
        if part not in flight.parts:
            return
        flight.parts.remove(part)
        middle = (part.first + part.end) // 2 if part.alone or isolates else part.end
        for first, end in ((part.first, middle), (middle, part.end)):
            if first < end:
                half = FlightPart(flight, first, end, not isolates, 1, part.hosts)
                flight.parts.add(half)
                (self.again if isolates else self.suspects).append(half)

    def next_ones(self, *, busy: bool) -> list[FlightPart]:
        """What is to be sent now; ``busy``: something runs, so no suspect."""
        parts = list(self.again)
        self.again.clear()
        if not parts and self.suspects and not busy:
            parts.append(self.suspects.popleft())
        return parts

    def settle(self, part: FlightPart) -> bool:
        """It was reported; whether its chunk has been, as a whole."""
        flight = part.flight
        flight.parts.discard(part)
        if flight.parts:
            return False
        del self._flights[flight.chunk.seq]
        return True
