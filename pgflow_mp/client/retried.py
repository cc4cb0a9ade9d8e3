"""What ``Client.retry`` takes and answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgflow_mp.db.retrying import LAST, Choice, RetriedStep
from pgflow_mp.errors import InputError

Indexes = int | range | Iterable[int]


@dataclass(frozen=True, slots=True)
class Retry:
    """What a retry did, or would do, to the steps of a run, in definition order. False if that is nothing."""

    run_id: str
    steps: tuple[RetriedStep, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def items(self) -> int:
        """How many items are tried again, or go on."""
        return sum(step.retried + step.unfinished for step in self.steps)

    @property
    def recomputed(self) -> tuple[str, ...]:
        """The steps that are computed again from the beginning, since they follow from such items."""
        return tuple(step.step for step in self.steps if step.is_recomputed)


def choice_of(
    steps: str | Iterable[str] | None, indexes: Indexes | None, errors: str | Iterable[str] | None
) -> Choice:
    """What is meant by these arguments. Raises InputError."""
    return Choice(_texts(steps), None if indexes is None else spans_of(indexes), _texts(errors))


def spans_of(indexes: Indexes) -> list[tuple[int, int]]:
    """The stretches [first, end) of these indexes. Raises InputError for what no item can have."""
    if isinstance(indexes, range) and indexes.step == 1:
        spans = [(indexes.start, indexes.stop)] if indexes else []
    else:
        single = [indexes] if isinstance(indexes, int) else indexes
        spans = [(index, index + 1) for index in single]
    for first, end in spans:
        if first < 0 or end > LAST:
            raise InputError(
                f"{first if first < 0 else end - 1} is not the index of an item", hint="They begin with 0."
            )
    return spans


def _texts(given: str | Iterable[str] | None) -> list[str] | None:
    if given is None:
        return None
    texts = [given] if isinstance(given, str) else list(given)
    if any("\0" in text for text in texts):
        raise InputError("Steps and errors must not contain a NUL character")
    return texts
