"""The work that is measured: functions for flows, for bare pools and for peers alike.

Imports nothing but the standard library, so that every engine runs the very same code.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

_PAGE: Final = bytes(range(256)) * 16
_CALIBRATION: Final = 0.02  # seconds of one trial
_TRIALS: Final = 15


def noop(item: int) -> int:
    """Return the item."""
    return item


def echo(item: str) -> str:
    """Return a payload as large as the one received."""
    return item


def burn(loops: int) -> int:
    """Use the CPU to search a page of memory so many times: the same work whoever else is busy.

    What writes to memory, as arithmetic in Python does, is up to a tenth faster or slower from one process
    to the next, by where its objects happen to lie.
    """
    for _ in range(loops):
        _PAGE.count(b"\xff\x00")
    return loops


def nap(milliseconds: float) -> float:
    """Sleep."""
    time.sleep(milliseconds / 1000)
    return milliseconds


def noop_chunk(items: list[int]) -> list[int]:
    """Several items in one call, as one would write by hand."""
    return [noop(item) for item in items]


def burn_chunk(items: list[int]) -> list[int]:
    """Several items in one call, as one would write by hand."""
    return [burn(item) for item in items]


FUNCTIONS: Final[dict[str, Callable[[Any], Any]]] = {"noop": noop, "echo": echo, "burn": burn, "nap": nap}
CHUNKED: Final = {"noop": noop_chunk, "burn": burn_chunk}


def loops_per_second() -> float:
    """How fast burn() turns on this machine when nobody disturbs it: the best of several trials."""
    loops = 1000
    while (seconds := _time(loops)) < _CALIBRATION:
        loops *= 2
    return loops / min(seconds, *(_time(loops) for _ in range(_TRIALS)))


def _time(loops: int) -> float:
    started = time.perf_counter()
    burn(loops)
    return time.perf_counter() - started


def heavy_tail(count: int, short: int, long: int, *, seed: int = 1) -> list[int]:
    """``count`` items of which every hundredth on average is ``long``, at places drawn with ``seed``."""
    items = [short] * count
    for place in random.Random(seed).sample(range(count), max(1, count // 100)):  # noqa: S311
        items[place] = long
    return items
