"""Items during which the lanes' parent process died, and all lanes with it.

Which of them did it is unknown, so nobody is charged. From the second time on such an item runs when no other
suspect does: at the third time it is to blame. Pure: no clock, no thread, no database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from pgflow_mp.executors.messages import Item, Kind, Outcome
from pgflow_mp.executors.verdicts import losses_error
from pgflow_mp.worker.batches import AnyBatch, Flight
from pgflow_mp.worker.chunks import Stretch, as_spans
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.parking import Parked

ALONE: Final = 2  # losses after which an item runs without other suspects
TO_BLAME: Final = 3  # losses after which it is not run again

Suspect = tuple[str, str, int]
"""Run, step, index."""


class Corner:
    """Counts losses, and lets suspects through one at a time. ``park`` gets those that are to blame."""

    def __init__(self, dispatcher: Dispatcher, park: Callable[[Parked], None]) -> None:
        self._dispatcher = dispatcher
        self._park = park
        self._losses: dict[Suspect, int] = {}
        self._waiting: deque[AnyBatch] = deque()
        self._out: AnyBatch | None = None

    def __bool__(self) -> bool:
        return bool(self._losses)

    def lost(self, seq: int, position: int) -> None:
        """The lanes' parent died while this item of a chunk ran; that it did not end is reported next."""
        if (flight := self._dispatcher.flights.get(seq)) is not None:
            key = _key(flight, position)
            self._losses[key] = self._losses.get(key, 0) + 1

    def ended(self, flight: Flight, outcomes: Sequence[Outcome]) -> None:
        """What ended, however it did, is no suspect."""
        for outcome in outcomes:
            if outcome.kind != Kind.NOT_RUN:
                self.clear(_key(flight, outcome.position))

    def cleared(self, run: str, step: str, first: int, end: int) -> None:
        """The items ``first``..end-1 of a map have ended."""
        for key in list(self._losses):
            if key[:2] == (run, step) and first <= key[2] < end:
                self.clear(key)

    def clear(self, key: Suspect) -> None:
        """This item has ended, or is not run again."""
        self._losses.pop(key, None)

    def sift(self, batch: AnyBatch, spans: Sequence[Stretch]) -> Sequence[Stretch]:
        """Items that come back from lanes, without those that are run one at a time, or not again."""
        if not self._losses:
            return spans
        free: list[int] = []
        for position in (position for span in spans for position in range(*span)):
            item = batch.item(position)
            run, step = batch.runs[item.run], batch.steps[item.step]
            losses = self._losses.get((run, step, item.index), 0)
            if losses < ALONE:
                free.append(position)
                continue
            (part,) = batch.parts([(position, position + 1)])
            self._dispatcher.keep(part)
            if losses < TO_BLAME:
                self._waiting.append(part)
                continue
            self.clear((run, step, item.index))
            error = losses_error(step, item.index, losses).encode()
            self._park(Parked(part, 0, item, run, step, Outcome(0, Kind.FAILED_FOR_GOOD, error, 0.0)))
        return as_spans(free)

    def let_through(self) -> None:
        """Have the next suspect run, if the one before needs nothing more."""
        if self._waiting and (self._out is None or not self._out.open):
            waited = self._waiting.popleft()
            (self._out,) = waited.parts([(0, 1)])
            self._dispatcher.add(self._out, first=True)
            self._dispatcher.finish(waited, 0, 0)

    def drop(self, unwanted: Callable[[AnyBatch, Item], bool]) -> list[AnyBatch]:
        """Forget those that wait and are ``unwanted``; which these were."""
        gone = [batch for batch in self._waiting if unwanted(batch, batch.item(0))]
        self._waiting = deque(batch for batch in self._waiting if batch not in gone)
        for batch in gone:
            item = batch.item(0)
            self.clear((batch.runs[item.run], batch.steps[item.step], item.index))
            self._dispatcher.finish(batch, 0, 0)
        return gone

    def take_all(self) -> list[AnyBatch]:
        """Those that wait; they do not any more."""
        batches = list(self._waiting)
        self._waiting.clear()
        for batch in batches:
            self._dispatcher.finish(batch, 0, 0)
        return batches


def _key(flight: Flight, position: int) -> Suspect:
    run, step, _, index = flight.chunk.locate(position)
    return run, step, index
