"""Items that have crashed their process for good, and when their failure is recorded: last of their run.

By the contract a task that has failed for good ends its step, and mostly its run, at once; one item that
kills its process must not cost the others. So it is parked until the database says that nothing else of its
run is left: nothing that could still be claimed, that a worker holds, or that waits for its next attempt.
Pure: no clock, no thread, no database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pgflow_mp.executors.messages import Item, Outcome
from pgflow_mp.worker.batches import AnyBatch
from pgflow_mp.worker.inbox import ParkedSeen

EVERY: Final = 1.0  # seconds between an answer and the next question
PATIENCE: Final = 30.0  # seconds without an answer after which the worker decides by itself
MOST: Final = 200  # runs in a question


@dataclass(frozen=True, slots=True)
class Parked:
    """An item whose failure is recorded last."""

    batch: AnyBatch
    position: int
    item: Item
    run: str
    step: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Question:
    """Is anything left of these runs besides so many parked items, by worker id and run?"""

    number: int
    held: dict[tuple[str, str], int]

    @property
    def runs(self) -> set[str]:
        """The runs in question."""
        return {run for _, run in self.held}


class Parking:
    """What is parked, by run, and the questions about it; one at a time. Times are time.monotonic()."""

    def __init__(self) -> None:
        self._items: dict[str, list[Parked]] = {}
        self._since: dict[str, float] = {}  # last answer
        self._asked = Question(0, {})
        self._answered = 0
        self._due = 0.0

    def add(self, parked: Parked, now: float) -> None:
        """Park an item."""
        self._items.setdefault(parked.run, []).append(parked)
        self._since.setdefault(parked.run, now)

    def take(self, run: str) -> list[Parked]:
        """The items of a run, which are not parked any more."""
        self._since.pop(run, None)
        return self._items.pop(run, [])

    def take_all(self, wanted: Callable[[Parked], bool] = lambda _: True) -> list[Parked]:
        """Those items that are ``wanted``; they are not parked any more."""
        taken: list[Parked] = []
        for run, items in list(self._items.items()):
            found = [parked for parked in items if wanted(parked)]
            taken += found
            if len(found) == len(items):
                self.take(run)
            elif found:
                self._items[run] = [parked for parked in items if parked not in found]
        return taken

    @property
    def active(self) -> bool:
        """Whether anything is parked, or others were told so last."""
        return bool(self._items or self._asked.held)

    @property
    def empty(self) -> bool:
        """Whether nothing is parked."""
        return not self._items

    @property
    def items(self) -> int:
        """Parked items."""
        return sum(map(len, self._items.values()))

    def count(self, flow: str) -> int:
        """Parked items of a flow."""
        return sum(parked.batch.flow == flow for items in self._items.values() for parked in items)

    # -- questions ---------------------------------------------------------------------------------

    @property
    def awaits_answer(self) -> bool:
        """Whether a question is under way."""
        return self._answered < self._asked.number

    def question(self, now: float, *, at_once: bool = False) -> Question | None:
        """What to ask now; without runs: nothing is parked any more. None: not yet."""
        if not at_once and (self.awaits_answer or now < self._due):
            return None
        runs = list(islice(self._items, MOST))
        if len(self._items) > MOST:  # the others' turn comes next
            for run in runs:
                self._items[run] = self._items.pop(run)
        held = Counter((parked.batch.worker_id, run) for run in runs for parked in self._items[run])
        self._asked = Question(self._asked.number + 1, dict(held))
        return self._asked

    def answered(self, answer: ParkedSeen, now: float) -> list[str]:
        """Runs of which nothing is left but what is parked."""
        self._answered, self._due = answer.number, now + EVERY
        for run in answer.asked:
            if run in self._since:
                self._since[run] = now if run in answer.left else now - PATIENCE
        return [run for run, left in answer.left.items() if left <= 0 and run in self._items]

    def unanswered(self, now: float) -> list[tuple[str, str]]:
        """(Flow, run) of those about which the database could not be asked, or does not tell."""
        late = [run for run, since in self._since.items() if now - since >= PATIENCE]
        return [(self._items[run][0].batch.flow, run) for run in late]
