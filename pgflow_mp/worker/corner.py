"""Items during which the lanes' parent process died, and all lanes with it.

Which of them did it is unknown, so nobody is charged. From the second time on such an item runs when no other
suspect does: at the third time it is to blame. Pure: no clock, no thread, no database.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from pgflow_mp.executors.messages import Item
from pgflow_mp.worker.batches import Batch

ALONE: Final = 2  # losses after which an item runs without other suspects
TO_BLAME: Final = 3  # losses after which it is not run again

Key = tuple[str, str, int]
"""Run, step, index."""


class Corner:
    """Counts losses, and lets suspects through one at a time."""

    def __init__(self) -> None:
        self._losses: dict[Key, int] = {}
        self._waiting: deque[Batch] = deque()
        self._out: Batch | None = None

    def __bool__(self) -> bool:
        return bool(self._losses)

    def lost(self, key: Key) -> None:
        """The lanes' parent died while this item ran."""
        self._losses[key] = self._losses.get(key, 0) + 1

    def losses(self, batch: Batch, item: Item) -> int:
        """How often that was so."""
        return self._losses.get((batch.runs[item.run], batch.steps[item.step], item.index), 0)

    def clear(self, key: Key) -> None:
        """This item has ended, or is not run again."""
        self._losses.pop(key, None)

    def aside(self, batch: Batch) -> None:
        """A batch of one item, to be let through when its turn comes."""
        self._waiting.append(batch)

    def next(self) -> tuple[Batch, Batch] | None:
        """The batch whose turn it is, and the one that takes its place, to be run."""
        if not self._waiting or (self._out is not None and self._out.open):
            return None
        batch = self._waiting.popleft()
        self._out = batch.part(batch.items)
        return batch, self._out

    def take_all(self) -> list[Batch]:
        """Those that wait; they do not any more."""
        batches = list(self._waiting)
        self._waiting.clear()
        return batches
