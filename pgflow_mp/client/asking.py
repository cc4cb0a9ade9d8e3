"""The methods of a client that read: runs, steps, items, failures, workers, flows, results."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, overload

from pgflow_mp.client.calls import Calls, StepOfRun, as_uuid
from pgflow_mp.client.run_handles import Run
from pgflow_mp.db import engine
from pgflow_mp.db.connection import parse
from pgflow_mp.db.connection_errors import location
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.errors import WHY_NO_RUN, InputError, RunNotFound
from pgflow_mp.observe import grouping, read_reports
from pgflow_mp.observe.reports import FailureGroup
from pgflow_mp.observe.run_reports import ItemReport, RunDetails, RunReport, RunState, StepReport
from pgflow_mp.observe.worker_reports import FlowReport, WorkerInfo
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import OneMap, OneStep, Out, PlainFunction, StepLike, T, X
    from pgflow_mp.observe.read_stacks import WorkerStacks

ItemStatus = Literal["queued", "started", "completed", "failed", "cancelled", "skipped"]
_PAGE: Final = 500

S = TypeVar("S", bound=str)


class Asking(Calls):
    """Reading what there is. Reports are plain data, as of the moment of the call."""

    def get_run(self, run_id: str) -> Run | None:
        """The run, or None if there is none with this id."""
        wanted = as_uuid(run_id)
        row = self._call(lambda conn: engine.get_run(conn, wanted)) if wanted is not None else None
        return self._handle(row) if row is not None else None

    def run(self, run_id: str) -> Run:
        """The run with this id, or the only one whose id begins so. Raises RunNotFound."""
        return self._handle(self._call(lambda conn: runs.the_run(conn, run_id)))

    def runs(
        self,
        limit: int = 50,
        *,
        flow: str | None = None,
        states: RunState | Collection[RunState] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tag: str | None = None,
        key: str | None = None,
        after: RunReport | None = None,
    ) -> list[RunReport]:
        """Runs, newest first, ``limit`` of them: of a flow, in these states, with a tag, with a key.

        ``states`` are queued, running, waiting, paused, completed, completed_with_failures, failed,
        cancelled. ``since`` and ``until`` (exclusive) are about when they were started; without a time zone
        they are local time. ``after``, the last of one page, begins the next. Raises InputError.
        """
        wanted = _states(states)
        mark = None if after is None else read_reports.mark_of(after)
        first, end, tags = _aware(since), _aware(until), () if tag is None else (tag,)
        return self._call(
            lambda conn: read_reports.read_runs(
                conn, limit, flow=flow, states=wanted, since=first, until=end, tags=tags, key=key, before=mark
            )
        )

    def report(self, run: Run | str) -> RunDetails:
        """All that is told of a run: its state, its numbers, its steps. Raises RunNotFound."""
        wanted = as_uuid(run.run_id if isinstance(run, Run) else run)
        found = None
        if wanted is not None:
            found = self._call(lambda conn: read_reports.read_run(conn, wanted))
        if found is None:
            raise RunNotFound(f"There is no run {run} in this database", hint=WHY_NO_RUN)
        return found

    def html_report(self, run: Run | str) -> str:
        """The report of a run as one HTML page that needs nothing else, as ``report`` writes it.

        Raises RunNotFound.
        """
        from pgflow_mp.observe import run_html

        wanted = as_uuid(run.run_id if isinstance(run, Run) else run)
        found = None
        if wanted is not None:
            place = f"PostgreSQL at {location(parse(self._dsn()))}"
            found = self._call(lambda conn: run_html.gather(conn, wanted, place), long=True)
        if found is None:
            raise RunNotFound(f"There is no run {run} in this database", hint=WHY_NO_RUN)
        return run_html.write(found)

    def steps(self, run: Run | str) -> list[StepReport]:
        """The steps of a run in definition order, with their states and numbers. Raises RunNotFound."""
        return self.report(run).steps

    def items(
        self,
        run: Run | str,
        step: StepLike,
        *,
        statuses: ItemStatus | Collection[ItemStatus] | None = None,
        start: int = 0,
        limit: int | None = None,
        chars: int = 200,
    ) -> Iterator[ItemReport]:
        """Items of a step in the order of their indexes, streamed; any number.

        From index ``start`` on, at most ``limit``; with ``statuses`` (queued, started, completed, failed,
        cancelled, skipped) only those. Inputs and outputs are JSON, shortened to so many ``chars``. Raises
        RunNotFound, InputError, and FlowNotFound for a step that the run does not have.
        """
        run_id, wanted = self._id(run), _item_statuses(statuses)
        slug = self._step_of(run, step).slug
        self._check_step(run_id, slug)

        def page(at: int, count: int) -> list[ItemReport]:
            return self._call(
                lambda conn: read_reports.read_items(
                    conn, run_id, slug, count, start=at, statuses=wanted, chars=chars
                )
            )

        def pages() -> Iterator[ItemReport]:
            at, left = start, sys.maxsize if limit is None else limit
            while left > 0:
                found = page(at, count := min(left, _PAGE))
                yield from found
                if len(found) < count:
                    return
                at, left = found[-1].index + 1, left - count

        return pages()

    def workers(self, *, alive_only: bool = True) -> list[WorkerInfo]:
        """Workers and what they do, those with the last sign of life first; also such as have ended."""
        return self._call(lambda conn: read_reports.read_workers(conn, alive_only=alive_only))

    def stacks(self, *, wait: float = 5.0) -> list[WorkerStacks]:
        """Where the code of the workers is that are alive: they are asked, and have ``wait`` seconds."""
        from pgflow_mp.observe.read_stacks import read_stacks

        workers = self.workers()
        with self._another() as keeper:
            return keeper.call(lambda conn: read_stacks(conn, workers, wait))

    def flows(self) -> list[FlowReport]:
        """Flows by their slugs, and how their runs are."""

        def read(conn: Connection) -> list[FlowReport]:
            found: list[FlowReport] = []
            while page := read_reports.read_flows(conn, _PAGE, after=found[-1].flow_slug if found else ""):
                found += page
            return found

        return self._call(read)

    @overload
    def results(self, run: Run | str, step: str) -> Iterator[Json]: ...

    @overload
    def results(self, run: Run | str, step: OneMap[T, X]) -> Iterator[X]: ...

    @overload
    def results(self, run: Run | str, step: OneStep[Out]) -> Iterator[Out]: ...

    @overload
    def results(self, run: Run | str, step: PlainFunction) -> Iterator[object]: ...

    def results(self, run: Run | str, step: StepLike) -> Iterator[Any]:
        """Outputs of a step's completed tasks in index order, streamed; any size.

        Works while the step runs, too: then what is completed when it is passed is answered. Raises
        RunNotFound, and FlowNotFound for a step that the run does not have.
        """
        return (output for _, output in self.indexed_results(run, step))

    @overload
    def indexed_results(self, run: Run | str, step: str) -> Iterator[tuple[int, Json]]: ...

    @overload
    def indexed_results(self, run: Run | str, step: OneMap[T, X]) -> Iterator[tuple[int, X]]: ...

    @overload
    def indexed_results(self, run: Run | str, step: OneStep[Out]) -> Iterator[tuple[int, Out]]: ...

    @overload
    def indexed_results(self, run: Run | str, step: PlainFunction) -> Iterator[tuple[int, object]]: ...

    def indexed_results(self, run: Run | str, step: StepLike) -> Iterator[tuple[int, Any]]:
        """Like :meth:`results`, as (task index, output)."""
        wanted = self._step_of(self._id(run) if isinstance(step, str) else run, step)
        self._check_step(wanted.run_id, wanted.slug)
        return self._indexed_results(wanted)

    def failures(
        self, run: Run | str, step: StepLike | None = None, *, error: str | None = None
    ) -> list[FailureGroup]:
        """The failed items of a run, or a step, in groups of alike errors: those that failed a step first.

        Whatever their number, and also while the run goes on. ``error``: only those with this text in their
        error, or in the group's. Raises RunNotFound, and FlowNotFound for a step that the run does not have.
        """
        run_id, slug = self._id(run), None if step is None else self._step_of(run, step).slug
        if slug is not None:
            self._check_step(run_id, slug)

        def read(conn: Connection) -> list[FailureGroup]:
            steps, whole = engine.run_progress(conn, run_id), grouping.WHOLE
            return grouping.read_failures(conn, run_id, steps, step=slug, text=error, whole=whole).groups

        return self._call(read, long=True)

    def _indexed_results(self, step: StepOfRun) -> Iterator[tuple[int, Any]]:
        read = step.output.task
        with self._another() as keeper:
            for index, raw in documents.iter_results(keeper.connection(), step.run_id, step.slug):
                yield index, None if raw is None else read(raw)


def _states(given: RunState | Collection[RunState] | None) -> list[RunState] | None:
    return _chosen(given, get_args(RunState), "state of a run")


def _item_statuses(given: ItemStatus | Collection[ItemStatus] | None) -> list[ItemStatus] | None:
    return _chosen(given, get_args(ItemStatus), "status of an item")


def _chosen(given: S | Collection[S] | None, known: tuple[S, ...], what: str) -> list[S] | None:
    """Those that are named, if any. Raises InputError for what there is not."""
    if given is None:
        return None
    chosen = [given] if isinstance(given, str) else [*given]
    for each in chosen:
        if each not in known:
            raise InputError(f"{each!r} is not a {what}", hint=f"Give one of {', '.join(known)}.")
    return chosen


def _aware(time: datetime | None) -> datetime | None:
    if time is not None and not isinstance(time, datetime):
        raise InputError(
            f"{time!r} is not a datetime", hint="For example: datetime.now() - timedelta(hours=1)"
        )
    return time if time is None or time.tzinfo is not None else time.astimezone()
