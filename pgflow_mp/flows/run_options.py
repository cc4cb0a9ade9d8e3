"""The further keyword arguments of what executes things here, for type checkers; a test compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Pool
from pathlib import Path
from typing import Literal, TypedDict


class _Options(TypedDict, total=False):
    handlers: Sequence[str]
    grace: float
    name: str | None
    compile: Literal["check", "extend", "skip", "recreate"]
    max_memory_per_worker: int | None
    threads: int
    preload: Sequence[str]
    load_timeout: float
    heartbeat_interval: float
    dead_after: float
    linger: float
    claim_ahead: float
    crash_budget: int
    artifacts: str | None
    artifacts_beside: str | None
    metrics_port: int | None
    metrics_address: str
    traces: str | None
    labels: Sequence[str]
    log_level: str
    log_format: str


class WorkerOptions(_Options, total=False):
    """Fields of WorkerSettings, which says what they are: what a QueueWorker takes besides its own."""

    keep: float | None


class _OneRunOptions(TypedDict, total=False):
    only: bool
    poll_interval_ms: int
    visibility_timeout: int | None


class RunOptions(WorkerOptions, _OneRunOptions, total=False):
    """What run() and resume() take besides their own."""


class ImapOptions(_Options, _OneRunOptions, total=False):
    """What Flow.imap() takes besides its own: arguments of run(). ``observer`` is an Observer."""

    workers: int | None
    batch_size: int | None
    max_poll_seconds: float
    dsn: str | None
    data_dir: Path | str | None
    timeout: float | None
    run_id: str | None
    priority: int
    tags: Sequence[str]
    observer: object
    executor: Pool | Callable[[], Pool] | str | None
    ship: Literal["cloudpickle"] | None
