"""Fields of items that somebody picked, as in ``index,words,author.name``: flat objects of raw JSON.

A name is one of the item's own (see OWN), or else a member of its output; after a dot comes a member of that
member, or a position of an array. ``input.x`` is a member of the input, ``output.index`` one of the output
that is called as one of the item's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from pgflow_mp.errors import InputError

OWN: Final = ("index", "status", "attempts", "input", "output", "error", "seconds")
"""What an item has besides members of its output."""
NULL: Final = b"null"
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Fields:
    """The fields of a list with commas. Raises InputError for what cannot be one, or occurs twice."""

    def __init__(self, text: str) -> None:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if not name or not all(name.split(".")):
                raise InputError(
                    f"--fields {text}: {'there is a name missing' if not name else f'{name} names nothing'}",
                    hint="Give names with commas between them, as in index,words,author.name.",
                )
            if names.count(name) > 1:
                raise InputError(f"--fields {text}: {name} occurs twice", hint="Name each field once.")
        for name in names:
            first, _, rest = name.partition(".")
            if rest and first in OWN and first not in ("input", "output"):
                raise InputError(
                    f"--fields {text}: {first} has no members",
                    hint=f"A member of the output that is called so is output.{name}.",
                )
        self.names = tuple(names)
        self._paths = [self._path(name) for name in names]
        self.unmet = {name for name, path in zip(names, self._paths, strict=True) if len(path) > 1}
        """Members that no item had so far."""
        self._keys = [msgspec.json.encode(name) + b": " for name in names]

    def wants(self, own: str) -> bool:
        """Whether one of the item's own fields is among them, or something of it."""
        return any(path[0] == own for path in self._paths)

    def pick(self, item: Mapping[str, bytes | None]) -> bytes:
        """An object of the fields: ``item`` has those of OWN that are wanted. What is not there is null."""
        members: dict[str, Mapping[str, bytes] | None] = {}
        parts: list[bytes] = []
        for name, path, key in zip(self.names, self._paths, self._keys, strict=True):
            found = item.get(path[0])
            if len(path) > 1 and found is not None:
                if path[0] not in members:  # most are of the first level, of one object
                    members[path[0]] = _members(found)
                known = members[path[0]]
                found = known.get(path[1]) if known is not None else _member(found, path[1])
                for step in path[2:]:
                    found = None if found is None else _member(found, step)
            if found is not None:
                self.unmet.discard(name)
            parts.append(key + (found or NULL))
        return b"{" + b", ".join(parts) + b"}"

    @staticmethod
    def _path(name: str) -> tuple[str, ...]:
        path = tuple(name.split("."))
        return path if path[0] in OWN else ("output", *path)


def _members(value: bytes) -> Mapping[str, bytes] | None:
    if value[:1] != b"{":
        return None
    return {name: bytes(raw) for name, raw in _OBJECT.decode(value).items()}


def _member(value: bytes, name: str) -> bytes | None:
    if value[:1] == b"{":
        raw = _OBJECT.decode(value).get(name)
        return None if raw is None else bytes(raw)
    if value[:1] == b"[" and name.isdecimal():
        elements = _ARRAY.decode(value)
        at = int(name)
        return bytes(elements[at]) if at < len(elements) else None
    return None
