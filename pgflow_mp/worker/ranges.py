"""What is held of maps in ranges: stretches of items and the pages they lie in, no object per item."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pgflow_mp.db.item_ranges import ElementPage, ItemLease
from pgflow_mp.executors.decoded_pages import Pages
from pgflow_mp.executors.messages import Item, RangeChunk, Segment
from pgflow_mp.worker.batches import AnyBatch, next_number
from pgflow_mp.worker.chunks import LARGEST_BYTES, Stretch
from pgflow_mp.worker.range_groups import RangeFailures
from pgflow_mp.worker.releases import RangeRelease

OVERHEAD: Final = 1.5e-6  # seconds a lane spends on an item of a range besides its handler
LARGEST_ITEMS: Final = 20_000  # in a chunk
LARGEST_OUTPUTS: Final = 1 << 20  # bytes that a chunk may be expected to leave: they become pages

_leases = itertools.count(1)
_pages: Final = Pages()  # the latest ones of which the input of an item was asked for


@dataclass(slots=True)
class HeldLease:
    """A lease of the items ``first``..end-1, as this process knows it; parts of it share it.

    ``dropped``: nobody wants it any more.
    """

    first: int
    end: int
    number: int = field(default_factory=lambda: next(_leases))
    dropped: bool = False


@dataclass(eq=False)
class RangeBatch(AnyBatch):
    """Items of one map from ``first`` on, as many as in ``done``, that lease ``lease_no`` of a worker holds.

    ``pages`` hold their elements, in order and without gaps; ``run`` and ``step`` name the map. An item of it
    is at its first attempt: from the second on it is a task.
    """

    flow: str
    worker_id: str
    run: str
    step: str
    timeout: float
    lease_no: int
    first: int
    pages: tuple[ElementPage, ...]
    done: bytearray
    size: int = 0
    next: int = 0
    open: int = 0
    limit: int = 0
    held: HeldLease = field(default_factory=lambda: HeldLease(0, 0))
    number: int = field(default_factory=next_number)

    def __post_init__(self) -> None:
        self.runs, self.steps, self.timeouts = [self.run], [self.step], [self.timeout]
        self.open = self.done.count(0)
        end = self.first + len(self.done)
        self.size = sum(
            len(page.body)
            * (min(end, page.first_index + page.items) - max(self.first, page.first_index))
            // page.items
            for page in self.pages
        )

    @property
    def largest(self) -> int:
        """Items of a chunk at most."""
        return LARGEST_ITEMS

    @property
    def largest_output(self) -> int:
        """Bytes that a chunk of several items may be expected to leave."""
        return LARGEST_OUTPUTS

    def item(self, position: int) -> Item:
        """The item there, without its input; made anew for whoever is to fail it."""
        return Item(self.first + position, 1, 0, 0, 0, b"", None)

    def input(self, position: int) -> memoryview:
        """What the item there is given, out of its page; empty where that is not there (any more)."""
        try:
            return memoryview(_pages.elements(self.chunk(0, position, 1))[0])
        except (ValueError, IndexError):
            return memoryview(b"")

    def part(self, first: int, end: int) -> RangeBatch:
        """A batch of the items there, to be handed out anew."""
        return RangeBatch(
            self.flow,
            self.worker_id,
            self.run,
            self.step,
            self.timeout,
            self.lease_no,
            self.first + first,
            pages_of(self.pages, self.first + first, self.first + end),
            bytearray(end - first),
            limit=self.limit,
            held=self.held,
        )

    def parts(self, stretches: Sequence[Stretch]) -> list[RangeBatch]:
        """A batch for each of these, to be handed out anew."""
        return [self.part(first, end) for first, end in stretches]

    def cut_off(self, first: int) -> RangeBatch:
        """Take the items from ``first`` on out of it; a batch of them."""
        rest = self.part(first, len(self))
        self._drop_tail(first)
        self.pages = pages_of(self.pages, self.first, self.first + first)
        self.size -= rest.size
        return rest

    def chunk(self, seq: int, start: int, count: int, least: int = 1) -> RangeChunk:
        """Items ``start``.. for a lane: ``count`` of them, or fewer where pages are large, or end.

        Not fewer than ``least``, which is what a handler takes at once.
        """
        index, taken, size = self.first + start, 0, 0
        segments: list[Segment] = []
        for page in pages_of(self.pages, index, index + count):
            offset = index + taken - page.first_index
            there = page.items - offset
            items = min(there, count - taken)
            size += len(page.body)
            # A page that would be cut goes to one lane, if this one has most of its items already.
            cut = least == 1 and items < there and 2 * taken >= count
            if segments and taken >= least and (size > LARGEST_BYTES or cut):
                break
            segments.append(Segment(page.body, page.page_id, offset, items))
            taken += items
        return RangeChunk(seq, self.flow, self.run, self.step, index, taken, segments, self.limit)

    def release(self, stretches: Sequence[Stretch]) -> RangeRelease:
        """What hands these items back."""
        return RangeRelease(
            self.flow,
            self.run,
            self.step,
            self.worker_id,
            [self.lease_no] * len(stretches),
            [self.first + first for first, _ in stretches],
            [end - first for first, end in stretches],
        )

    def failed(self, position: int, body: bytes, permanent: bool) -> RangeFailures:
        """What records that an item failed, for good if ``permanent``."""
        index = self.first + position
        return RangeFailures(
            self.run, self.step, self.worker_id, [self.lease_no], [index], [body], [permanent]
        )


def pages_of(pages: Sequence[ElementPage], first: int, end: int) -> tuple[ElementPage, ...]:
    """Those of a map's pages, which are in order, that hold any of the items ``first``..end-1."""
    at = bisect_right(pages, first, key=lambda page: page.first_index + page.items)
    found: list[ElementPage] = []
    for page in itertools.islice(pages, at, None):
        if page.first_index >= end:
            break
        found.append(page)
    return tuple(found)


def gaps(pages: Sequence[ElementPage], first: int, end: int) -> list[Stretch]:
    """Which of the items ``first``..end-1 none of these pages holds, which are in order."""
    found: list[Stretch] = []
    for page in pages_of(pages, first, end):
        if page.first_index > first:
            found.append((first, page.first_index))
        first = page.first_index + page.items
    if first < end:
        found.append((first, end))
    return found


def without_stale(pages: Iterable[ElementPage]) -> list[ElementPage]:
    """Pages of one map in order, without those that later ones stand in place of.

    Pages that are kept may be none of the map's any more: where it was begun anew, its items lie in others.
    """
    found: list[ElementPage] = []
    for page in sorted(pages, key=lambda page: page.first_index):
        while found and _end(found[-1]) > page.first_index and found[-1].page_id < page.page_id:
            found.pop()
        if not found or _end(found[-1]) <= page.first_index:
            found.append(page)
    return found


def _end(page: ElementPage) -> int:
    return page.first_index + page.items


def as_batch(flow: str, worker_id: str, lease: ItemLease, pages: Sequence[ElementPage]) -> RangeBatch:
    """A lease with its pages, in order."""
    return RangeBatch(
        flow,
        worker_id,
        lease.run_id,
        lease.step_slug,
        float(lease.timeout),
        lease.lease_no,
        lease.first_index,
        pages_of(pages, lease.first_index, lease.first_index + lease.items),
        bytearray(lease.items),
        held=HeldLease(lease.first_index, lease.first_index + lease.items),
    )
