"""What feeds a run: batches of elements as raw JSON, each with its place for messages.

A source is read once, from the beginning to the end. What stands first can be looked at ahead (``sample``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.values.duplicates import find_duplicate
from pgflow_mp.values.jsontext import find_nul, invalid_utf8
from pgflow_mp.values.rows import RowTypes

BATCH_BYTES: Final = 64_000
"""About as much as one page of a map holds."""
SMALL: Final = 1_000_000
"""Bytes of JSON up to which an array is the run's input as one value."""
NUL: Final = "PostgreSQL cannot store the character \\u0000"
_EXCERPT: Final = 500

Raw = bytes | msgspec.Raw


class ElementBatch(NamedTuple):
    """Consecutive elements; ``place(i)`` tells where the one at position ``i`` stands."""

    elements: Sequence[Raw]
    place: Callable[[int], str]


class BadLine(NamedTuple):
    """Something that is no element, as it was written."""

    place: str
    reason: str
    text: str


class ItemSource(ABC):
    """Where elements come from. ``size`` in bytes, None if that is unknown.

    ``on_bad`` takes what cannot be an element and the source goes on; without it InputError is raised.
    ``row_types`` convert the texts of a table, as the map's handler wants them.
    """

    wants_types = False
    """Whether all it has are texts, which become what ``row_types`` say."""

    def __init__(self, name: str, size: int | None = None) -> None:
        self.name = name
        self.size = size
        self.on_bad: Callable[[BadLine], object] | None = None
        self.row_types: RowTypes | None = None
        self._parts: Iterator[Any] | None = None
        self._head: list[Any] = []

    @abstractmethod
    def parts(self) -> Iterator[Any]:
        """What is read, in pieces of about BATCH_BYTES."""

    @abstractmethod
    def batch(self, part: Any) -> ElementBatch:
        """The elements of one piece. Raises InputError, or tells ``on_bad``."""

    @property
    def position(self) -> int:
        """How many of the ``size`` bytes were read."""
        return 0

    def close(self) -> None:  # noqa: B027 - few have something to close
        """Give back what it holds."""

    def look(self) -> None:
        """Read the first piece ahead."""
        if self._parts is None:
            self._parts = self.parts()
            self._head = [part for part in (next(self._parts, None),) if part is not None]

    def sample(self, count: int) -> list[bytes]:
        """The first elements, which will come again. Bad lines among them are not told."""
        self.look()
        on_bad, self.on_bad = self.on_bad, self.on_bad and (lambda _bad: None)
        try:
            return [bytes(raw) for part in self._head for raw in self.batch(part).elements[:count]]
        finally:
            self.on_bad = on_bad

    def batches(self) -> Iterator[ElementBatch]:
        """All of it. Raises InputError with the place of what is wrong."""
        self.look()
        assert self._parts is not None  # noqa: S101 - look has begun
        head, self._head = self._head, []
        for part in head:
            yield self.batch(part)
        for part in self._parts:
            yield self.batch(part)

    def bad(self, place: str, reason: str, text: str, hint: str = "") -> None:
        """Something is no element: say so, or have it skipped. Raises InputError."""
        if self.on_bad is None:
            raise InputError(f"{place}: {reason}", hint=hint or "Correct it there, or --on-bad-line skip.")
        self.on_bad(BadLine(place, reason, text[:_EXCERPT]))


def is_storable(body: bytes) -> bool:
    """Whether jsonb holds what this valid JSON says: no NUL, no broken UTF-8, no key twice in an object."""
    return find_nul(body) < 0 and invalid_utf8(body) < 0 and find_duplicate(body) is None


def joined(elements: Sequence[Raw]) -> bytes:
    """The elements as one JSON array."""
    return b"[" + b",".join(elements) + b"]"


def collect(source: ItemSource, limit: int) -> bytes:
    """All elements as one JSON array of at most ``limit`` bytes. Raises InputError."""
    bodies, size = [], 0
    for batch in source.batches():
        if batch.elements:
            body = joined(batch.elements)[1:-1]
            size += len(body) + 1
            if size > limit:
                raise InputError(
                    f"{source.name} has more than {limit / 1e9:g} GB, and the flow reads it as one value",
                    hint="Let a map read the elements, and give what other steps need by --set NAME=VALUE.",
                )
            bodies.append(body)
    return b"[" + b",".join(bodies) + b"]"
