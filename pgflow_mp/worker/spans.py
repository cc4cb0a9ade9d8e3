"""What lanes did, and when: chunks that follow each other become one span, more of them in longer runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from pgflow_mp.worker.batches import Flight

FINEST: Final = 0.25
"""Seconds that spans last at least where chunks follow each other."""
_AIM: Final = (
    2000  # spans of a run, of all lanes; the database makes fewer of them when there are twice as many
)
_GAP: Final = 0.05  # seconds between two chunks of one span
_RUNS: Final = 1000  # of which it is known when they began here
MOST_WAITING: Final = 20_000
"""Spans that are kept while the database cannot be told; then the earliest go."""

SpanOutcome = Literal["completed", "failed", "died"]


@dataclass(slots=True)
class LaneStretch:
    """Items of one step that a lane ran one after another. Times are time.monotonic().

    ``failed`` attempts are among ``items``. ``seconds``: that handlers ran. ``died``: so did its process.
    """

    run: str
    step: str
    lane: int
    index: int
    start: float = 0.0
    end: float = 0.0
    items: int = 0
    failed: int = 0
    seconds: float = 0.0
    died: bool = False
    flow: str = ""

    @property
    def outcome(self) -> SpanOutcome:
        """The worst of what happened."""
        return "died" if self.died else "failed" if self.failed else "completed"

    def swallow(self, later: LaneStretch) -> None:
        """Make one of both."""
        self.end = later.end
        self.items += later.items
        self.failed += later.failed
        self.seconds += later.seconds
        self.died = self.died or later.died


@dataclass(slots=True)
class _Flying:
    parts: list[LaneStretch] = field(default_factory=list)
    died: bool = False


class LaneSpans:
    """Collects them. A chunk runs from when its lane was free for it until its end is known here."""

    def __init__(self, lanes: int) -> None:
        self._lanes = max(1, lanes)
        self._flying: dict[int, _Flying] = {}
        self._open: dict[int, LaneStretch] = {}
        self._free: dict[int, float] = {}
        self._since: dict[str, float] = {}
        self._done: list[LaneStretch] = []

    def __bool__(self) -> bool:
        return bool(self._done or self._open)

    def ran(self, flight: Flight, run: str, step: str, index: int, items: int, failed: int, s: float) -> None:
        """Items of a chunk ended: the first of them is that at ``index``; they ran for ``s`` seconds."""
        parts = self._flying.setdefault(flight.chunk.seq, _Flying()).parts
        for part in parts:
            if part.run == run and part.step == step:
                break
        else:
            part = LaneStretch(run, step, flight.lane, index, flow=flight.batch.flow)
            parts.append(part)
        part.index = min(part.index, index)
        part.items += items
        part.failed += failed
        part.seconds += s

    def died(self, flight: Flight) -> None:
        """Its process did, while it ran."""
        self._flying.setdefault(flight.chunk.seq, _Flying()).died = True

    def ended(self, flight: Flight, now: float) -> None:
        """The chunk is over."""
        flying = self._flying.pop(flight.chunk.seq, None)
        start = max(flight.sent, self._free.get(flight.lane, 0.0))
        self._free[flight.lane] = now
        if flying is None or not flying.parts:
            return
        flying.parts[-1].died = flying.died
        spent, length = sum(part.seconds for part in flying.parts), max(0.0, now - start)
        for part in flying.parts:
            part.start = start
            start += length * (part.seconds / spent if spent else 1 / len(flying.parts))
            part.end = start
            self._add(part)

    def take(self, now: float, *, everything: bool = False) -> list[LaneStretch]:
        """What is to be told; what may still become longer only if it is ``everything``."""
        for lane, span in list(self._open.items()):
            if everything or now - span.start >= self._finest(span.run, now):
                self._done.append(self._open.pop(lane))
        taken, self._done = self._done, []
        return taken

    def _add(self, span: LaneStretch) -> None:
        before = self._open.get(span.lane)
        if before is not None and before.run == span.run and before.step == span.step:
            finest = self._finest(span.run, span.end)
            if span.start - before.end <= max(_GAP, finest / 4) and span.end - before.start <= finest:
                before.swallow(span)
                return
        if before is not None:
            self._done.append(before)
            if len(self._done) > MOST_WAITING:
                del self._done[: MOST_WAITING // 2]
        self._open[span.lane] = span

    def _finest(self, run: str, now: float) -> float:
        since = self._since.get(run)
        if since is None:
            if len(self._since) >= _RUNS:
                del self._since[next(iter(self._since))]
            since = self._since[run] = now
        return max(FINEST, (now - since) * self._lanes / _AIM)
