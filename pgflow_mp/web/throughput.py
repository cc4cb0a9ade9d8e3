"""How many items end in a second: by what was done when somebody looked before, else since the runs began."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

_SHORTEST: Final = 0.8
_LONGEST: Final = 20.0
"""Seconds between two looks whose difference tells a rate."""
_KEPT: Final = 500

_lock = threading.Lock()
_looks: OrderedDict[str, list[tuple[float, dict[str, int]]]] = OrderedDict()


def now_done(what: str, done: Mapping[str, tuple[int, float]]) -> float | None:
    """Items a second over these runs: (done so far, seconds so far) by id; None where there is nothing.

    ``what`` names who looks, so that looks at the same thing are compared.
    """
    now = time.monotonic()
    counts = {run: items for run, (items, _) in done.items()}
    with _lock:
        looks = _looks.setdefault(what, [])
        _looks.move_to_end(what)
        while len(_looks) > _KEPT:
            _looks.popitem(last=False)
        earlier = next((look for look in looks if _SHORTEST <= now - look[0] <= _LONGEST), None)
        if not looks or now - looks[-1][0] >= _SHORTEST:
            looks.append((now, counts))
        while looks and now - looks[0][0] > _LONGEST / 2:
            looks.pop(0)
    if earlier is not None:
        return sum(max(0, counts[run] - earlier[1].get(run, counts[run])) for run in counts) / (
            now - earlier[0]
        )
    rates = [items / seconds for items, seconds in done.values() if seconds > 0]
    return sum(rates) if rates else None
