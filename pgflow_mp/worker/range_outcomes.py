"""From what lanes report of ranges to what is recorded: parts, exceptions, items that come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from pgflow_mp.executors.events import RangeOutcomes
from pgflow_mp.executors.messages import Item, Kind, Outcome
from pgflow_mp.worker.batches import Flight
from pgflow_mp.worker.chunks import Stretch
from pgflow_mp.worker.corner import Corner
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.range_groups import RangeFailures, RangeGroup, RangePart
from pgflow_mp.worker.ranges import OVERHEAD, RangeBatch
from pgflow_mp.worker.settle import MIDST, Settler
from pgflow_mp.worker.stats import Stats
from pgflow_mp.worker.work_record import WorkRecord


class _Bookkeeper(Protocol):
    """What the collector notes of any item."""

    corner: Corner

    def count(self, flow: str, step: str, what: int, items: int) -> None: ...

    def note_failure(
        self,
        flow: str,
        run: str,
        step: str,
        item: Item,
        outcome: Outcome,
        permanent: bool,
        given: Callable[[], bytes | memoryview],
    ) -> None: ...


class RangeCollector:
    """Takes the lanes' reports about ranges. ``give_back`` gets stretches of a batch that did not run."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        settler: Settler,
        stats: Stats,
        book: _Bookkeeper,
        give_back: Callable[[Flight, list[Stretch]], None],
        record: WorkRecord,
    ) -> None:
        self._dispatcher = dispatcher
        self._settler = settler
        self._stats = stats
        self._book = book
        self._give_back = give_back
        self._record = record

    def pageless(self, batch: RangeBatch) -> None:
        """Leased items cannot be run: somebody has deleted their elements."""
        group = RangeFailures(batch.run, batch.step, batch.worker_id)
        for position in range(len(batch)):
            item = batch.item(position)
            text = (
                f'step "{batch.step}" task {item.index}: its input is missing in the database (pgflow.pages)'
            )
            outcome = Outcome(position, Kind.FAILED_FOR_GOOD, text.encode(), 0.0)
            self._book.note_failure(batch.flow, batch.run, batch.step, item, outcome, True, bytes)
            group.merge(batch.failed(position, outcome.body, True))
        self._settler.add([group], group.size)

    def outcomes(self, event: RangeOutcomes) -> None:
        """Items of a chunk ended."""
        flight = self._dispatcher.flights.get(event.seq)
        if flight is None:
            return
        if event.done:
            del self._dispatcher.flights[event.seq]
        batch = cast(RangeBatch, flight.batch)
        now = time.monotonic()
        if event.pieces:
            self._completed(flight, batch, event, now)
        if event.exceptions:
            self._failed(flight, batch, event.exceptions, now)
        if event.tally is not None:
            first = batch.first + flight.start
            self._record.chunk_tally(flight, batch.run, batch.step, first, event.tally, now)
        if event.done:
            self._record.spans.ended(flight, now)
        back = [(flight.start + position, flight.start + position + n) for position, n in event.not_run]
        if back:
            self._stats.handed_back += sum(end - first for first, end in back)
            self._give_back(flight, back)
        for piece in event.pieces:
            first = flight.start + piece.position
            self._dispatcher.finish(batch, first, first + piece.count - 1)
        for outcome in event.exceptions:
            position = flight.start + outcome.position
            self._dispatcher.finish(batch, position, position)
        for first, end in back:
            self._dispatcher.finish(batch, first, end - 1)

    def _completed(self, flight: Flight, batch: RangeBatch, event: RangeOutcomes, now: float) -> None:
        base = batch.first + flight.start
        lease, lease_no = batch.held.number, batch.lease_no
        parts = [
            RangePart(lease, lease_no, base + piece.position, piece.count, [piece.body], len(piece.body))
            for piece in event.pieces
        ]
        items, size = event.completed, sum([part.size for part in parts])
        if self._book.corner:
            for part in parts:
                self._book.corner.cleared(batch.run, batch.step, part.first, part.first + part.count)
        self._dispatcher.times.observe(batch.flow, batch.step, event.seconds, items, size, OVERHEAD)
        self._stats.busy += event.seconds
        first = base + event.pieces[0].position
        self._record.tallied(flight, batch.run, batch.step, first, items, event.seconds, now)
        self._book.count(batch.flow, batch.step, 0, items)
        self._settler.add([RangeGroup(batch.run, batch.step, batch.worker_id, parts)], size, MIDST)

    def _failed(self, flight: Flight, batch: RangeBatch, outcomes: list[Outcome], now: float) -> None:
        group = RangeFailures(batch.run, batch.step, batch.worker_id)
        for outcome in outcomes:
            position, permanent = flight.start + outcome.position, outcome.kind == Kind.FAILED_FOR_GOOD
            item = batch.item(position)
            self._book.corner.clear((batch.run, batch.step, item.index))
            given = partial(batch.input, position)
            self._book.note_failure(batch.flow, batch.run, batch.step, item, outcome, permanent, given)
            group.merge(batch.failed(position, outcome.body, permanent))
            self._record.failed(flight, batch.run, batch.step, item.index, outcome.seconds, now)
        seconds = sum(outcome.seconds for outcome in outcomes)
        self._dispatcher.times.observe(batch.flow, batch.step, seconds, len(outcomes))
        self._stats.busy += seconds
        self._settler.add([group], group.size)
