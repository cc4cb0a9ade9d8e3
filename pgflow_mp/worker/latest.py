"""A set that forgets what was added first."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Latest(Generic[T]):
    """The ``size`` things that were added last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[T, None] = {}

    def add(self, things: Iterable[T]) -> None:
        """Remember these; beyond ``size`` the oldest are forgotten."""
        self._known.update(dict.fromkeys(things))
        while len(self._known) > self._size:
            del self._known[next(iter(self._known))]

    def discard(self, things: Iterable[T]) -> None:
        """Forget these; quick where nothing is remembered."""
        if self._known:
            for thing in things:
                self._known.pop(thing, None)

    def __contains__(self, thing: object) -> bool:
        return thing in self._known

    def __len__(self) -> int:
        return len(self._known)
