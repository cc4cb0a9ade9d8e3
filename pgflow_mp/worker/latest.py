"""A set that forgets what was added first."""

from __future__ import annotations

from collections.abc import Iterable


class Latest:
    """The ``size`` numbers that were added last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[int, None] = {}

    def add(self, numbers: Iterable[int]) -> None:
        """Remember these; beyond ``size`` the oldest are forgotten."""
        self._known.update(dict.fromkeys(numbers))
        while len(self._known) > self._size:
            del self._known[next(iter(self._known))]

    def discard(self, numbers: Iterable[int]) -> None:
        """Forget these."""
        for number in numbers:
            self._known.pop(number, None)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __len__(self) -> int:
        return len(self._known)
