"""Pages of ranges: decoded once where items run, while the latest are kept; and what is not sent again."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from pgflow_mp.executors.messages import AnyChunk, RangeChunk, Segment

T = TypeVar("T")

_KEPT: Final = 2
_LARGEST: Final = 1 << 20  # bytes of a page that is kept
_decode: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class RecentPages(Generic[T]):
    """Something for each of the latest pages, by their ids. Both ends of a pipe forget the same ones."""

    def __init__(self) -> None:
        self._known: dict[int, T] = {}

    def get(self, page_id: int) -> T | None:
        return self._known.get(page_id)

    def use(self, page_id: int, size: int, value: T) -> None:
        """A page of ``size`` bytes is used; 0 if it was known."""
        known = self._known
        if known.pop(page_id, None) is None and size > _LARGEST:
            return
        known[page_id] = value
        if len(known) > _KEPT:
            del known[next(iter(known))]

    def copy(self) -> RecentPages[T]:
        other: RecentPages[T] = RecentPages()
        other._known = dict(self._known)
        return other


class Pages:
    """The elements of pages. One thread at a time."""

    def __init__(self) -> None:
        self._recent: RecentPages[list[msgspec.Raw]] = RecentPages()

    def elements(self, chunk: RangeChunk) -> list[msgspec.Raw]:
        """The raw elements of a chunk's items. Raises ValueError if its segments do not hold as many."""
        found: list[msgspec.Raw] = []
        for segment in chunk.segments:
            found += self._page(segment)[segment.first : segment.first + segment.count]
        if len(found) != chunk.count:
            raise ValueError(f"a chunk of {chunk.count} items came with {len(found)} elements")
        return found

    def _page(self, segment: Segment) -> list[msgspec.Raw]:
        page = self._recent.get(segment.page_id)
        if page is None:
            page = _decode(segment.page)
        self._recent.use(segment.page_id, len(segment.page), page)
        return page


class PagesSent:
    """What the Pages of a process know, by what it was sent."""

    def __init__(self) -> None:
        self._recent: RecentPages[bool] = RecentPages()

    def without_known(self, chunk: AnyChunk) -> tuple[AnyChunk, PagesSent]:
        """The chunk without the pages that the process still has then, and what it knows afterwards."""
        if not isinstance(chunk, RangeChunk):
            return chunk, self
        after = PagesSent()
        after._recent = self._recent.copy()
        segments = [after._segment(segment) for segment in chunk.segments]
        return msgspec.structs.replace(chunk, segments=segments), after

    def _segment(self, segment: Segment) -> Segment:
        page = b"" if self._recent.get(segment.page_id) else segment.page
        self._recent.use(segment.page_id, len(page), True)
        return Segment(page, segment.page_id, segment.first, segment.count)
