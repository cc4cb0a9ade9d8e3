"""The first elements of a large JSON array, without looking at the others."""

from __future__ import annotations

import re
from typing import Final

_MARK: Final = re.compile(rb'["\[\]{},]')
_OPENING: Final = b"[{"


def first_elements(array: bytes, count: int, within: int = 1 << 20) -> list[bytes]:
    """At most ``count`` elements of a valid JSON array, those that end in its first ``within`` bytes."""
    found: list[bytes] = []
    start, at, depth = array.find(b"[") + 1, array.find(b"[") + 1, 0
    while len(found) < count and (mark := _MARK.search(array, at, within)):
        at, what = mark.end(), mark[0]
        if what == b'"':
            at = _end_of_string(array, at, within)
        elif what in _OPENING:
            depth += 1
        elif depth and what != b",":
            depth -= 1
        elif not depth:
            if element := array[start : mark.start()].strip():
                found.append(element)
            if what != b",":
                break
            start = at
    return found


def _end_of_string(text: bytes, at: int, within: int) -> int:
    """The position after the quote that ends the string whose text begins ``at``."""
    while (quote := text.find(b'"', at, within)) >= 0:
        before = quote
        while before > at and text[before - 1 : before] == b"\\":
            before -= 1
        at = quote + 1
        if (quote - before) % 2 == 0:
            return at
    return within
