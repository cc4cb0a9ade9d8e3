"""How numbers were over the last minute, in one row of characters."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_PLAIN: Final = "_.-=+*%#"
WINDOW: Final = 60.0
"""Seconds."""
_SLOTS: Final = 60


class History:
    """A number over the last minute: what was told within a second is averaged."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, float, int]] = deque(maxlen=_SLOTS)

    def add(self, now: float, value: float) -> None:
        """It is that now."""
        slot = int(now * _SLOTS / WINDOW)
        if self._slots and self._slots[-1][0] == slot:
            _, total, count = self._slots.pop()
            self._slots.append((slot, total + value, count + 1))
        else:
            self._slots.append((slot, value, 1))

    def values(self, width: int) -> list[float]:
        """The last minute in at most so many averages, the latest last."""
        if not self._slots or width < 1:
            return []
        last, each = self._slots[-1][0], _SLOTS / width
        sums: dict[int, tuple[float, int]] = {}
        for slot, total, count in self._slots:
            if (place := math.floor((last - slot) / each)) < width:
                before = sums.get(place, (0.0, 0))
                sums[place] = (before[0] + total / count, before[1] + 1)
        return [sums[place][0] / sums[place][1] for place in sorted(sums, reverse=True)]


def spark(values: Sequence[float], most: float, *, plain: bool = False) -> str:
    """A character for each, as high as its share of ``most``; ``plain``: in ASCII."""
    levels = _PLAIN if plain else _BLOCKS
    if most <= 0:
        return levels[0] * len(values)
    top = len(levels) - 1
    return "".join(levels[max(0, min(top, round(value / most * top)))] for value in values)
