"""What is claimed and when, and what goes back because it was too much. Threads: the main loop's only."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Final

from pgflow_mp.executors.protocol import Executor
from pgflow_mp.worker import inbox
from pgflow_mp.worker.batches import AnyBatch
from pgflow_mp.worker.claim import Claimer
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.pages import PageStore
from pgflow_mp.worker.planner import ClaimedItems, ClaimPlanner, ClaimRequest, Load
from pgflow_mp.worker.settings import WorkerSettings

_SHED: Final = 4.0  # hand work back that is this many times what is worth holding


class Supply:
    """At most one claim at a time is under way; the queues of all flows take turns."""

    def __init__(
        self,
        settings: WorkerSettings,
        queues: Mapping[str, Sequence[str]],
        executor: Executor,
        dispatcher: Dispatcher,
        identities: Identities,
        claimer: Claimer,
    ) -> None:
        self._queues = queues
        self._sources = [(queue, flow) for flow, names in queues.items() for queue in names]
        self._turn = itertools.cycle(self._sources)
        self._fixed_batches = settings.batch_size is not None
        self._executor = executor
        self._dispatcher = dispatcher
        self._identities = identities
        self._claimer = claimer
        self._planner = ClaimPlanner(
            [queue for queue, _ in self._sources],
            lanes=executor.capacity,
            batch_size=settings.batch_size,
            claim_ahead=settings.claim_ahead,
            shortest_pause=settings.poll_interval_ms / 1000,
            longest_pause=settings.max_poll_seconds,
        )
        self._claiming: ClaimRequest | None = None
        self._pages = PageStore()

    # -- decisions ---------------------------------------------------------------------------------

    def claim(self, now: float, parked: int) -> None:
        """Ask for more where it is worth it; ``parked`` items are held, but not in anybody's way."""
        if self._claiming is not None or self._executor.paused:
            return
        dispatcher, planner = self._dispatcher, self._planner
        held_items = dispatcher.held_in_ranges()
        held = dispatcher.held_items() - held_items - parked
        for _ in self._sources:
            queue, flow = next(self._turn)
            load = Load(
                lanes=self._executor.capacity,
                item_seconds=dispatcher.times.recent(flow),
                waiting=dispatcher.waiting(),
                waiting_seconds=dispatcher.waiting_seconds(),
                lane_seconds=dispatcher.lane_seconds(now, planner.horizon(queue)),
                held=held,
                held_bytes=dispatcher.held_bytes(),
                held_items=held_items,
                batch=dispatcher.times.recent_batch(flow),
                idle=dispatcher.idle(self._executor.capacity),
            )
            tasks, items = planner.quantities(queue, load, now)
            if tasks or items:
                worker_id, pages = self._identities.of(queue), self._pages.known(flow)
                usable = planner.usable(queue, load)
                self._claiming = ClaimRequest(flow, queue, worker_id, tasks, items, pages, usable)
                planner.asked(queue)
                self._claimer.request(self._claiming)
                return

    def surplus(self) -> list[AnyBatch]:
        """What was claimed on a wrong guess of its duration, taken out of the queues: to be handed back."""
        return [batch for flow in self._queues for batch in self._surplus_of(flow)]

    def _surplus_of(self, flow: str) -> list[AnyBatch]:
        lanes = self._executor.capacity
        if self._fixed_batches or self._dispatcher.waiting(flow) < 2 * lanes:
            return []
        times = self._dispatcher.times
        of_a_batch = times.recent_batch(flow) * (times.recent(flow) or 0.0)
        worth = max(of_a_batch, *map(self._planner.horizon, self._queues[flow])) * lanes
        waiting = self._dispatcher.waiting_seconds(flow)
        if waiting is None or waiting < _SHED * worth:
            return []
        return self._dispatcher.shed(flow, 2 * worth)

    # -- what is heard -----------------------------------------------------------------------------

    def claimed(self, event: inbox.Claimed) -> None:
        """A claim came back."""
        self._claiming = None
        self._identities.registered(event.worker_id)
        batches = [batch for batch in (event.batch, event.condemned) if batch is not None]
        got, size = sum(len(batch) for batch in batches), sum(batch.size for batch in batches)
        if event.refused:
            self._planner.announce(event.queue)  # the claim may have been cut short
        ranges = ClaimedItems(
            event.asked.items,
            sum(map(len, event.ranges)),
            sum(batch.size for batch in event.ranges),
            len({(batch.run, batch.step) for batch in event.ranges}),
        )
        asked = event.asked.quantity
        now = time.monotonic()
        self._planner.claimed(event.queue, asked, got, size, event.seconds, now, ranges)
        if event.limited is not None:
            self._planner.limited(event.queue, event.limited.seconds, now)

    def keep_pages(self, event: inbox.Claimed) -> None:
        """Keep the pages that a claim has read or needed, and those of what is held."""
        if event.pages:
            self._pages.used(event.flow, event.pages)
            self._pages.trim(self._dispatcher.needed_pages())

    def failed(self, event: inbox.ClaimFailed | inbox.ClaimLost) -> None:
        """A claim did not come back; after a lost connection it is not known whether it was made."""
        self._claiming = None
        self._planner.postpone(event.queue, time.monotonic())
        if isinstance(event, inbox.ClaimLost):
            self._identities.doubtful(event.queue, event.worker_id)

    def announce(self, flow: str | None = None) -> None:
        """There is work, or may be, of one flow or of any, in whatever queue."""
        for each in self._queues if flow is None else (flow,):
            for queue in self._queues.get(each, ()):
                self._planner.announce(queue)

    def hint(self, flow: str) -> None:
        """Somebody says that there is work."""
        for queue in self._queues.get(flow, ()):
            self._planner.hint(queue, time.monotonic())

    # -- state -------------------------------------------------------------------------------------

    def rest(self, longest: float) -> float:
        """Seconds, at most ``longest``, until there is something to claim by the rate of a flow."""
        seconds = None if self._claiming is not None else self._planner.next_claim(time.monotonic())
        return longest if seconds is None else min(longest, seconds)

    @property
    def dry(self) -> bool:
        """Whether no claim is under way and the last one from every queue found less than it asked for."""
        return self._claiming is None and all(self._planner.dry(queue) for queue, _ in self._sources)

    def is_dry(self, flow: str) -> bool:
        """Whether the last claim from each queue of a flow found less than it asked for."""
        return all(map(self._planner.dry, self._queues[flow]))

    def claims_as(self, worker_id: str) -> bool:
        """Whether a claim under this id is under way."""
        return self._claiming is not None and self._claiming.worker_id == worker_id
