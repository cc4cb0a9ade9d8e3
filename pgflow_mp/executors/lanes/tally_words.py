"""In a lane's control page: how long the items of a chunk took. One stretch of words for each buffer.

The process adds up, its parent reads, whenever it likes: what it reads may be one item ahead of the outcomes.
"""

from __future__ import annotations

from typing import Final

from pgflow_mp.executors.tallies import SLOWEST, Tally
from pgflow_mp.time_buckets import BUCKETS, bucket_of

WORDS: Final = BUCKETS + 2 * SLOWEST
_FIRST: Final = 40  # of the words that slots.py and start_note.py leave
_NOTHING: Final = bytes(8 * WORDS)


def place(buffer: int) -> int:
    """Its first word."""
    return _FIRST + buffer * WORDS


class TallyWriter:
    """The child's side, for the chunk in ``buffer``."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._at = place(0)
        self._least = 0

    def begin(self, buffer: int) -> None:
        """Another chunk."""
        self._at, self._least = place(buffer), 0
        self._words[self._at : self._at + WORDS] = memoryview(_NOTHING).cast("Q")

    def add(self, items: int, spent_ns: int) -> None:
        """So many items took so long together: they count with their mean."""
        if items > 0:
            self._words[self._at + bucket_of(spent_ns / items / 1e9)] += items

    def name(self, position: int, spent_ns: int, items: int = 1) -> None:
        """The item there, and those after it, took so long each."""
        words = self._words
        words[self._at + bucket_of(spent_ns / 1e9)] += items
        if spent_ns <= self._least:
            return
        first = self._at + BUCKETS
        at = min(range(first, first + 2 * SLOWEST, 2), key=words.__getitem__)
        words[at + 1] = position
        words[at] = spent_ns
        self._least = min(words[first : first + 2 * SLOWEST : 2])


class TallyReader:
    """The parent's side, for one chunk."""

    def __init__(self) -> None:
        self._before = _NOTHING

    def take(self, words: memoryview, buffer: int) -> Tally | None:
        """What has come since the last time; of the slowest all of them, again."""
        at = place(buffer)
        now = words[at : at + WORDS].tobytes()
        if now == self._before:
            return None
        old, new = memoryview(self._before).cast("Q"), memoryview(now).cast("Q")
        self._before = now
        counts = {n: new[n] - old[n] for n in range(BUCKETS) if new[n] != old[n]}
        slowest = [(new[n] / 1e9, new[n + 1]) for n in range(BUCKETS, WORDS, 2) if new[n]]
        return Tally(counts, slowest)
