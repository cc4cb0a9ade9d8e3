"""The steps of a run as a client sees them, and waiting for them (contract: worker section 7)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from pgflow_mp.client.waiting import Deadline, Rounds, until
from pgflow_mp.db.reads import documents
from pgflow_mp.db.reads.runs import StepRow
from pgflow_mp.errors import FlowNotFound, InputError, RunFailed
from pgflow_mp.values.json_values import Json

if TYPE_CHECKING:
    from pgflow_mp.client.run_handles import Run

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
    _output: tuple[Json] | None = field(default=None, repr=False)

    @property
    def output(self) -> Json:
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

    def wait(self, status: WaitedFor = "completed", timeout: float | None = 300.0) -> Step:
        """Wait until the step has this status; returns it as it is then.

        Raises RunFailed at once if it can no longer have it, WaitTimeout after ``timeout`` seconds, and
        InputError for a status that no step can be waited to have.
        """
        self._run._client._await(self._waiting(status, timeout), self._run.run_id)
        return self._run.steps[self.slug]

    def _waiting(self, status: WaitedFor, timeout: float | None) -> Rounds[None]:
        """Rounds that end when the step has this status; they raise what ``wait`` does."""
        check_status(status, get_args(WaitedFor), "step")
        run, slug, wanted = self._run, self.slug, _STEP_RANK[status]

        def look() -> bool:
            now = run.refresh().steps[slug]
            return now.status == status or _STEP_RANK[now.status] > max(wanted, 1) or run.status == "failed"

        yield from until(look, Deadline(timeout, f"step {slug} to reach status '{status}'"))
        step = run.steps[slug]
        if step.status == status or (status == "started" and _STEP_RANK[step.status] in (2, 3)):
            return
        reason = step.error or step.skip_reason or run.error or f"it is {step.status}"
        raise RunFailed(
            f"Step {slug} of run {run.run_id} cannot reach status '{status}': {reason}", run_id=run.run_id
        )


def step_of(run: Run, row: StepRow, before: Step | None) -> Step:
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
        run,
        before._output if same and before is not None else None,
    )


class StepMap(Mapping[str, Step]):
    """Steps by slug. An unknown one raises FlowNotFound."""

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
            f'Step "{slug}" does not exist in flow "{flow_slug}"', hint=f"Its steps are {', '.join(known)}."
        )


def check_status(status: str, known: tuple[str, ...], what: str) -> None:
    """Raise InputError unless the status is ``known``."""
    if status not in known:
        text = f"No {what} can be waited for to reach status {status!r}"
        raise InputError(text, hint=f"There are {', '.join(known)}.")
