"""Outcomes on their way to the database, and the calls that record them."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pgflow_mp.db.item_ranges import RangeCompletion, halves
from pgflow_mp.db.settling import Call, Completion, Failure

FULL: Final = 1000  # items in a call, and in a batch that is not kept waiting
FULL_BYTES: Final = 4 << 20


GroupKey = tuple[str, str, str, bool, bool]  # run, step, worker id, failures, of ranges


class AnyGroup:
    """Outcomes of one step of one run that wait to be recorded."""

    run: str
    step: str
    worker_id: str
    failures: bool

    @property
    def key(self) -> GroupKey:
        """Groups of the same key can be merged."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """Items."""
        raise NotImplementedError

    @property
    def weight(self) -> int:
        """Items, or what costs the database as much as so many tasks."""
        return self.count

    @property
    def sizes(self) -> list[int]:
        """Bytes of the bodies of each of its outcomes, which may be those of many items."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Bytes of bodies."""
        return sum(self.sizes)

    def merge(self, other: Any) -> None:
        """Take over what is in another group of the same key."""
        raise NotImplementedError

    def cut(self, most: int) -> Self | None:
        """Take off what is beyond ``most`` bytes of bodies and the first outcome; that, or None."""
        for i, size in enumerate(itertools.accumulate(self.sizes)):
            if i and size > most:
                return self._cut_off(i)
        return None

    def _cut_off(self, first: int) -> Self:
        """Take off the outcomes from ``first`` on."""
        raise NotImplementedError

    def calls(self) -> list[Call]:
        """The group as calls that are not too large."""
        raise NotImplementedError


@dataclass
class Group(AnyGroup):
    """Outcomes of tasks."""

    run: str
    step: str
    worker_id: str
    failures: bool
    indexes: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    permanent: list[bool] = field(default_factory=list)
    msg_ids: list[int] = field(default_factory=list)
    """Those of the claims."""

    @property
    def key(self) -> GroupKey:
        """Groups of the same key can be merged."""
        return self.run, self.step, self.worker_id, self.failures, False

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
        self.indexes += other.indexes
        self.attempts += other.attempts
        self.bodies += other.bodies
        self.permanent += other.permanent
        self.msg_ids += other.msg_ids

    def _cut_off(self, first: int) -> Self:
        rest = dataclasses.replace(
            self,
            indexes=self.indexes[first:],
            attempts=self.attempts[first:],
            bodies=self.bodies[first:],
            permanent=self.permanent[first:],
            msg_ids=self.msg_ids[first:],
        )
        del self.indexes[first:], self.attempts[first:], self.bodies[first:], self.permanent[first:]
        del self.msg_ids[first:]
        return rest

    def calls(self) -> list[Call]:
        """The group as calls of at most FULL items and about FULL_BYTES each."""
        if self.size <= FULL_BYTES:
            ends = range(FULL, len(self.bodies) + FULL, FULL)
            return [self._call(end - FULL, end) for end in ends]
        found: list[Call] = []
        first = size = 0
        for i, body in enumerate(self.bodies):
            if i > first and (i - first >= FULL or size + len(body) > FULL_BYTES):
                found.append(self._call(first, i))
                first, size = i, 0
            size += len(body)
        if first < len(self.bodies):
            found.append(self._call(first, len(self.bodies)))
        return found

    def _call(self, first: int, end: int) -> Call:
        indexes, attempts = self.indexes[first:end], self.attempts[first:end]
        bodies, ids = self.bodies[first:end], self.msg_ids[first:end]
        if not self.failures:
            return Completion(self.run, self.step, self.worker_id, indexes, attempts, bodies, ids)
        errors = [body.decode("utf-8", "replace") for body in bodies]
        permanent = self.permanent[first:end]
        return Failure(self.run, self.step, self.worker_id, indexes, attempts, errors, permanent, ids)


def parts_of(calls: list[Call]) -> list[list[Call]]:
    """Calls of which something was refused, apart; nothing for a call of one item."""
    if len(calls) > 1:
        return [[call] for call in calls]
    call = calls[0]
    if isinstance(call, RangeCompletion):
        return [[half] for half in halves(call)]
    if (middle := len(call.indexes) // 2) == 0:
        return []
    left, right = [part[:middle] for part in call[3:]], [part[middle:] for part in call[3:]]
    head: tuple[Any, ...] = call[:3]
    kind: Any = type(call)
    return [[kind(*head, *left)], [kind(*head, *right)]]
