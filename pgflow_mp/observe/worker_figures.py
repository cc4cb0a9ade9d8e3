"""What a worker knows of itself at one moment, for metrics and health checks: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgflow_mp.time_buckets import BUCKETS

StepKey = tuple[str, str]
"""Flow and step."""


@dataclass(slots=True)
class StepFigures:
    """Attempts of items of a step since the worker's start: ``counts`` by bucket (``time_buckets``)."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    seconds: float = 0.0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """A worker. ``items``: [completed, failed] by step. What is None is not known yet."""

    version: str
    executor: str
    ready: bool
    lanes: int
    busy_lanes: int
    utilisation: float
    claimed: int
    unsettled: int
    connected: bool
    heartbeat_age: float | None
    items: Mapping[StepKey, tuple[int, int]]
    times: Mapping[StepKey, StepFigures]
    counters: Mapping[str, float]
    """By the names of metrics without labels."""


@dataclass(frozen=True, slots=True)
class Health:
    """``alive``: the main loop comes round. ``connected``: the database answers. ``ready``: it works."""

    alive: bool
    connected: bool
    ready: bool
    state: str
