"""In a lane's control page: which on_start function its process runs, and since when.

The process writes, its parent reads, whenever it likes.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_STARTING, _LABEL, _ENDINGS = (
    5,
    6,
    7,
)  # words that slots.py leaves: since when, the label's bytes, endings
_LABEL_AT: Final = 2048
_ROOM: Final = 1024


@dataclass(frozen=True, slots=True)
class Starting:
    """An on_start function that runs since ``since_ns`` (time.monotonic_ns)."""

    flow: str
    name: str
    since_ns: int

    @property
    def what(self) -> str:
        """How errors name it."""
        return f'on_start function "{self.name}" of flow "{self.flow}"'


class StartNote:
    """Either side's. ``words`` are the page as 64-bit words; ``fence`` keeps stores in order."""

    def __init__(self, page: mmap.mmap, words: memoryview, fence: Callable[[], None]) -> None:
        self._page = page
        self._words = words
        self._fence = fence

    def begin(self, flow: str, name: str, now_ns: int) -> None:
        """This function is about to be called."""
        self._words[_STARTING] = 0
        self._fence()
        text = f"{flow}\0{name}".encode("utf-8", "replace")[:_ROOM]
        self._page[_LABEL_AT : _LABEL_AT + len(text)] = text
        self._words[_LABEL] = len(text)
        self._fence()
        self._words[_STARTING] = now_ns

    def end(self, endings: int) -> None:
        """None runs any more; so many of them have something to do when the process ends."""
        self._words[_ENDINGS] = endings
        self._fence()
        self._words[_STARTING] = 0

    def read(self) -> Starting | None:
        """What runs now."""
        if not (since := self._words[_STARTING]):
            return None
        self._fence()
        text = self._page[_LABEL_AT : _LABEL_AT + self._words[_LABEL]].decode("utf-8", "replace")
        flow, _, name = text.partition("\0")
        return Starting(flow, name, since)

    @property
    def endings(self) -> int:
        """on_start functions that have something to do when the process ends."""
        count: int = self._words[_ENDINGS]
        return count
