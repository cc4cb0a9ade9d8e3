"""What is told of the time that a run's items took, and of what ran when: structs in plain data."""

from __future__ import annotations

from datetime import datetime

import msgspec


class SlowItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item and its slowest attempt."""

    step_slug: str
    index: int
    seconds: float


class StepTimesReport(msgspec.Struct, frozen=True, kw_only=True):
    """How long attempts of a step's items took, over all workers, as far as they have told.

    ``attempts`` that ended in a process: an item that is retried counts as often, one whose worker died with
    it not at all. ``seconds`` are those of all together. ``counts`` by bucket: ``time_buckets``; ``p50`` to
    ``p99`` are as exact as these. Of items in ranges of less than 250 microseconds the mean of some
    neighbours was counted, and none is among the ``slowest``, of which at most ten of each worker are known.
    """

    step_slug: str
    workers: int
    attempts: int
    failed: int
    seconds: float
    mean: float
    p50: float
    p90: float
    p99: float
    counts: list[int]
    slowest: list[SlowItem]
    first_at: datetime
    last_at: datetime


class SpanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane of a ``worker`` (host:pid) did from ``started_at`` to ``ended_at``: a chunk, or several.

    ``items`` attempts of a step, ``failed`` of them; handlers ran for ``seconds``. ``outcome``: completed,
    failed (some did), died (its process).
    """

    worker: str
    lane: int
    step_slug: str
    first_index: int
    items: int
    failed: int
    outcome: str
    seconds: float
    started_at: datetime
    ended_at: datetime
