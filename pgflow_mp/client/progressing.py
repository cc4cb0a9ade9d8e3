"""How far a run is, again and again: something to hang a bar on."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import msgspec

from pgflow_mp.client.waiting import Deadline, Rounds, called
from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection, RunRow, StepProgress
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.errors import WHY_NO_RUN, RunNotFound

_WINDOW: Final = 10.0
"""Seconds over which the rate is measured."""


class StepPart(msgspec.Struct, frozen=True, kw_only=True):
    """Items of one step: ``done`` of ``total`` (None: not known yet), ``failed`` of them, tolerated."""

    step: str
    status: str
    done: int
    failed: int
    total: int | None


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is at this moment.

    ``done`` items have ended, ``failed`` of them for good, which was tolerated; ``new`` of them since the
    one before. ``total`` are all that are known of yet, with ``is_total`` all that there will be. ``rate``
    is in items/s over the last 10 s, ``eta`` in seconds; None where nothing can be told. ``status``:
    started, completed, failed.
    """

    run: str
    status: str
    done: int
    failed: int
    new: int
    total: int
    is_total: bool
    rate: float
    eta: float | None
    steps: list[StepPart]

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.status != "started"


class _Pace:
    """Measures the rate."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, done: int, now: float) -> float:
        """Items/s, with ``done`` items ``now``. Of a run that was set back it is measured anew."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        began, before = self._seen[0]
        return (done - before) / (now - began) if now > began else 0.0


def progress_rounds(
    keeper: Keeper, run_id: str, step: str | None, interval: float, deadline: Deadline
) -> Rounds[RunProgress]:
    """Rounds of how far a run, or one step of it, is: now, every ``interval`` seconds, and at its end."""
    pace, before = _Pace(), 0

    def look(conn: Connection) -> tuple[RunRow | None, list[StepProgress]]:
        run = engine.get_run(conn, run_id)  # first: what the steps are like then is as late, or later
        return run, engine.run_progress(conn, run_id)

    while True:
        run, rows = called(keeper, look)
        if run is None:
            raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
        steps = [_part(row) for row in rows if step is None or row.step_slug == step]
        done = sum(each.done for each in steps)
        total = sum(each.total or 0 for each in steps)
        rate = pace.rate(done, time.monotonic())
        yield RunProgress(
            run=run.run_id,
            status=run.status,
            done=done,
            failed=sum(each.failed for each in steps),
            new=max(0, done - before),
            total=total,
            is_total=all(each.total is not None for each in steps),
            rate=rate,
            eta=(total - done) / rate if rate > 0 else None,
            steps=steps,
        )
        before = done
        if run.status != "started":
            return
        yield deadline.pause(interval)


def _part(row: StepProgress) -> StepPart:
    total = 0 if row.status == "skipped" and row.initial_tasks is None else row.initial_tasks
    begun = row.started_at is not None and row.initial_tasks is not None
    left = row.remaining_tasks if row.remaining_tasks is not None else row.initial_tasks or 0
    done = (row.initial_tasks or 0) - left if begun else 0
    return StepPart(step=row.step_slug, status=row.status, done=done, failed=row.failed_tasks, total=total)
