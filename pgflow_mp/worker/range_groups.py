"""Outcomes of items in ranges on their way to the database: parts that are joined, no object per item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from pgflow_mp.db.item_ranges import RangeCompletion, RangeFailure
from pgflow_mp.db.settling import Call
from pgflow_mp.worker.groups import FULL, FULL_BYTES, AnyGroup, GroupKey

LIGHT: Final = 20  # items in ranges that cost the database as much as one task, at most
FULL_ITEMS: Final = 20_000  # in a call
FULL_PARTS: Final = 200  # in a call
PAGE_BYTES: Final = 256 << 10  # parts that follow each other are joined up to this: each becomes a page


@dataclass(slots=True)
class RangePart:
    """Outputs of ``count`` items from ``first`` on: JSON joined by commas, in pieces to be joined so.

    ``lease`` tells which lease of this process held them (0: unknown); parts of different ones stay apart.
    """

    lease: int
    lease_no: int
    first: int
    count: int
    bodies: list[bytes]
    size: int

    def follows(self, other: RangePart) -> bool:
        """Whether the two can be one part."""
        return (
            self.lease == other.lease != 0
            and self.first == other.first + other.count
            and self.size + other.size <= PAGE_BYTES
            and self.count + other.count <= FULL_ITEMS
        )


@dataclass
class RangeGroup(AnyGroup):
    """Outputs of items of one map. ``size`` is in bytes."""

    run: str
    step: str
    worker_id: str
    parts: list[RangePart]
    failures: bool = False

    @property
    def key(self) -> GroupKey:
        """Groups of the same key can be merged."""
        return self.run, self.step, self.worker_id, False, True

    @property
    def count(self) -> int:
        """Items."""
        return sum([part.count for part in self.parts])

    @property
    def weight(self) -> int:
        """In tasks: what its items and its parts cost."""
        return max(len(self.parts), self.count // LIGHT)

    @property
    def sizes(self) -> list[int]:
        """Bytes of the bodies of each part."""
        return [part.size for part in self.parts]

    def merge(self, other: Any) -> None:
        """Take over what is in another group of the same key."""
        self.parts += other.parts

    def _cut_off(self, first: int) -> Self:
        rest = replace(self, parts=self.parts[first:])
        del self.parts[first:]
        return rest

    def calls(self) -> list[Call]:
        """The group as calls of about FULL_ITEMS and FULL_BYTES at most, with parts joined where they can."""
        found: list[Call] = []
        for parts in self._portions():
            found.append(
                RangeCompletion(
                    self.run,
                    self.step,
                    self.worker_id,
                    [part.lease_no for part in parts],
                    [part.first for part in parts],
                    [part.count for part in parts],
                    [b"[" + b",".join(part.bodies) + b"]" for part in parts],
                )
            )
        return found

    def _portions(self) -> Iterator[list[RangePart]]:
        taken: list[RangePart] = []
        items = size = 0
        for part in self._joined():
            full = items + part.count > FULL_ITEMS or size + part.size > FULL_BYTES
            if taken and (full or len(taken) >= FULL_PARTS):
                yield taken
                taken, items, size = [], 0, 0
            taken.append(part)
            items += part.count
            size += part.size
        if taken:
            yield taken

    def _joined(self) -> list[RangePart]:
        joined: list[RangePart] = []
        for part in sorted(self.parts, key=lambda part: (part.first, part.lease)):
            if joined and part.follows(joined[-1]):
                last = joined[-1]
                last.count += part.count
                last.size += part.size
                last.bodies += part.bodies
            else:
                joined.append(replace(part, bodies=list(part.bodies)))
        return joined


@dataclass
class RangeFailures(AnyGroup):
    """Items of one map that failed: from then on they are tasks."""

    run: str
    step: str
    worker_id: str
    lease_nos: list[int] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    permanent: list[bool] = field(default_factory=list)
    failures: bool = True

    @property
    def key(self) -> GroupKey:
        """Groups of the same key can be merged."""
        return self.run, self.step, self.worker_id, True, True

    @property
    def count(self) -> int:
        """Items."""
        return len(self.indexes)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each body."""
        return list(map(len, self.bodies))

    def merge(self, other: Any) -> None:
        """Take over what is in another group of the same key."""
        self.lease_nos += other.lease_nos
        self.indexes += other.indexes
        self.bodies += other.bodies
        self.permanent += other.permanent

    def _cut_off(self, first: int) -> Self:
        rest = self._part(first, len(self.bodies))
        del self.lease_nos[first:], self.indexes[first:], self.bodies[first:], self.permanent[first:]
        return rest

    def calls(self) -> list[Call]:
        """The group as calls of at most FULL items."""
        parts = [self._part(i, i + FULL) for i in range(0, len(self.indexes), FULL)]
        return [
            RangeFailure(
                part.run,
                part.step,
                part.worker_id,
                part.lease_nos,
                part.indexes,
                [body.decode("utf-8", "replace") for body in part.bodies],
                part.permanent,
            )
            for part in parts
        ]

    def _part(self, first: int, end: int) -> Self:
        return replace(
            self,
            lease_nos=self.lease_nos[first:end],
            indexes=self.indexes[first:end],
            bodies=self.bodies[first:end],
            permanent=self.permanent[first:end],
        )
