"""How items of a chunk ended: from the bytes that say so to the event for the owner.

Those of a RangeChunk come as one stream: of each completed item its output and a comma, in order, so that no
object is made of it here. An item that failed is a *frame* between them: a NUL byte, which JSON text never
holds, eight bytes of length, and the encoded Outcome. One NOT_RUN frame stands for all items from there on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from pgflow_mp.executors.events import LaneEvent, Outcomes, Piece, RangeOutcomes
from pgflow_mp.executors.messages import (
    AnyChunk,
    Kind,
    Outcome,
    RangeChunk,
    decode_outcome,
    decode_outcomes,
    encode,
)
from pgflow_mp.executors.tallies import Tally

_MARK: Final = b"\0"
_HEAD: Final = 9


def frame(outcome: Outcome) -> bytes:
    """An outcome other than COMPLETED in the stream of a range."""
    encoded = encode(outcome)
    return _MARK + len(encoded).to_bytes(8, "big") + encoded


class Endings(ABC):
    """Collects what is to be reported of chunk ``seq``; each item is given once, in order of positions."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.tally: Tally | None = None
        """How long items of a range took that completed."""

    @abstractmethod
    def __bool__(self) -> bool:
        """Whether there is anything to report."""

    @abstractmethod
    def read(self, data: bytes, first: int, count: int, end: int, seconds: float) -> None:
        """What a lane's memory says of the ``count`` items from ``first`` on; those from ``end`` on are
        ignored. ``seconds``: what those that completed took together.
        """

    @abstractmethod
    def read_answer(self, data: bytes, first: int, count: int) -> None:
        """What ``remote.run_chunk`` answered for ``count`` items of it, from ``first`` on."""

    @abstractmethod
    def add(self, outcome: Outcome) -> None:
        """One that failed."""

    @abstractmethod
    def add_not_run(self, first: int, end: int) -> None:
        """Items ``first``..``end`` - 1 are handed back."""

    @abstractmethod
    def event(self, lane: int, generation: int, *, done: bool) -> LaneEvent:
        """The event that says it."""


class TaskEndings(Endings):
    """Of a Chunk: a list of outcomes."""

    def __init__(self, seq: int) -> None:
        super().__init__(seq)
        self.outcomes: list[Outcome] = []

    def __bool__(self) -> bool:
        return bool(self.outcomes)

    def read(self, data: bytes, first: int, count: int, end: int, seconds: float) -> None:
        # The outcomes lie end to end: with an array header in front they are one msgpack list.
        found = decode_outcomes(b"\xdd" + count.to_bytes(4, "big") + data)
        if first + count > end:
            found = [outcome for outcome in found if outcome.position < end]
        self.outcomes += found

    def read_answer(self, data: bytes, first: int, count: int) -> None:
        found = decode_outcomes(data)
        for outcome in found:
            outcome.position += first
        self.outcomes += found

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def add_not_run(self, first: int, end: int) -> None:
        self.outcomes += [Outcome(position, Kind.NOT_RUN, b"", 0.0) for position in range(first, end)]

    def event(self, lane: int, generation: int, *, done: bool) -> LaneEvent:
        return Outcomes(lane, generation, self.seq, self.outcomes, done)


class RangeEndings(Endings):
    """Of a RangeChunk: pieces of the stream, and what did not complete."""

    def __init__(self, seq: int) -> None:
        super().__init__(seq)
        self.pieces: list[Piece] = []
        self.exceptions: list[Outcome] = []
        self.not_run: list[tuple[int, int]] = []
        self.seconds = 0.0

    def __bool__(self) -> bool:
        return bool(self.pieces or self.exceptions or self.not_run)

    def read(self, data: bytes, first: int, count: int, end: int, seconds: float) -> None:
        self.seconds += seconds
        if _MARK in data or first + count > end:
            self._walk(data, first, first + count, end, 0)
        elif count:
            self.pieces.append(Piece(first, count, data[:-1]))

    def read_answer(self, data: bytes, first: int, count: int) -> None:
        stream, seconds, counts, slowest = decode_answer(data)
        self.seconds += seconds
        self.tally = Tally(counts, [(spent, position + first) for spent, position in slowest])
        self._walk(stream, first, first + count, first + count, first)

    def _walk(self, data: bytes, position: int, last: int, end: int, shift: int) -> None:
        """Items ``position``..``last`` - 1; frames count positions from ``shift`` on."""
        at = 0
        while at < len(data):
            mark = data.find(_MARK, at)
            if mark < 0:
                self._piece(position, last, data[at:-1], end)
                return
            length = int.from_bytes(data[mark + 1 : mark + _HEAD], "big")
            outcome = decode_outcome(data[mark + _HEAD : mark + _HEAD + length])
            outcome.position += shift
            self._piece(position, outcome.position, data[at : mark - 1], end)
            position = outcome.position + 1
            if outcome.kind == Kind.NOT_RUN:
                self.add_not_run(outcome.position, min(last, end))
                return
            if outcome.position < end:
                self.exceptions.append(outcome)
            at = mark + _HEAD + length

    def _piece(self, first: int, last: int, body: bytes, end: int) -> None:
        if last > end:  # a lane never completes what was taken from it; if it did, that is not reported twice
            kept = msgspec.json.decode(b"[" + body + b"]", type=list[msgspec.Raw])[: max(0, end - first)]
            body, last = b",".join(kept), min(last, max(first, end))
        if first < last:
            self.pieces.append(Piece(first, last - first, body))

    def add(self, outcome: Outcome) -> None:
        self.exceptions.append(outcome)

    def add_not_run(self, first: int, end: int) -> None:
        if first < end:
            self.not_run.append((first, end - first))

    def event(self, lane: int, generation: int, *, done: bool) -> LaneEvent:
        return RangeOutcomes(
            lane,
            generation,
            self.seq,
            self.pieces,
            self.exceptions,
            self.not_run,
            self.seconds,
            done,
            self.tally,
        )


decode_answer: Final = msgspec.msgpack.Decoder(
    tuple[bytes, float, dict[int, int], list[tuple[float, int]]]
).decode
"""(stream, seconds, and those of a Tally) of a RangeChunk that ran in one piece."""


def endings_of(chunk: AnyChunk) -> Endings:
    """Nothing yet of this chunk."""
    return RangeEndings(chunk.seq) if isinstance(chunk, RangeChunk) else TaskEndings(chunk.seq)
