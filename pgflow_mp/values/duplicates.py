"""Objects in JSON text that have a key twice: all but the last value would be lost in jsonb without a word.

No parser tells of them. But one that has read the text writes fewer members than there were, and that
is counted at the speed of C: about a second for 200 MB, with a batch of elements in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from pgflow_mp.values.jsontext import members

_SMALL: Final = 1 << 18
_BATCH: Final = 1000
_as_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_as_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Duplicate(NamedTuple):
    """``text`` is the object that has ``key`` more than once, as it was written."""

    key: str
    text: bytes


def find_duplicate(text: bytes) -> Duplicate | None:
    """The first object in valid JSON that has a key more than once.

    Where Python cannot read the text (numbers of thousands of digits, hundreds of levels), none is found.
    """
    try:
        text = text.strip(b" \t\r\n")
        return _first(text) if _loses(text) else None
    except (ValueError, RecursionError):
        return None


def _first(text: bytes) -> Duplicate:
    while True:
        parts = _as_array(text) if text[:1] == b"[" else list(_as_object(text).values())
        inside = next((part for part in map(bytes, parts) if _loses(part)), None)
        if inside is None:
            return Duplicate(_twice(text), text)
        text = inside.strip(b" \t\r\n")


def _loses(text: bytes) -> bool:
    """Whether there are fewer members once it has been read."""
    if b":" not in text:
        return False
    written = members(text)
    if len(text) < _SMALL:
        return written != members(msgspec.json.encode(msgspec.json.decode(text)))
    if text[:1] == b"[":
        return written != _members_of_elements(text)
    parts = _as_object(text)
    if written != len(parts) + sum(members(bytes(part)) for part in parts.values()):
        return True
    return any(_loses(bytes(part)) for part in parts.values())


class _Element:
    """What each element of an array is converted to: nothing."""


def _members_of_elements(text: bytes) -> int:
    count = 0
    batch: list[Any] = []

    def take(_kind: type, element: Any) -> _Element:
        nonlocal count
        batch.append(element)
        if len(batch) == _BATCH:
            count += members(msgspec.json.encode(batch))
            batch.clear()
        return _nothing

    msgspec.json.decode(text, type=list[_Element], dec_hook=take)
    return count + members(msgspec.json.encode(batch))


_nothing: Final = _Element()


def _twice(text: bytes) -> str:
    keys: list[str] = []

    def see(pairs: list[tuple[str, Any]]) -> None:
        keys[:] = [key for key, _ in pairs]  # the last call is about the object itself

    json.loads(text, object_pairs_hook=see)
    return first_repeated(keys) or ""


def first_repeated(texts: Iterable[str]) -> str | None:
    """The first of them that was there before."""
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text
        seen.add(text)
    return None
