"""What is told of workers, their lanes, and flows: structs in plain data, as those of ``run_reports``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

WorkerCondition = Literal["running", "idle", "draining", "stopped", "dead"]
"""draining: an operator deprecated it; it claims nothing more. dead: it broke off without a goodbye."""
LaneCondition = Literal["running", "idle", "starting"]


class LaneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane of a worker does: the item of a run that it has, for how many seconds.

    ``cpu`` is in CPUs (1.0: all of one), ``rss`` in bytes.
    """

    lane: int
    state: LaneCondition
    pid: int | None = None
    run_id: str | None = None
    flow_slug: str | None = None
    step_slug: str | None = None
    index: int | None = None
    attempt: int | None = None
    seconds: float | None = None
    cpu: float | None = None
    rss: int | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: one process, registered once for each of its queues.

    What it did not tell the database is None: host, pid, ... of workers in other languages. From
    ``busy_lanes`` on it is as it was at ``told_at``: ``utilisation`` (0..1) of its lanes' time, ``cpu`` in
    CPUs and ``rss`` in bytes of all its processes; ``claimed`` items are in its hands, of ``unsettled`` ones
    the end is not recorded yet.
    """

    name: str
    state: WorkerCondition
    worker_ids: list[str]
    flows: list[str]
    queues: list[str]
    started_at: datetime
    last_seen_at: datetime
    stopped_at: datetime | None
    version: str | None = None
    host: str | None = None
    pid: int | None = None
    executor: str | None = None
    labels: list[str] = []
    lane_count: int | None = None
    told_at: datetime | None = None
    busy_lanes: int | None = None
    utilisation: float | None = None
    claimed: int | None = None
    unsettled: int | None = None
    cpu: float | None = None
    rss: int | None = None
    lanes: list[LaneReport] | None = None


class FlowReport(msgspec.Struct, frozen=True, kw_only=True):
    """A flow with how its runs are.

    ``active_runs`` have not ended: ``running_runs`` with items in the hands of a worker, ``waiting_runs`` of
    which all waits for its next attempt, ``queued_runs`` all others. Items are those of active runs.
    ``completed_day`` and ``failed_day``: runs that were started within 24 hours and have ended so.
    ``unserved``: steps that no worker alive takes items of; ``lacking``: of those that require anything of a
    worker the labels that it needs.
    """

    flow_slug: str
    steps: list[str]
    queue_mode: str
    max_attempts: int
    base_delay: int
    timeout: int
    created_at: datetime
    active_runs: int
    queued_runs: int
    running_runs: int
    waiting_runs: int
    running_items: int
    waiting_items: int
    next_retry: float | None
    completed_day: int
    failed_day: int
    oldest_started_at: datetime | None
    last_started_at: datetime | None
    workers: int
    unserved: list[str]
    lacking: dict[str, list[str]] = {}
    paused: bool
    paused_until: datetime | None = None
