"""What is executed here, and what became of it: RunRequest in, RunSummary out, state in a StateDatabase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor as Pool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgflow_mp.db.reusing import Reuse
from pgflow_mp.errors import RunFailed
from pgflow_mp.loading.targets import Target
from pgflow_mp.observe.reports import FailedItem, RunFailures
from pgflow_mp.worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class StateDatabase:
    """Where the state lives: the connection string to use, and a text without secrets to show."""

    dsn: str
    place: str
    data_dir: Path | None

    @property
    def artifacts(self) -> str | None:
        """The folder for artifacts that goes with an embedded server; None for another one."""
        return None if self.data_dir is None else str(self.data_dir.parent / "artifacts")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run of ``flow`` (its slug), which is in ``target``, to be started and served here to its end.

    ``input`` is raw JSON; None: ``{}``. With ``loaded`` the items of ``run_id`` are there, and ``input``
    are the parameters of the other steps; None: the items are the run's input. ``run_id``: an id of your own,
    a uuid; one that exists already is gone on with, whatever its input. ``key``: a name in its place, for
    :func:`pgflow_mp.run`. With ``resume`` it has to exist; if it has failed, what failed is tried again with
    ``retry``. ``timeout``: seconds after which it is left, in order. Among the runs of a flow, those of the
    highest ``priority`` are worked on first; a run that is started has these ``tags``. ``executor`` is as of
    :func:`pgflow_mp.run`; ``settings`` are fields of WorkerSettings.
    """

    target: Target
    flow: str
    input: bytes | None = None
    loaded: bool = False
    run_id: str | None = None
    key: str | None = None
    resume: bool = False
    retry: bool = False
    timeout: float | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    reuse: Reuse | None = None
    executor: Pool | Callable[[], Pool] | str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def worker_settings(self, dsn: str) -> WorkerSettings:
        """Those of a worker that serves this flow only. Raises ConfigError."""
        return WorkerSettings(
            dsn=dsn,
            targets=(str(self.target),),
            flows=(self.flow,),
            sys_path=tuple(self.target.sys_path),
            main_path=self.target.main_path,
            contents=self.target.by_path,
            **{"handlers": self.target.handlers, **self.settings},
        )


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What became of a run that was executed here.

    ``status`` is the run's: "completed", "failed", or "started" if we stopped before its end; then
    ``interrupted`` or ``timed_out`` is set, and ``by_operator`` if our worker was deprecated.
    ``items`` were recorded here, in ``wall`` seconds; ``utilisation`` is the share of the lanes' time in
    which handlers ran. ``failures`` are the first FAILURES_SHOWN of ``failure_count`` failed items, and
    ``failed`` all of them in groups.
    ``unmet`` is the step whose condition was not met, if that was the reason.
    ``place`` says where the state lives.
    """

    run_id: str
    flow: str
    status: str
    interrupted: bool
    timed_out: bool
    items: int
    rate: float
    wall: float
    utilisation: float
    lanes: int
    late: int
    retried: int
    crashed: int
    failures: list[FailedItem] = field(default_factory=list)
    failed: RunFailures = field(default_factory=RunFailures)
    error: str = ""
    unmet: str | None = None
    place: str = ""
    data_dir: Path | None = None
    by_operator: bool = False

    @property
    def failure_count(self) -> int:
        """Items that failed for good."""
        return self.failed.failed


def failure_of(summary: RunSummary) -> RunFailed:
    """The error about a run that has failed."""
    if summary.failures:
        first = summary.failures[0]
        more = f" ({summary.failure_count} items failed)" if summary.failure_count > 1 else ""
        return RunFailed(
            f'Run {summary.run_id} of flow "{summary.flow}" failed: {first.named}: {first.error}{more}',
            run_id=summary.run_id,
        )
    return RunFailed(
        f'Run {summary.run_id} of flow "{summary.flow}" failed: {summary.error or "Unknown error"}',
        run_id=summary.run_id,
    )
