"""Following a step: its items as they end, each once, whatever becomes of the connection meanwhile.

    follower = Follower(keeper, run_id, "count")
    for stretches in follower:
        ...
    print(follower.run.status)

A look at the database goes by what is new, not by the size of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Final

from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.step_handles import check_step
from pgflow_mp.client.waiting import GROWTH, PAUSES, Deadline, Rounds, Waiter, called, rounds_here
from pgflow_mp.db.engine import RunRow
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.reads import finished, runs
from pgflow_mp.db.reads.finished import END, EndedItems, IndexSet
from pgflow_mp.db.reads.runs import StepRow
from pgflow_mp.errors import WHY_NO_RUN, RunNotFound

_OVER: Final = ("completed", "failed", "skipped")


class Follower:
    """Iterates over what ends of a step, some stretches of items at a time, until there is no more to come.

    That is when the step is over, or its run is; with ``to_the_end`` when the run is. ``ordered``: in the
    order of indexes, else as they end. ``inputs``: whether they are wanted. Once the ``deadline`` has passed,
    WaitTimeout is raised. ``run`` and ``step`` are as they were last. ``check`` is called before each pause,
    and may raise. Raises RunNotFound, FlowNotFound, and DatabaseUnavailable where the keeper gives up.
    """

    def __init__(
        self,
        keeper: Keeper,
        run_id: str,
        step_slug: str,
        *,
        inputs: bool = False,
        ordered: bool = False,
        to_the_end: bool = False,
        deadline: Deadline | None = None,
        check: Callable[[], object] | None = None,
    ) -> None:
        self._keeper = keeper
        self._run_id = run_id
        self._slug = step_slug
        self._inputs = inputs
        self._ordered = ordered
        self._to_the_end = to_the_end
        self._deadline = deadline or Deadline(None, "")
        self._check = check
        self._had = IndexSet()
        self._far = 0
        """Where to look besides the beginning, if that takes several looks."""
        self._blocked = False
        """In order: whether the next item has not ended, as of the last look."""
        self.run: RunRow
        self.step: StepRow
        self._refresh()

    def __iter__(self) -> Iterator[list[EndedItems]]:
        return rounds_here(self.rounds(), Waiter(self._keeper, [self._run_id]))

    def rounds(self) -> Rounds[list[EndedItems]]:
        """The same, for whoever waits otherwise."""
        pause = PAUSES[0]
        while True:
            over = self._refresh()
            found = False
            for stretches in self._new(whole=over):
                found = True
                yield stretches
            if over and (self.run.status != "started" or not self._to_the_end):
                return
            if self._check is not None:
                self._check()
            pause = PAUSES[0] if found else min(PAUSES[1], GROWTH * pause)
            yield self._deadline.pause(pause)

    def _refresh(self) -> bool:
        """Read run and step; whether nothing more will end of it."""
        view = called(self._keeper, lambda conn: runs.run_view(conn, self._run_id))
        if view is None:
            raise RunNotFound(f"There is no run {self._run_id} in this database", hint=WHY_NO_RUN)
        steps = {row.step_slug: row for row in view[1]}
        check_step(steps, self._slug, view[0].flow_slug)
        self.run, self.step = view[0], steps[self._slug]
        return self.run.status != "started" or self.step.status in _OVER

    def _new(self, *, whole: bool) -> Iterator[list[EndedItems]]:
        """What has ended since, as far as it is easily found; all of it if ``whole``."""
        if self._ordered:
            yield from self._next_ones(whole=whole)
            return
        at = yield from self._from(0, whole=whole)
        if at < END:
            self._far = yield from self._from(max(at, self._far), whole=False)
            if self._far >= END:
                self._far = 0

    def _from(self, at: int, *, whole: bool) -> Generator[list[EndedItems], None, int]:
        """What is new from an index on, until a look finds nothing; answers how far was looked."""
        while gaps := self._had.missing(at, END):
            stretches, looked = self._look(gaps)
            at = looked if looked < END else gaps[-1][1]
            found = [kept for stretch in stretches if (kept := self._unseen(stretch))]
            if found:
                yield found
            elif not whole:
                return at
        return END

    def _next_ones(self, *, whole: bool) -> Iterator[list[EndedItems]]:
        """In order: what follows on what was had."""
        while True:
            at = self._had.missing(0, END, 1)[0][0]
            stretches, _ = self._look([(at, at + 1 if self._blocked else END)])
            found: list[EndedItems] = []
            for stretch in stretches:
                if stretch.spans and stretch.spans[0][0] > at and stretch.first_index > at:
                    break
                kept = self._unseen(stretch, at)
                if kept is not None:
                    found.append(kept)
                    at = kept.spans[-1][1]
            self._blocked = not found
            if not found:
                return
            yield found

    def _unseen(self, stretch: EndedItems, at: int | None = None) -> EndedItems | None:
        """What of a stretch was not had before, now it is; from ``at`` on only what follows without a gap."""
        spans = [gap for begin, end in stretch.spans for gap in self._had.missing(begin, end)]
        if at is not None:
            spans = [span for span in spans[:1] if span[0] == at]
        for begin, end in spans:
            self._had.add(begin, end)
        return stretch._replace(spans=tuple(spans)) if spans else None

    def _look(self, gaps: list[tuple[int, int]]) -> tuple[list[EndedItems], int]:
        return called(
            self._keeper,
            lambda conn: finished.look(conn, self._run_id, self._slug, gaps, inputs=self._inputs),
        )


def item_rounds(
    keeper: Keeper, run: Run, step: str, deadline: Deadline, *, ordered: bool = False
) -> Rounds[list[EndedItems]]:
    """Rounds of the items of a step that end, with their inputs; at last RunFailed if the run has failed."""
    follower = Follower(keeper, run.run_id, step, inputs=True, ordered=ordered, deadline=deadline)
    yield from follower.rounds()
    if follower.run.status == "failed" and run.refresh().status == "failed":
        raise run.failure()
