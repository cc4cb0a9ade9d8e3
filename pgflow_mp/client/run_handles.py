"""A run and its steps as a client sees them, and waiting for them (contract: worker section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from pgflow_mp.client.retried import Indexes, Retry
from pgflow_mp.client.step_handles import UNKNOWN_ERROR, Step, StepMap, check_status, step_of
from pgflow_mp.client.waiting import Deadline, Rounds, until
from pgflow_mp.db import run_keys
from pgflow_mp.db.engine import RunRow
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.errors import WHY_NO_RUN, RunFailed, RunNotFound
from pgflow_mp.observe import grouping
from pgflow_mp.observe.reports import FailureGroup
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.client.client import Client
    from pgflow_mp.client.event_feed import Events
    from pgflow_mp.client.progressing import RunProgress
    from pgflow_mp.flows.finished_item import FinishedItem
    from pgflow_mp.flows.typed import OneMap, OneStep, Out, PlainFunction, StepLike, T, X


class Run:
    """A run as of its last :meth:`refresh`: what the database said then.

    A run that is retried is ``started`` again. Payloads are read when they are first asked for.
    """

    def __init__(self, client: Client, row: RunRow) -> None:
        self._client = client
        self._row = row
        self._steps: dict[str, Step] | None = None
        self._input: tuple[Json] | None = None
        self._output: tuple[dict[str, Json] | None] | None = None
        self._key: tuple[str | None] | None = None

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.flow_slug}: {self.status}>"

    @property
    def run_id(self) -> str:
        """The run's id, a uuid."""
        return str(self._row.run_id)

    @property
    def flow_slug(self) -> str:
        """The flow's slug."""
        return self._row.flow_slug

    @property
    def key(self) -> str | None:
        """The key that it was started with, read when it is first asked for."""
        if self._key is None:
            known = self._client._call(lambda conn: run_keys.keys_of(conn, [self.run_id]))
            self._key = (known.get(self.run_id),)
        return self._key[0]

    @property
    def status(self) -> str:
        """started, completed or failed."""
        return self._row.status

    @property
    def input(self) -> Json:
        """What the run was started with."""
        if self._input is None:
            raw = self._client._call(lambda conn: documents.run_input(conn, self.run_id), long=True)
            if raw is None:
                raise RunNotFound(f"There is no run {self.run_id} in this database", hint=WHY_NO_RUN)
            self._input = (msgspec.json.decode(raw),)
        return self._input[0]

    @property
    def output(self) -> dict[str, Json] | None:
        """An object of the leaf steps' outputs; None unless the run is completed, or if all were skipped."""
        if self.status != "completed":
            return None
        if self._output is None:
            self._output = (self._read_output(),)
        return self._output[0]

    def _read_output(self) -> dict[str, Json] | None:
        client, run_id = self._client, self.run_id
        leaves = client._call(lambda conn: documents.leaves(conn, run_id))
        raw = client._call(lambda conn: documents.run_output(conn, run_id), long=True)
        if not leaves:
            return None if raw is None else msgspec.json.decode(raw)
        output: dict[str, Json] = {} if raw is None else msgspec.json.decode(raw)
        for leaf in leaves:
            if not leaf.whole:
                slug = leaf.step_slug
                output[slug] = client._map_output(run_id, slug) if leaf.is_map else self.steps[slug].output
        return output

    @property
    def remaining_steps(self) -> int:
        """Steps that are not resolved yet."""
        return self._row.remaining_steps

    @property
    def started_at(self) -> datetime:
        """When it was started."""
        return self._row.started_at

    @property
    def completed_at(self) -> datetime | None:
        """When it was completed."""
        return self._row.completed_at

    @property
    def failed_at(self) -> datetime | None:
        """When it failed."""
        return self._row.failed_at

    @property
    def error(self) -> str | None:
        """Why the run failed: the error of the step that failed first; None unless it failed."""
        if self.status != "failed":
            return None
        failed = [step for step in self.steps.values() if step.status == "failed"]
        failed.sort(key=lambda step: (step.failed_at is None, step.failed_at))
        return next((step.error for step in failed if step.error), UNKNOWN_ERROR)

    @property
    def steps(self) -> Mapping[str, Step]:
        """The steps by slug in definition order. An unknown slug raises FlowNotFound."""
        if self._steps is None:
            self.refresh()
        return StepMap(self._steps or {}, self.flow_slug)

    def refresh(self) -> Run:
        """Read the run's present state; returns the run itself. Raises RunNotFound if it was deleted."""
        view = self._client._call(lambda conn: runs.run_view(conn, self.run_id))
        if view is None:
            raise RunNotFound(f"There is no run {self.run_id} in this database", hint=WHY_NO_RUN)
        if view[0].completed_at != self._row.completed_at:
            self._output = None  # it was retried
        self._row, rows = view
        known, self._steps = self._steps or {}, {}
        for row in rows:
            self._steps[row.step_slug] = step_of(self, row, known.get(row.step_slug))
        return self

    def wait(
        self, timeout: float | None = 300.0, status: Literal["completed", "failed"] = "completed"
    ) -> Run:
        """Wait until the run has this status; returns the run itself.

        Raises RunFailed as soon as a run that should complete fails (or the other way round),
        WaitTimeout after ``timeout`` seconds (None: never), and InputError for another status.
        """
        self._client._await(self._waiting(status, timeout), self.run_id)
        return self

    def _waiting(self, status: Literal["completed", "failed"], timeout: float | None) -> Rounds[None]:
        """Rounds that end when the run has this status; they raise what ``wait`` does."""
        check_status(status, ("completed", "failed"), "run")
        deadline = Deadline(timeout, f"run {self.run_id} to reach status '{status}'")

        def look() -> bool:
            return self._client._found(self.run_id) != "started"

        while self.status != "completed":  # as far as we know; a failed run may have been retried meanwhile
            yield from until(look, deadline)
            if self.refresh().status != "failed":
                continue
            if status == "failed":
                return
            failure = self.failure()
            if self.refresh().status == "failed":
                raise failure
        if status != "completed":
            raise RunFailed(
                f"Run {self.run_id} is completed and cannot reach status 'failed'", run_id=self.run_id
            )

    @overload
    def result(self, timeout: float | None = 300.0) -> dict[str, Json] | None: ...

    @overload
    def result(self, timeout: float | None = 300.0, *, output: str) -> Json: ...

    @overload
    def result(self, timeout: float | None = 300.0, *, output: OneStep[Out]) -> Out: ...

    @overload
    def result(self, timeout: float | None = 300.0, *, output: PlainFunction) -> object: ...

    def result(self, timeout: float | None = 300.0, *, output: StepLike | None = None) -> Any:
        """Wait for the run's output, or that of a step of it, and return it; raises like :meth:`wait`.

        Of a step that is given as a decorated function it is what that is annotated to return. Raises
        RunFailed for a step that was skipped, FlowNotFound for one that the run does not have.
        """
        if output is None:
            return self.wait(timeout).output
        return self._client._output_of(self, output, timeout)

    @overload
    def results(self, step: str) -> Iterator[Json]: ...

    @overload
    def results(self, step: OneMap[T, X]) -> Iterator[X]: ...

    @overload
    def results(self, step: OneStep[Out]) -> Iterator[Out]: ...

    @overload
    def results(self, step: PlainFunction) -> Iterator[object]: ...

    def results(self, step: StepLike) -> Iterator[Any]:
        """Outputs of a step's completed tasks in index order, streamed. FlowNotFound for an unknown step."""
        return self._client.results(self.run_id, step)

    @overload
    def as_completed(
        self, step: str, *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem[Json, Json]]: ...

    @overload
    def as_completed(  # type: ignore[overload-overlap]
        self, step: OneMap[T, X], *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem[T, X]]: ...

    @overload
    def as_completed(
        self, step: OneStep[Out], *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem[Json, Out]]: ...

    @overload
    def as_completed(
        self, step: PlainFunction, *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem[object, object]]: ...

    def as_completed(
        self, step: StepLike, *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem[Any, Any]]:
        """Items of a step as they end, each once, until the step is over, in constant memory.

        Those that failed for good are among them. ``ordered``: in the order of their indexes; an item that
        takes long then holds back those behind it. Once there are no more, raises RunFailed if the run has
        failed or was cancelled; WaitTimeout after ``timeout`` seconds, and FlowNotFound for an unknown step.
        Lost connections are opened again.
        """
        return self._client.as_completed(self, step, ordered=ordered, timeout=timeout)

    def events(
        self, *, since: str | None = None, follow: bool = True, timeout: float | None = None
    ) -> Events:
        """What happens to it and its steps, in order, each event once: see :meth:`Client.events`."""
        return self._client.events(self, since=since, follow=follow, timeout=timeout)

    def progress(
        self, *, step: StepLike | None = None, interval: float = 0.5, timeout: float | None = None
    ) -> Iterator[RunProgress]:
        """How far it is, every ``interval`` seconds, until its end: see :meth:`Client.progress`."""
        return self._client.progress(self, step=step, interval=interval, timeout=timeout)

    def failures(self, step: StepLike | None = None, *, error: str | None = None) -> list[FailureGroup]:
        """The failed items in groups of alike errors, as :meth:`Client.failures` has them."""
        return self._client.failures(self.run_id, step, error=error)

    def cancel(self, reason: str = "Run cancelled") -> Run:
        """End the run as failed; returns the run itself."""
        self._client.cancel(self.run_id, reason)
        return self.refresh()

    def retry_failed(self) -> int:
        """Start the failed run again with what is not finished; how many tasks."""
        count = self._client.retry_failed(self.run_id)
        self.refresh()
        return count

    def retry(
        self,
        *,
        steps: StepLike | Iterable[StepLike] | None = None,
        indexes: Indexes | None = None,
        errors: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> Retry:
        """Try failed items again, tolerated ones, too: see :meth:`Client.retry`."""
        done = self._client.retry(self, steps=steps, indexes=indexes, errors=errors, dry_run=dry_run)
        self.refresh()
        return done

    def failure(self) -> RunFailed:
        """What waiting for a run raises that has failed: the step, index and error of its first failure."""
        failed, count = self._client._call(lambda conn: grouping.earliest(conn, self.run_id, 1))
        where = f"Run {self.run_id} of flow {self.flow_slug!r} failed: "
        if not failed:
            return RunFailed(where + (self.error or UNKNOWN_ERROR), run_id=self.run_id)
        more = f" ({count} items failed)" if count > 1 else ""
        return RunFailed(f"{where}{failed[0].named}: {failed[0].error}{more}", run_id=self.run_id)
