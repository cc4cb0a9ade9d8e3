"""Failed attempts as they come, in groups of those that are alike: counts are exact, memory is bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgflow_mp.observe.folding import LONGEST, coarse, fold
from pgflow_mp.observe.observer import FailedAttempt
from pgflow_mp.observe.text import essence

_MOST_PATTERNS: Final = 200
_MOST_LINES: Final = 2000


@dataclass(slots=True)
class AlikeAttempts:
    """``failed`` for good, ``retried`` otherwise; ``line`` is the first error, ``pattern`` what all have."""

    step: str
    pattern: str
    line: str
    index: int
    glimpse: str
    failed: int = 0
    retried: int = 0

    @property
    def attempts(self) -> int:
        """All of them."""
        return self.failed + self.retried

    @property
    def error(self) -> str:
        """In one line."""
        return self.line if self.attempts == 1 else self.pattern


class FailureTally:
    """Counts. One thread at a time adds; groups() is for any."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], AlikeAttempts] = {}
        self._patterns: dict[str, str] = {}

    def add(self, failure: FailedAttempt) -> None:
        """Another one."""
        line = essence(failure.text, LONGEST, beside=(failure.step, failure.index))
        pattern = self._patterns.get(line)
        if pattern is None:
            pattern = fold(line)
            if len(self._patterns) < _MOST_LINES:
                self._patterns[line] = pattern
        group = self._groups.get((failure.step, pattern))
        if group is None:
            if len(self._groups) >= _MOST_PATTERNS:
                pattern = coarse(line)
            group = self._groups.get((failure.step, pattern))
        if group is None:
            group = AlikeAttempts(failure.step, pattern, line, failure.index, failure.shown(40))
            self._groups[failure.step, pattern] = group
        if failure.final:
            group.failed += 1
        else:
            group.retried += 1

    def groups(self) -> list[AlikeAttempts]:
        """Those with most items that failed for good first."""
        return sorted(self._groups.values(), key=lambda g: (-g.failed, -g.retried, g.step))
