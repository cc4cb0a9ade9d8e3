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
        self._waiting: deque[tuple[Key, Batch]] = deque()
        self._out: Key | None = None

    def __bool__(self) -> bool:
        return bool(self._losses)

    def lost(self, key: Key) -> None:
        """The lanes' parent died while this item ran."""
        self._losses[key] = self._losses.get(key, 0) + 1

    def losses(self, batch: Batch, item: Item) -> int:
        """How often that was so."""
        return self._losses.get(_key(batch, item), 0)

    def aside(self, batch: Batch) -> None:
        """A batch of one item, to be let through when its turn comes; it may have been the one that was."""
        key = _key(batch, batch.items[0])
        self.ended(key)
        self._waiting.append((key, batch))

    def ended(self, key: Key) -> None:
        """This item is not in a lane any more."""
        if self._out == key:
            self._out = None

    def settled(self, key: Key) -> None:
        """This item is done with."""
        self.ended(key)
        self._losses.pop(key, None)

    def next(self) -> Batch | None:
        """The suspect whose turn it is."""
        if self._out is not None or not self._waiting:
            return None
        self._out, batch = self._waiting.popleft()
        return batch

    def take_all(self) -> list[Batch]:
        """Those that wait; they do not any more."""
        batches = [batch for _, batch in self._waiting]
        self._waiting.clear()
        return batches


def _key(batch: Batch, item: Item) -> Key:
    return batch.runs[item.run], batch.steps[item.step], item.index
