"""How long the items of a chunk took: how many fell into which bucket, and the slowest of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pgflow_mp.time_buckets import BUCKETS, EDGES, bucket_of

SLOWEST: Final = 4
"""Items of a chunk that are named."""


@dataclass(slots=True)
class Tally:
    """Items that ended, by bucket (``time_buckets``); ``slowest``: (seconds, position) of some, in no order.

    Of an item in a range that took less than 250 microseconds (``surroundings.LONG``) no time is taken by
    itself: it counts with the mean of those that ran one after another with it for about that long, and it is
    never among the slowest. All others count with their own time, those of a batch with their share of it.
    """

    counts: dict[int, int] = field(default_factory=dict)
    slowest: list[tuple[float, int]] = field(default_factory=list)

    def add(self, seconds: float, items: int = 1) -> None:
        """So many items took so long each."""
        bucket = bucket_of(seconds)
        self.counts[bucket] = self.counts.get(bucket, 0) + items

    def name(self, position: int, seconds: float, items: int = 1) -> None:
        """The item there, and those after it, took so long each."""
        if items:
            self.add(seconds, items)
            slowest = self.slowest
            if len(slowest) < SLOWEST:
                slowest.append((seconds, position))
            elif (least := min(slowest))[0] < seconds:
                slowest[slowest.index(least)] = (seconds, position)

    def add_each(self, times: Iterable[float]) -> None:
        """Items took these seconds; quick for many."""
        found, counts = sorted(times), self.counts
        at, end = 0, len(found)
        while at < end:
            bucket = bucket_of(found[at])
            after = end
            if bucket < BUCKETS - 1 and found[-1] >= EDGES[bucket + 1]:
                after = max(at + 1, bisect_left(found, EDGES[bucket + 1], at))
            counts[bucket] = counts.get(bucket, 0) + after - at
            at = after

    @property
    def items(self) -> int:
        """How many."""
        return sum(self.counts.values())
