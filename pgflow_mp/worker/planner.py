"""How much to claim, and when. Pure: no clock, no thread, no database.

Claiming ahead is bounded by the time of the work, not by its count: enough to keep every lane busy until
the next claim is back, no more, so that other workers get their share and little has to be handed back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pgflow_mp.db.item_ranges import ElementPage
from pgflow_mp.worker.chunks import TARGET

MOST: Final = 2000  # items in a claim
MOST_BYTES: Final = 16 << 20  # of input in a claim, by the average of the flow's recent ones
CUT_SHORT: Final = 2 << 20  # of input: a claim with less than the quantity may have been cut by the database
MOST_HELD_BYTES: Final = 64 << 20  # of input of items without an outcome: beyond this nothing is claimed
MOST_HELD: Final = 10_000  # items without an outcome
MOST_ITEMS: Final = 100_000  # of maps in ranges in a claim
MANY_MAPS: Final = 16  # in ranges: a claim with so many may have been cut by the database, which takes 64
MOST_HELD_ITEMS: Final = 400_000  # of maps in ranges without an outcome
_LOW: Final = 0.6  # claim when this share of what is worth holding is missing
_RAMP: Final = 4  # a claim is at most this many times the largest one before it
_RAMP_ITEMS: Final = 16  # ... of items in ranges, which are handed back at no cost
_DOUBT: Final = (0.01, 0.1)  # seconds, shortest and longest, for which empty hints have no hint heeded
_FORGET: Final = 10.0  # seconds after which an empty hint is forgotten
_AT_ONCE: Final = 0.05  # seconds of work of a flow with limits that a lane may hold
_LIMITED: Final = 5.0  # seconds for which a flow is taken for one whose limits matter


@dataclass(frozen=True, slots=True)
class Load:
    """What the planner is told about a flow and the lanes.

    ``item_seconds``: time of an item of late (None: unknown). ``waiting_seconds``: work that waits for a
    lane (None: unknown). ``lane_seconds``: until the lanes are through with what they hold, summed up,
    each one counted up to the horizon. ``held``: tasks without an outcome, of all flows, ``held_items`` of
    maps in ranges, and ``held_bytes`` of input that they keep in memory. ``batch``: items that a handler
    takes at once, of late (0: one by one). ``idle``: lanes that have nothing and for which nothing waits.
    """

    lanes: int
    item_seconds: float | None
    waiting: int
    waiting_seconds: float | None
    lane_seconds: float
    held: int
    held_bytes: int = 0
    held_items: int = 0
    batch: int = 0
    idle: int = 0


@dataclass(frozen=True, slots=True)
class ClaimedItems:
    """What a claim got of maps in ranges: items of so many maps, and bytes of pages."""

    asked: int
    got: int
    size: int
    maps: int = 0


@dataclass(slots=True)
class _Place:
    """One queue's place in the round."""

    ceiling: int
    ceiling_items: int
    due: float = 0.0
    pause: float = 0.0
    round_trip: float = 0.0
    item_bytes: float = 0.0
    announced: bool = False
    hinted: bool = False
    followed: bool = False  # the claim under way was made on a hint
    limited_until: float = 0.0
    rated: bool = False  # it is a rate that lets no more through before ``due``


class ClaimPlanner:
    """Decides the quantity of the next claim from each queue. Times are time.monotonic()."""

    def __init__(
        self,
        queues: Iterable[str],
        *,
        lanes: int,
        batch_size: int | None = None,
        claim_ahead: float = 0.4,
        shortest_pause: float = 0.1,
        longest_pause: float = 2.0,
    ) -> None:
        self._batch_size = batch_size
        self._claim_ahead = claim_ahead
        self._shortest, self._longest = min(shortest_pause, longest_pause), longest_pause
        self._first = max(2 * lanes, 4)
        self._queues = {queue: _Place(self._first, self._first) for queue in queues}
        self._doubt = self._doubt_until = 0.0

    def horizon(self, queue: str) -> float:
        """Seconds of work per lane that are worth holding: a chunk and what passes during a claim."""
        return TARGET + max(self._claim_ahead, 2 * self._queues[queue].round_trip)

    def quantities(self, queue: str, load: Load, now: float) -> tuple[int, int]:
        """Tasks, and items of maps in ranges, to claim now; 0 for none."""
        place = self._queues[queue]
        hinted = place.hinted and now >= self._doubt_until
        if now < place.due and not place.announced and not hinted:
            return 0, 0
        if now < place.limited_until and not self.usable(queue, load):
            return 0, 0
        tasks, items = max(0, self._most(place, load)), max(0, self._most_items(place, load))
        if load.item_seconds is None:
            first = self._batch_size or max(self._first, load.batch * load.lanes)
            return (min(first, tasks), min(first, items)) if load.waiting == 0 else (0, 0)
        if load.waiting_seconds is None:
            return 0, 0
        wanted = load.lanes * self.horizon(queue)
        missing = wanted - load.waiting_seconds - load.lane_seconds
        if missing < _LOW * wanted and not (load.waiting == 0 and missing > 0):
            return 0, 0
        quantity = self._batch_size or max(1, int(missing / load.item_seconds))
        if load.batch and self._batch_size is None:
            quantity = math.ceil(quantity / load.batch) * load.batch
        return min(quantity, tasks), min(quantity, items)

    def usable(self, queue: str, load: Load) -> int:
        """Items that the lanes could begin with at this moment, or in the next one if they are short.

        What is held of a flow with limits, others could work on.
        """
        idle = load.idle * max(1, load.batch)
        if not load.item_seconds or load.waiting_seconds is None:
            return idle
        short = load.lanes * _AT_ONCE - load.waiting_seconds - load.lane_seconds
        return max(idle, int(short / load.item_seconds))

    def limited(self, queue: str, seconds: float | None, now: float) -> None:
        """The claim that came back last was cut by limits; their rate lets more through after ``seconds``."""
        place = self._queues[queue]
        place.limited_until = now + _LIMITED
        if seconds is not None:
            place.rated, place.pause, place.due = True, 0.0, now + seconds

    def next_claim(self, now: float) -> float | None:
        """In how many seconds a rate lets more through; None where none is waited for."""
        waits = [place.due - now for place in self._queues.values() if place.rated and place.due > now]
        return min(waits, default=None)

    def _most_items(self, place: _Place, load: Load) -> int:
        if load.waiting and load.held_bytes > MOST_HELD_BYTES:
            return 0
        room = min(MOST_HELD_ITEMS - load.held_items, MOST_ITEMS)
        ceiling = max(place.ceiling_items, load.batch * load.lanes)
        return room if self._batch_size is not None else min(room, ceiling)

    def _most(self, place: _Place, load: Load) -> int:
        if load.waiting and load.held_bytes > MOST_HELD_BYTES:
            return 0
        room = MOST_HELD - load.held
        if load.waiting and room < MOST // 2:
            return 0  # rather one large claim a little later than many small ones
        most = min(room, MOST)
        if self._batch_size is None:
            most = min(most, max(place.ceiling, load.batch * load.lanes))
        if place.item_bytes > 0:
            most = min(most, max(1, int(MOST_BYTES / place.item_bytes)))
        return most

    def asked(self, queue: str) -> None:
        """A claim is on its way: it may not see what is announced from now on."""
        place = self._queues[queue]
        place.followed = place.hinted and not place.announced
        place.announced = place.hinted = place.rated = False

    def claimed(
        self,
        queue: str,
        asked: int,
        got: int,
        size: int,
        seconds: float,
        now: float,
        ranges: ClaimedItems | None = None,
    ) -> None:
        """A claim came back with ``got`` tasks and ``size`` bytes after ``seconds``, and with ``ranges``.

        The database answers less than it was asked for when there is no more, and when the inputs reach its
        limit (``_claim_bytes``), which their text may be shorter than by a factor of up to 8. Of more than 64
        maps in ranges it answers 64.
        """
        place = self._queues[queue]
        place.round_trip += (seconds - place.round_trip) * (0.3 if place.round_trip else 1.0)
        if got:
            mean = size / got
            place.item_bytes = max(mean, place.item_bytes + (mean - place.item_bytes) * 0.3)
            place.ceiling = min(MOST, max(place.ceiling, _RAMP * got))
        items = ranges or ClaimedItems(0, 0, 0)
        if items.got:
            place.ceiling_items = min(MOST_ITEMS, max(place.ceiling_items, _RAMP_ITEMS * items.got))
            got += items.got
        full = got - items.got == asked > 0 or items.got == items.asked > 0
        if full or size + items.size > CUT_SHORT or items.maps >= MANY_MAPS:
            place.due = place.pause = 0.0
        elif got:
            place.pause = self._shortest
            place.due = now + place.pause / 4
        else:
            place.pause = min(self._longest, max(self._shortest, 2 * place.pause))
            place.due = now + place.pause
        if got:
            self._doubt = self._doubt_until = 0.0
        elif place.followed:
            least, most = _DOUBT
            self._doubt = min(most, max(least, 2 * self._doubt))
            self._doubt_until = now + self._doubt

    def postpone(self, queue: str, now: float) -> None:
        """A claim failed: whether there is anything is unknown."""
        place = self._queues[queue]
        place.due, place.pause = now + self._shortest, 0.0

    def announce(self, queue: str) -> None:
        """There is work, or may be, which ends a pause."""
        if queue in self._queues:
            self._queues[queue].announced = True

    def hint(self, queue: str, now: float) -> None:
        """Somebody says that there is work, which ends a pause unless such talk was empty of late."""
        if now - self._doubt_until > _FORGET:
            self._doubt = 0.0
        if queue in self._queues:
            self._queues[queue].hinted = True

    def dry(self, queue: str) -> bool:
        """Whether the last claim found less than it asked for, and nothing credible was said since."""
        place = self._queues[queue]
        hinted = place.hinted and not self._doubt
        return place.pause > 0 and not place.announced and not hinted and not place.rated

    def pause(self, queue: str) -> float:
        """The present pause between claims from a queue that has nothing, in seconds."""
        return self._queues[queue].pause


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A claim that the main loop wants, from the queue that ``worker_id`` is registered for.

    Of ``quantity`` tasks and ``items`` of maps in ranges, whose ``pages`` we have; where the flow has limits,
    of no more than are ``usable`` at once.
    """

    flow: str
    queue: str
    worker_id: str
    quantity: int
    items: int = 0
    pages: tuple[ElementPage, ...] = ()
    usable: int | None = None
