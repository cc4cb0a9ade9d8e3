"""What takes long to draw and changes slowly: drawn again only after many times as long as it took.

Threads: any; two that want the same thing at once draw it twice.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SHARE: Final = 100
_SHORTEST: Final = 2.0
_LONGEST: Final = 60.0
"""Seconds for which something is kept, at least and at most."""
_MOST: Final = 100

_lock = threading.Lock()
_things: OrderedDict[object, tuple[float, Any]] = OrderedDict()


def kept(key: object, make: Callable[[], T]) -> T:
    """What ``make`` returns, or has returned lately for this key."""
    now = time.monotonic()
    with _lock:
        until, found = _things.get(key, (0.0, None))
    if now < until:
        known: T = found
        return known
    made = make()
    took = time.monotonic() - now
    with _lock:
        _things[key] = (time.monotonic() + min(_LONGEST, max(_SHORTEST, _SHARE * took)), made)
        _things.move_to_end(key)
        while len(_things) > _MOST:
            _things.popitem(last=False)
    return made
