"""How times of items are counted: in buckets, eight for each power of ten from a microsecond on.

The edges are stated here and, the same, in ``pgflow.time_bucket_edge`` (sql/functions/0690_item_times.sql).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Final

PER_DECADE: Final = 8
BUCKETS: Final = 88
"""Up to 10**11 microseconds, 28 hours. The first holds what is shorter, too, the last what is longer."""


def edge(bucket: int) -> float:
    """The lower edge of a bucket, in seconds."""
    return float(1e-6 * 10 ** (bucket / PER_DECADE))


EDGES: Final = tuple(edge(bucket) for bucket in range(BUCKETS))


def bucket_of(seconds: float) -> int:
    """The bucket that a time falls into."""
    if seconds < 1e-6:
        return 0
    return min(BUCKETS - 1, int(PER_DECADE * (log10(seconds) + 6)))


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The time that this share (0..1) of the items stay below, in seconds; None where there are none.

    As if those of a bucket lay evenly, by their logarithms, between its edges: off by a sixth at most.
    """
    total = sum(counts)
    if not total:
        return None
    left = share * total
    for bucket, count in enumerate(counts):
        if count and left <= count:
            return edge(bucket) * 10 ** (left / count / PER_DECADE)
        left -= count
    return edge(len(counts))
