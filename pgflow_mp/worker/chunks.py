"""How items are cut into chunks. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final

from pgflow_mp.executors.messages import Chunk, Item

TARGET: Final = 0.2  # seconds of work in a chunk
DEEPEST: Final = 0.1  # seconds: behind items that take longer no second chunk waits in a lane
SMALLEST: Final = 0.002  # seconds: a chunk is not cut smaller than this for fairness
LARGEST: Final = 500  # items in a chunk
LARGEST_BYTES: Final = 1 << 20  # of input in a chunk of several items
LARGEST_OUTPUT: Final = 4 << 20  # bytes that a chunk of several items may be expected to leave

Stretch = tuple[int, int]
"""Positions in a batch: the first, and the end of them (exclusive)."""


def chunk_size(item_seconds: float | None, waiting: int, lanes: int, largest: int = LARGEST) -> int:
    """Items for the next chunk when ``waiting`` items are there for ``lanes`` lanes.

    An unknown step is tried with one item. Otherwise TARGET seconds of work, less when so little is left
    that some lanes would get nothing, but then not less than SMALLEST seconds.
    """
    if item_seconds is None:
        return 1
    by_time = int(TARGET / item_seconds)
    fair = max(math.ceil(waiting / (2 * lanes)), int(SMALLEST / item_seconds))
    return max(1, min(by_time, fair, largest, waiting))


def whole_batches(
    item_seconds: float | None, waiting: int, lanes: int, idle: int, batch: int, largest: int
) -> int:
    """The same for a step whose handler takes ``batch`` items at once: as many whole batches.

    A batch may take as long for one item as for many, so none is cut smaller to last a shorter time. Where
    the ``idle`` ones of the lanes cannot have one each, they share what there is, but in no parts of less
    than a quarter of a batch.
    """
    if waiting < batch * max(1, idle):
        return max(1, min(batch, waiting, max(math.ceil(waiting / max(1, idle)), math.ceil(batch / 4))))
    by_time = batch if item_seconds is None else int(TARGET / item_seconds)
    count = min(by_time, math.ceil(waiting / (2 * lanes)), largest)
    return max(1, count // batch) * batch


def by_bytes(items: Iterable[Item]) -> int:
    """How many of the items, at least one, have at most LARGEST_BYTES of input together."""
    total = count = 0
    for item in items:
        total += len(item.input) + len(item.flow_input or b"")
        if count and total > LARGEST_BYTES:
            break
        count += 1
    return count


def compact(chunk: Chunk) -> Chunk:
    """The same chunk with only the runs and steps that its items point to."""
    runs: dict[int, int] = {}
    steps: dict[int, int] = {}
    items = [
        Item(
            item.index,
            item.attempt,
            item.msg_id,
            runs.setdefault(item.run, len(runs)),
            steps.setdefault(item.step, len(steps)),
            item.input,
            item.flow_input,
            item.paged,
        )
        for item in chunk.items
    ]
    named = [chunk.runs[i] for i in runs], [chunk.steps[i] for i in steps]
    return Chunk(chunk.seq, chunk.flow, *named, items, chunk.batch)


def spans(first: int, end: int, gone: Collection[int]) -> list[Stretch]:
    """The stretches of first..end-1 that are not gone."""
    return as_spans(i for i in range(first, end) if i not in gone)


def as_spans(positions: Iterable[int]) -> list[Stretch]:
    """Positions as stretches of those that follow each other."""
    found: list[Stretch] = []
    for i in positions:
        if found and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found
