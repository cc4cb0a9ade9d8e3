"""Pages that a worker has read, kept for as long as there is room: a claim need not send them again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pgflow_mp.db.item_ranges import ElementPage

MOST_BYTES: Final = 4 << 20  # of pages that nothing held needs
MOST_KNOWN: Final = 64  # pages that a claim is told of


class PageStore:
    """The pages of each flow, the latest used last. Threads: the main loop's."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[str, ElementPage]] = {}
        self._bytes = 0

    def used(self, flow: str, pages: Iterable[ElementPage]) -> None:
        """These were read, or are needed again."""
        for page in pages:
            if self._pages.pop(page.page_id, None) is None:
                self._bytes += len(page.body)
            self._pages[page.page_id] = (flow, page)

    def known(self, flow: str) -> tuple[ElementPage, ...]:
        """Those of a flow that a claim is told of."""
        found: list[ElementPage] = []
        for of, page in reversed(self._pages.values()):
            if len(found) == MOST_KNOWN:
                break
            if of == flow:
                found.append(page)
        return tuple(found)

    def trim(self, needed: Iterable[ElementPage]) -> None:
        """Forget the oldest ones beyond MOST_BYTES, but none that is ``needed``."""
        if self._bytes <= MOST_BYTES:
            return
        kept = {page.page_id for page in needed}
        for page_id, (_, page) in list(self._pages.items()):
            if self._bytes <= MOST_BYTES:
                return
            if page_id not in kept:
                del self._pages[page_id]
                self._bytes -= len(page.body)
