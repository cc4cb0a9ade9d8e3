"""The methods of a client that wait: for a run, for its items, for what happens."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

from pgflow_mp.client.calls import Calls
from pgflow_mp.client.event_feed import Event, EventLog, Events, event_rounds
from pgflow_mp.client.finished_items import finished_items
from pgflow_mp.client.following import item_rounds
from pgflow_mp.client.progressing import RunProgress, progress_rounds
from pgflow_mp.client.run_handles import Run
from pgflow_mp.client.waiting import Deadline
from pgflow_mp.errors import InputError
from pgflow_mp.flows.finished_item import FinishedItem
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import OneMap, OneStep, Out, PlainFunction, StepLike, T, X


class Waits(Calls):
    """Waiting for runs, and following them."""

    def wait(
        self,
        run: Run | str,
        timeout: float | None = 300.0,
        status: Literal["completed", "failed"] = "completed",
    ) -> Run:
        """Wait until a run has this status; the run as it is then.

        Raises RunFailed as soon as a run that should complete fails (or the other way round), RunNotFound,
        WaitTimeout after ``timeout`` seconds (None: never), and InputError for another status.
        """
        return self._run(run).wait(timeout, status)

    @overload
    def as_completed(
        self, run: Run | str, step: str, *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem[Json, Json]]: ...

    @overload
    def as_completed(  # type: ignore[overload-overlap]
        self,
        run: Run | str,
        step: OneMap[T, X],
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> Iterator[FinishedItem[T, X]]: ...

    @overload
    def as_completed(
        self,
        run: Run | str,
        step: OneStep[Out],
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> Iterator[FinishedItem[Json, Out]]: ...

    @overload
    def as_completed(
        self,
        run: Run | str,
        step: PlainFunction,
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> Iterator[FinishedItem[object, object]]: ...

    def as_completed(
        self,
        run: Run | str,
        step: StepLike,
        *,
        ordered: bool = False,
        timeout: float | None = None,
    ) -> Iterator[FinishedItem[Any, Any]]:
        """Items of a step as they end, each once, until the step is over, in constant memory.

        Those that failed for good are among them. ``ordered``: in the order of their indexes; an item that
        takes long then holds back those behind it. Once there are no more, raises RunFailed if the run has
        failed or was cancelled; WaitTimeout after ``timeout`` seconds, RunNotFound, and FlowNotFound for an
        unknown step. Lost connections are opened again.
        """
        known = self._run(run)
        wanted = self._step_of(known, step)
        self._check_step(wanted.run_id, wanted.slug)
        deadline = Deadline(timeout, f"run {known.run_id} to reach status 'completed'")
        found = self._here(
            lambda keeper: item_rounds(keeper, known, wanted.slug, deadline, ordered=ordered),
            known.run_id,
        )
        read = wanted.output.tasks, wanted.read_inputs
        return (item for ended in found for each in ended for item in finished_items(each, *read))

    def events(
        self,
        runs: Run | str | Iterable[Run | str],
        *,
        since: str | None = None,
        follow: bool = True,
        timeout: float | None = None,
    ) -> Events:
        """What happens to one or more runs and their steps, in order, each event once, until all have ended.

        From the beginning, or, with ``since``, the ``cursor`` of an earlier iterator over events, from there
        on. None is lost, however often the connection is, or the server starts again, nor those of runs that
        are retried in between: they are read from the tables. With ``follow=False`` those that there are
        now. Raises RunNotFound, InputError for what is no cursor, and WaitTimeout after ``timeout`` seconds.
        """
        log = self._event_log(runs, since)
        deadline = log.deadline(timeout)

        def found() -> Generator[Event, None, None]:
            rounds = self._here(
                lambda keeper: event_rounds(keeper, log, deadline, follow=follow), *log.run_ids
            )
            for event in (event for batch in rounds for event in batch):
                log.take(event)
                yield event

        return Events(log, found())

    def progress(
        self,
        run: Run | str,
        *,
        step: StepLike | None = None,
        interval: float = 0.5,
        timeout: float | None = None,
    ) -> Iterator[RunProgress]:
        """How far a run, or one step of it, is: now, every ``interval`` seconds or so, and at its end.

        Something to hang a bar on. It reads counters, so it costs the same for any number of items. Does not
        raise for a run that fails: ``status`` says it. Raises RunNotFound, FlowNotFound for a step that the
        run does not have, and WaitTimeout after ``timeout`` seconds.
        """
        run_id, slug = self._progress_of(run, step, interval)
        deadline = Deadline(timeout, f"run {run_id} to reach status 'completed'")
        return self._here(lambda keeper: progress_rounds(keeper, run_id, slug, interval, deadline), run_id)

    def _progress_of(self, run: Run | str, step: StepLike | None, interval: float) -> tuple[str, str | None]:
        """The ids of the run and the step. Raises for what cannot be told of it."""
        run_id, slug = self._id(run), None if step is None else self._step_of(run, step).slug
        if slug is not None:
            self._check_step(run_id, slug)
        if not interval > 0:
            raise InputError(f"interval must be more than 0 seconds, not {interval}")
        return run_id, slug

    def _event_log(self, runs: Run | str | Iterable[Run | str], since: str | None) -> EventLog:
        wanted = [runs] if isinstance(runs, Run | str) else list(runs)
        return EventLog([self._run(run).run_id for run in wanted], since)
