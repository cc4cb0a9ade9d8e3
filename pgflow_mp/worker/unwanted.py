"""What is held that nobody wants any more: leases that were lost, runs and steps that are over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from pgflow_mp.executors.messages import Item
from pgflow_mp.executors.protocol import Executor
from pgflow_mp.worker import inbox
from pgflow_mp.worker.batches import AnyBatch, Batch, Flight
from pgflow_mp.worker.chunks import Stretch, as_spans
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.latest import Latest
from pgflow_mp.worker.outcomes import Collector
from pgflow_mp.worker.ranges import RangeBatch

_REMEMBERED: Final = 20_000  # messages that are over


class Unwanted:
    """Takes it out of the queues and ends what runs of it. Threads: the main loop's."""

    def __init__(
        self,
        executor: Executor,
        dispatcher: Dispatcher,
        collector: Collector,
        identities: Identities,
        release: Callable[[AnyBatch, Sequence[Stretch]], None],
    ) -> None:
        self._executor = executor
        self._dispatcher = dispatcher
        self._collector = collector
        self._identities = identities
        self._release = release
        self._over: Latest[tuple[str, int]] = Latest(_REMEMBERED)

    # -- what comes back ---------------------------------------------------------------------------

    def claimed(self, batch: Batch) -> None:
        """These tasks are ours, or ours again."""
        self._over.discard((batch.worker_id, item.msg_id) for item in batch.items)

    def sift(self, batch: AnyBatch, stretches: Sequence[Stretch]) -> Sequence[Stretch]:
        """Items that did not run, without tasks whose leases were lost."""
        if not self._over or not isinstance(batch, Batch):
            return stretches
        over, worker_id = self._over, batch.worker_id
        positions = (position for stretch in stretches for position in range(*stretch))
        return as_spans(i for i in positions if (worker_id, batch.items[i].msg_id) not in over)

    def is_dropped(self, batch: AnyBatch) -> bool:
        """Whether nobody wants this part of a lease."""
        return isinstance(batch, RangeBatch) and batch.held.dropped

    # -- what is said ------------------------------------------------------------------------------

    def leases_lost(self, event: inbox.LeasesLost) -> None:
        """These tasks are not ours any more."""
        lost, worker_id = event.msg_ids, event.worker_id
        self._over.add((worker_id, msg_id) for msg_id in lost)
        self._discard(lambda batch, item: item.msg_id in lost and batch.worker_id == worker_id)
        self._collector.drop_parked(
            lambda parked: parked.item.msg_id in lost and parked.batch.worker_id == worker_id
        )
        self._end_running(
            lambda flight, position: (
                flight.batch.worker_id == worker_id
                and flight.batch.item(flight.start + position).msg_id in lost
            )
        )

    def drop(self, run: str, step: str | None) -> None:
        """A run, or a step of it, is over: what waits of it is not needed."""
        self._discard(
            lambda batch, item: (
                batch.runs[item.run] == run and (step is None or batch.steps[item.step] == step)
            )
        )
        self._drop_ranges(lambda batch: batch.run == run and step in (None, batch.step))
        self._collector.drop_parked(lambda parked: parked.run == run and step in (None, parked.step))

    def maps_over(self, event: inbox.MapsOver) -> None:
        """These maps have ended."""
        self._drop_ranges(lambda batch: (batch.run, batch.step) in event.maps)

    def refused(self, call: inbox.SettledCall) -> None:
        """Results of items were refused: whatever else their leases hold is not ours either."""
        self._drop_ranges(
            lambda batch: (
                (batch.run, batch.step, batch.worker_id) == (call.run, call.step, call.worker_id)
                and any(batch.held.first <= index < batch.held.end for index in call.lost)
            )
        )

    def died(self, worker_ids: Collection[str]) -> None:
        """Others took these ids of ours for dead: what was held by them is theirs."""
        self._discard(lambda batch, _item: batch.worker_id in worker_ids)
        self._dispatcher.discard_ranges(lambda batch: batch.worker_id in worker_ids)
        self._collector.corner.drop(lambda batch, _item: batch.worker_id in worker_ids)
        self._collector.drop_parked(lambda parked: parked.batch.worker_id in worker_ids)
        self._end_running(lambda flight, _: self.is_dropped(flight.batch))  # nothing of it would be accepted

    # -- internals ---------------------------------------------------------------------------------

    def _discard(self, unwanted: Callable[[Batch, Item], bool]) -> None:
        """Forget tasks that wait for a lane, or to be let through."""
        self._dispatcher.discard(unwanted)
        self._collector.corner.drop(lambda batch, item: isinstance(batch, Batch) and unwanted(batch, item))

    def _drop_ranges(self, unwanted: Callable[[RangeBatch], bool]) -> None:
        """Forget leases, and end what runs of them. What may be ours of them still is handed back."""
        dropped = self._dispatcher.discard_ranges(unwanted)
        for batch, stretch in dropped:
            self._release(batch, [stretch])
        for part in self._collector.corner.drop(lambda batch, _item: self.is_dropped(batch)):
            self._release(part, [(0, 1)])
        self._collector.drop_parked(lambda parked: self.is_dropped(parked.batch))
        self._end_running(lambda flight, _: self.is_dropped(flight.batch))

    def _end_running(self, unwanted: Callable[[Flight, int], bool]) -> None:
        """End what lanes run of chunks, by position, that nobody wants any more."""
        flights = self._dispatcher.flights

        def asked(seq: int, position: int) -> bool:
            flight = flights.get(seq)
            return flight is not None and unwanted(flight, position)

        self._executor.cancel(asked)
