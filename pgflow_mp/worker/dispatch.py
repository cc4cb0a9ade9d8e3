"""Which items go to which lane, and how many at once. Pure: no clock, no database.

A claim's tasks are a Batch; a chunk is a slice of it, sized to hold ``TARGET`` seconds of measured work:
one item when items are long, hundreds when they are tiny. As what is left to hand out shrinks, so do
the chunks, so that all lanes finish together.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator

from pgflow_mp.db.item_ranges import ElementPage
from pgflow_mp.executors.messages import Item
from pgflow_mp.worker.batches import AnyBatch, Batch, Flight, ItemTimes, Lease
from pgflow_mp.worker.chunks import DEEPEST, Stretch, spans
from pgflow_mp.worker.ranges import RangeBatch
from pgflow_mp.worker.sizing import Sizing


class Dispatcher:
    """The items that wait for a lane, and the chunks that lanes hold.

    Threads: the main loop's, but for what gives and renews leases, which the heartbeat's thread calls.
    ``_lock`` is held while either looks at, or changes, which batches are held and which items are done.
    """

    def __init__(self, times: ItemTimes) -> None:
        self.times = times
        self._sizing = Sizing(times)
        self._lock = threading.Lock()
        self.flights: dict[int, Flight] = {}
        self.held: dict[int, AnyBatch] = {}
        self.run_emptied = False
        """Set when nothing more of some run is held; the reader clears it."""
        self._batches_of: dict[str, int] = {}
        self._queues: dict[str, deque[AnyBatch]] = {}
        self._turn: deque[str] = deque()
        self._seq = itertools.count(1)

    # -- what waits --------------------------------------------------------------------------------

    def add(self, batch: AnyBatch, *, first: bool = False) -> None:
        """Queue a batch; ``first``: ahead of everything else, for items that come back."""
        queue = self._queues.get(batch.flow)
        if queue is None:
            queue = self._queues[batch.flow] = deque[AnyBatch]()
            self._turn.append(batch.flow)
        self._hold(batch)
        if first:
            queue.appendleft(batch)
        else:
            queue.append(batch)

    def keep(self, batch: AnyBatch) -> None:
        """Hold a batch of which nothing is to be handed to a lane."""
        batch.next = len(batch)
        self._hold(batch)

    def finish(self, batch: AnyBatch, first: int, last: int) -> None:
        """Items ``first``..``last`` of a batch need nothing more."""
        with self._lock:
            batch.mark(first, last)
        if not batch.open:
            self._let_go(batch)

    def leases(self, now: float, longest: float) -> tuple[list[Lease], float]:
        """What is to be extended now, and in how many seconds, at most ``longest``, to ask again.

        A lease that is half used up by then.
        """
        found: list[Lease] = []
        with self._lock:
            held = [batch for batch in self.held.values() if isinstance(batch, Batch)]
            pause = min([longest, *(batch.lease / 4 for batch in held)])
            for batch in held:
                if now - batch.renewed >= batch.lease / 2 - pause:
                    found.append(batch.to_extend())
        return found, pause

    def held_runs(self) -> set[str]:
        """The runs of which anything is held."""
        with self._lock:
            return {run for batch in self.held.values() for run in batch.runs}

    def leases_of(self, runs: Collection[str]) -> list[Lease]:
        """What is held of these runs."""
        with self._lock:
            return [
                batch.to_extend()
                for batch in self.held.values()
                if isinstance(batch, Batch) and any(run in runs for run in batch.runs)
            ]

    def held_maps(self) -> set[tuple[str, str]]:
        """The maps in ranges, by run and step, of which anything is held."""
        with self._lock:
            return {(b.run, b.step) for b in self.held.values() if isinstance(b, RangeBatch)}

    def renewed(self, lease: Lease, now: float) -> None:
        """The lease counts from ``now`` on."""
        with self._lock:
            if isinstance(batch := self.held.get(lease.number), Batch):
                batch.renewed = now

    def _hold(self, batch: AnyBatch) -> None:
        with self._lock:
            self.held[batch.number] = batch
        for run in batch.runs:
            self._batches_of[run] = self._batches_of.get(run, 0) + 1

    def _let_go(self, batch: AnyBatch) -> None:
        with self._lock:
            if self.held.pop(batch.number, None) is None:
                return
        for run in batch.runs:
            self._batches_of[run] -= 1
            if not self._batches_of[run]:
                del self._batches_of[run]
                self.run_emptied = True

    def held_items(self, flow: str | None = None) -> int:
        """Items that we claimed and have no outcome of, of one flow or of all."""
        return sum(batch.open for batch in self.held.values() if flow in (None, batch.flow))

    def held_in_ranges(self) -> int:
        """Those of them that are in ranges."""
        return sum(batch.open for batch in self.held.values() if isinstance(batch, RangeBatch))

    def needed_pages(self) -> Iterator[ElementPage]:
        """The pages of what is held."""
        for batch in self.held.values():
            if isinstance(batch, RangeBatch):
                yield from batch.pages

    def held_bytes(self) -> int:
        """Bytes of input of the batches that are not done: a batch keeps its inputs until it is."""
        return sum(batch.size for batch in self.held.values())

    def waiting(self, flow: str | None = None) -> int:
        """Items that wait, of one flow or of all."""
        return sum(batch.waiting for batch in self._queued(flow))

    def waiting_seconds(self, flow: str | None = None) -> float | None:
        """Expected seconds of work that wait; None while the time of a waiting item is unknown."""
        total = 0.0
        for batch in self._queued(flow):
            mean = self._sizing.mean(batch)
            if mean is None:
                return None
            total += batch.waiting * mean
        return total

    def flying(self, flow: str | None = None) -> int:
        """Chunks in lanes, of one flow or of all."""
        return sum(1 for flight in self.flights.values() if flow in (None, flight.batch.flow))

    def lane_seconds(self, now: float, most: float) -> float:
        """Expected seconds until the lanes have finished what they hold, at most ``most`` of each."""
        lanes: dict[int, float] = {}
        for flight in self.flights.values():
            lanes[flight.lane] = lanes.get(flight.lane, 0.0) + flight.seconds
            if lanes[flight.lane] == flight.seconds:  # the one that runs
                lanes[flight.lane] = max(0.0, flight.seconds - (now - flight.sent))
        return sum(min(most, seconds) for seconds in lanes.values())

    def discard(self, unwanted: Callable[[Batch, Item], bool]) -> int:
        """Take tasks that wait out of the queues and mark them done; how many."""
        count = 0
        for flow, queue in self._queues.items():
            kept: deque[AnyBatch] = deque()
            for batch in queue:
                if not isinstance(batch, Batch):
                    kept.append(batch)
                    continue
                rest = range(batch.next, len(batch))
                gone = [i for i in rest if unwanted(batch, batch.items[i])]
                if not gone:
                    kept.append(batch)
                    continue
                count += len(gone)
                stretches = spans(batch.next, len(batch), set(gone))
                kept.extend(self._split(batch, stretches))
                for i in gone:
                    self.finish(batch, i, i)
            self._queues[flow] = kept
        return count

    def discard_ranges(self, unwanted: Callable[[RangeBatch], bool]) -> list[tuple[RangeBatch, Stretch]]:
        """Drop leases: take what waits of them out of the queues and mark it done; what that was.

        What lanes have of them comes back, or is reported as done.
        """
        gone: list[tuple[RangeBatch, Stretch]] = []
        for batch in self.held.values():
            if isinstance(batch, RangeBatch) and not batch.held.dropped and unwanted(batch):
                batch.held.dropped = True
        for flow, queue in self._queues.items():
            dropped = [b for b in queue if isinstance(b, RangeBatch) and b.held.dropped]
            if dropped:
                self._queues[flow] = deque(batch for batch in queue if batch not in dropped)
            for batch in dropped:
                if batch.waiting:
                    gone.append((batch, (batch.next, len(batch))))
                    first, batch.next = batch.next, len(batch)
                    self.finish(batch, first, len(batch) - 1)
        return gone

    def shed(self, flow: str, keep: float) -> list[AnyBatch]:
        """Take what waits beyond ``keep`` seconds of work out of a flow's queue, to be handed back."""
        queue, seconds, out = self._queues.get(flow, deque()), 0.0, list[AnyBatch]()
        for batch in list(queue):
            mean = self._sizing.mean(batch)
            if mean is None:
                return out
            room = max(0, int((keep - seconds) / mean))
            seconds += mean * batch.waiting
            if room < batch.waiting:
                with self._lock:
                    out.append(batch.cut_off(batch.next + room))
                if not batch.open:
                    self._let_go(batch)
        return out

    def drain(self) -> list[AnyBatch]:
        """Empty the queues; what was in them."""
        found = [batch for batch in self._queued(None) if batch.waiting]
        for queue in self._queues.values():
            queue.clear()
        return found

    # -- chunks ------------------------------------------------------------------------------------

    def depth(self, flow: str) -> int:
        """Chunks that a lane should hold: a second one waits only behind short ones."""
        for batch in self._queued(flow):
            mean = self._sizing.mean(batch)
            return 2 if mean is not None and mean * max(1, self._sizing.together(batch)) <= DEEPEST else 1
        return 1

    def is_late(self, lane: int, now: float) -> bool:
        """Whether a lane has been busy with a chunk for much longer than that should take."""
        return any(
            flight.lane == lane and now - flight.sent > 2 * flight.seconds + DEEPEST
            for flight in self.flights.values()
        )

    def next_chunk(self, lane: int, lanes: int, now: float) -> Flight | None:
        """Cut the next chunk for ``lane`` of ``lanes``; flows take turns. None if nothing waits."""
        for _ in range(len(self._turn)):
            flow = self._turn[0]
            self._turn.rotate(-1)
            queue = self._queues[flow]
            while queue and not queue[0].waiting:
                queue.popleft()
            if queue:
                return self._cut(queue[0], lane, lanes, now)
        return None

    def next_flow(self) -> str | None:
        """The flow whose turn it is."""
        return next((flow for flow in self._turn if any(batch.waiting for batch in self._queues[flow])), None)

    def idle(self, lanes: int) -> int:
        """How many of the lanes have nothing to do and nothing that waits for them."""
        return max(0, lanes - len({flight.lane for flight in self.flights.values()}) - self.waiting())

    def is_starving(self, lanes: int) -> bool:
        """Whether one of the lanes has nothing to do and nothing waits for it."""
        flights = self.flights
        if len(flights) >= lanes and len({flight.lane for flight in flights.values()}) >= lanes:
            return False
        return self.next_flow() is None

    def take_back(self, flight: Flight) -> None:
        """The lane did not take it."""
        self.flights.pop(flight.chunk.seq, None)
        batch = flight.batch
        if batch.next == flight.start + flight.chunk.size:
            batch.next = flight.start
            queue = self._queues[batch.flow]
            if batch not in queue:
                queue.appendleft(batch)

    def _cut(self, batch: AnyBatch, lane: int, lanes: int, now: float) -> Flight:
        start = batch.next
        idle = lanes - len({flight.lane for flight in self.flights.values()})
        count, seconds = self._sizing.next_chunk(batch, self.waiting(batch.flow), lanes, idle)
        chunk = batch.chunk(next(self._seq), start, count, max(1, self._sizing.together(batch)))
        batch.next = start + chunk.size
        flight = Flight(batch, start, chunk, lane, seconds * chunk.size / count, now)
        self.flights[chunk.seq] = flight
        return flight

    def _queued(self, flow: str | None) -> Iterator[AnyBatch]:
        if flow is not None:
            yield from self._queues.get(flow, ())
        else:
            for queue in self._queues.values():
                yield from queue

    def _split(self, batch: Batch, stretches: list[Stretch]) -> Iterator[Batch]:
        """Parts of a batch that had items taken out; the parts take over what they hold."""
        for first, end in stretches:
            (part,) = batch.parts([(first, end)])
            self._hold(part)
            self.finish(batch, first, end - 1)
            yield part
        batch.next = len(batch)
