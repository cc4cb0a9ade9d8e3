"""What is told of runs, whoever tells it: commands, JSON, Python. One set of structs, in plain data.

As JSON an object has the fields of its struct, in snake case; an item's input is JSON itself.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pgflow_mp.observe.folding import FailureKind
from pgflow_mp.observe.glimpse import COLUMNS, MOST, one_line
from pgflow_mp.observe.text import size

Fate = Literal["failed", "tolerated", "skipped"]
"""What failed items have done: failed their step, nothing (their map tolerates them), had it skipped."""

_NULL: Final = msgspec.Raw(b"null")


class FailedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that failed for good, after ``attempts``, with the ``error`` that was recorded last.

    ``glimpse`` is its input in one line, shortened; None where it is too large even for that. ``raw_input``
    (``input`` in JSON) is the whole of it as raw JSON, null where that was not read; ``input_bytes`` are
    those of its text, or, if it is large, as stored; None of what a step of one task is given by its parents.
    """

    step: str
    index: int
    attempts: int
    error: str
    raw_input: msgspec.Raw = msgspec.field(default=_NULL, name="input")
    input_bytes: int | None = None
    glimpse: str | None = None

    @property
    def input(self) -> object:
        """The whole input as Python has it, None where it was not read."""
        return msgspec.json.decode(self.raw_input)

    @property
    def named(self) -> str:
        """Which item it is, for the text of an error."""
        shown = self.shown()
        return f'step "{self.step}" task {self.index}' + (f" ({shown})" if shown else "")

    def shown(self, columns: int = COLUMNS) -> str:
        """The input for a terminal, in at most so many columns; empty where nothing is known of it."""
        if self.glimpse is not None:
            return one_line(self.glimpse, columns, whole=len(self.glimpse) < MOST)
        return "" if self.input_bytes is None else f"({size(self.input_bytes)})"


class FailureGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Failed items of a step whose errors are alike, and the first of them.

    ``error`` is their error in one line, or, where it has other values in each, the ``pattern`` (folding.py),
    which is the same for such errors in any run.
    """

    step: str
    outcome: Fate
    kind: FailureKind
    error: str
    pattern: str
    items: int
    examples: list[FailedItem]


class RunFailures(msgspec.Struct, frozen=True, kw_only=True):
    """All failed items of a run in groups: those that failed a step first, then the largest.

    ``failed``: items in all of them.
    """

    failed: int = 0
    groups: list[FailureGroup] = []

    def by_step(self) -> dict[str, int]:
        """Failed items of those steps that have any."""
        found: dict[str, int] = {}
        for group in self.groups:
            found[group.step] = found.get(group.step, 0) + group.items
        return found

    def count(self, word: Fate | FailureKind) -> int:
        """Failed items of this outcome, or of this kind."""
        return sum(group.items for group in self.groups if word in (group.outcome, group.kind))
