"""A run and its steps as a client sees them, and waiting for them (contract: worker section 7)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from pgflow_mp.client.retried import Indexes, Retry
from pgflow_mp.db import run_keys
from pgflow_mp.db.engine import RunRow
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.db.reads.runs import StepRow
from pgflow_mp.errors import FlowNotFound, InputError, RunFailed, RunNotFound, WaitTimeout
from pgflow_mp.observe import grouping
from pgflow_mp.observe.reports import FailureGroup

if TYPE_CHECKING:
    from pgflow_mp.client.client import Client
    from pgflow_mp.flows.finished_item import FinishedItem

RunStatus = Literal["started", "completed", "failed"]
WaitedFor = Literal["started", "completed", "failed", "skipped"]
StepStatus = Literal["created", "started", "completed", "failed", "skipped"]

UNKNOWN_ERROR: Final = "Unknown error"
_STEP_RANK: Final = {"created": 0, "started": 1, "completed": 2, "failed": 3, "skipped": 4}


@dataclass(slots=True)
class Step:
    """A step of a run, as of its run's last refresh. Task counts are None while they are not known."""

    slug: str
    step_type: str
    status: StepStatus
    initial_tasks: int | None
    remaining_tasks: int | None
    error: str | None
    skip_reason: str | None
    started_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    skipped_at: datetime | None
    _run: Run = field(repr=False)
    _output: tuple[Any] | None = field(default=None, repr=False)

    @property
    def output(self) -> Any:
        """The step's output, read when it is first asked for; None unless it is completed."""
        if self.status != "completed":
            return None
        if self._output is None:
            client, run_id, slug = self._run._client, self._run.run_id, self.slug
            raw = client._call(lambda conn: documents.step_output(conn, run_id, slug), long=True)
            if raw is None and self.step_type == "map":  # too large for one document
                self._output = (client._map_output(run_id, slug),)
            else:
                self._output = (None if raw is None else msgspec.json.decode(raw),)
        return self._output[0]

    def wait(self, status: WaitedFor = "completed", timeout: float = 300.0) -> Step:
        """Wait until the step has this status; returns it as it is then.

        Raises RunFailed at once if it can no longer have it, WaitTimeout after ``timeout`` seconds, and
        InputError for a status that no step can be waited to have.
        """
        _check_status(status, get_args(WaitedFor), "step")
        run, slug, wanted = self._run, self.slug, _STEP_RANK[status]

        def look() -> bool:
            now = run.refresh().steps[slug]
            return now.status == status or _STEP_RANK[now.status] > max(wanted, 1) or run.status == "failed"

        if not run._client._wait(look, run.run_id, timeout):
            raise WaitTimeout(f"Timeout waiting for step {slug} to reach status '{status}'")
        step = run.steps[slug]
        if step.status == status or (status == "started" and _STEP_RANK[step.status] in (2, 3)):
            return step
        reason = step.error or step.skip_reason or run.error or f"it is {step.status}"
        raise RunFailed(
            f"Step {slug} of run {run.run_id} cannot reach status '{status}': {reason}", run_id=run.run_id
        )


class Run:
    """A run as of its last :meth:`refresh`: what the database said then.

    A run that is retried is ``started`` again. Payloads are read when they are first asked for.
    """

    def __init__(self, client: Client, row: RunRow) -> None:
        self._client = client
        self._row = row
        self._steps: dict[str, Step] | None = None
        self._input: tuple[Any] | None = None
        self._output: tuple[Any] | None = None
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
    def input(self) -> Any:
        """What the run was started with."""
        if self._input is None:
            raw = self._client._call(lambda conn: documents.run_input(conn, self.run_id), long=True)
            if raw is None:
                raise RunNotFound(f"Run not found: {self.run_id}")
            self._input = (msgspec.json.decode(raw),)
        return self._input[0]

    @property
    def output(self) -> Any:
        """An object of the leaf steps' outputs; None unless the run is completed, or if all were skipped."""
        if self.status != "completed":
            return None
        if self._output is None:
            self._output = (self._read_output(),)
        return self._output[0]

    def _read_output(self) -> Any:
        client, run_id = self._client, self.run_id
        leaves = client._call(lambda conn: documents.leaves(conn, run_id))
        raw = client._call(lambda conn: documents.run_output(conn, run_id), long=True)
        if not leaves:
            return None if raw is None else msgspec.json.decode(raw)
        output: dict[str, Any] = {} if raw is None else msgspec.json.decode(raw)
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
        return _StepMap(self._steps or {}, self.flow_slug)

    def refresh(self) -> Run:
        """Read the run's present state; returns the run itself. Raises RunNotFound if it was deleted."""
        view = self._client._call(lambda conn: runs.run_view(conn, self.run_id))
        if view is None:
            raise RunNotFound(f"Run not found: {self.run_id}")
        if view[0].completed_at != self._row.completed_at:
            self._output = None  # it was retried
        self._row, rows = view
        known, self._steps = self._steps or {}, {}
        for row in rows:
            self._steps[row.step_slug] = self._step(row, known.get(row.step_slug))
        return self

    def wait(self, timeout: float = 300.0, status: Literal["completed", "failed"] = "completed") -> Run:
        """Wait until the run has this status; returns the run itself.

        Raises RunFailed as soon as a run that should complete fails (or the other way round),
        WaitTimeout after ``timeout`` seconds, and InputError for another status.
        """
        _check_status(status, ("completed", "failed"), "run")

        def look() -> bool:
            return self._client._found(self.run_id) != "started"

        deadline = time.monotonic() + timeout
        while self.status != "completed":  # as far as we know; a failed run may have been retried meanwhile
            if not self._client._wait(look, self.run_id, deadline - time.monotonic()):
                raise WaitTimeout(f"Timeout waiting for run {self.run_id} to reach status '{status}'")
            if self.refresh().status != "failed":
                continue
            if status == "failed":
                return self
            failure = self.failure()
            if self.refresh().status == "failed":
                raise failure
        if status == "completed":
            return self
        raise RunFailed(
            f"Run {self.run_id} is completed and cannot reach status 'failed'", run_id=self.run_id
        )

    def result(self, timeout: float = 300.0) -> Any:
        """Wait for the run's output and return it; raises like :meth:`wait`."""
        return self.wait(timeout).output

    def results(self, step: str) -> Iterator[Any]:
        """Outputs of a step's completed tasks in index order, streamed. FlowNotFound for an unknown step."""
        return self._client.results(self.run_id, step)

    def as_completed(
        self, step: str, *, ordered: bool = False, timeout: float | None = None
    ) -> Iterator[FinishedItem]:
        """Items of a step as they end, each once, until the step is over, in constant memory.

        Those that failed for good are among them. ``ordered``: in the order of their indexes; an item that
        takes long then holds back those behind it. Once there are no more, raises RunFailed if the run has
        failed or was cancelled; WaitTimeout after ``timeout`` seconds, and FlowNotFound for an unknown step.
        Lost connections are opened again.
        """
        return self._client._as_completed(self, step, ordered, timeout)

    def failures(self, step: str | None = None, *, error: str | None = None) -> list[FailureGroup]:
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
        steps: str | Iterable[str] | None = None,
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

    def _step(self, row: StepRow, before: Step | None) -> Step:
        """The step of a row. Its output is kept where it cannot have changed."""
        same = before is not None and (before.status, before.completed_at) == (row.status, row.completed_at)
        return Step(
            row.step_slug,
            row.step_type,
            row.status,  # type: ignore[arg-type]
            row.initial_tasks,
            row.remaining_tasks,
            row.error_message or (UNKNOWN_ERROR if row.status == "failed" else None),
            row.skip_reason,
            row.started_at,
            row.completed_at,
            row.failed_at,
            row.skipped_at,
            self,
            before._output if same and before is not None else None,
        )


class _StepMap(Mapping[str, Step]):
    def __init__(self, steps: dict[str, Step], flow_slug: str) -> None:
        self._steps = MappingProxyType(steps)
        self._flow_slug = flow_slug

    def __getitem__(self, slug: str) -> Step:
        check_step(self._steps, slug, self._flow_slug)
        return self._steps[slug]

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, slug: object) -> bool:
        return slug in self._steps


def check_step(known: Collection[str], slug: str, flow_slug: str) -> None:
    """Raise FlowNotFound unless the step is ``known``."""
    if slug not in known:
        raise FlowNotFound(
            f'Step "{slug}" does not exist in flow "{flow_slug}"', hint=f"Steps there: {', '.join(known)}."
        )


def _check_status(status: str, known: tuple[str, ...], what: str) -> None:
    if status not in known:
        text = f"No {what} can be waited for to reach status {status!r}"
        raise InputError(text, hint=f"There are {', '.join(known)}.")
