"""Chunks that were handed to an executor which reports them whole, and the parts that they are cut into."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgflow_mp.executors.messages import AnyChunk


@dataclass(slots=True)
class ChunkFlight:
    """A chunk that was taken, and the parts of it that have not been reported."""

    lane: int
    chunk: AnyChunk
    parts: set[FlightPart] = field(default_factory=set)


@dataclass(frozen=True, slots=True, eq=False)
class FlightPart:
    """Items ``first`` to ``end`` - 1 of a chunk; ``alone``: it runs while nothing else does."""

    flight: ChunkFlight
    first: int
    end: int
    alone: bool = False

    @property
    def chunk(self) -> AnyChunk:
        """These items as a chunk."""
        whole = self.flight.chunk
        return whole if self.end - self.first == whole.size else whole.part(self.first, self.end)
