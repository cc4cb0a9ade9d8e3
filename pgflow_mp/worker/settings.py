"""The options of a worker and the states it goes through (contract: worker sections 1.1 and 2)."""

from __future__ import annotations

import dataclasses
import numbers
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from pgflow_mp.errors import ConfigError, PgflowError
from pgflow_mp.executors import cpus
from pgflow_mp.executors.messages import LOAD_TIMEOUT
from pgflow_mp.flows.labels import labels_of
from pgflow_mp.loading.handler_list import HandlerList
from pgflow_mp.values.stores import normal_root

Compile = Literal["check", "extend", "skip", "recreate"]
_WHOLE: Final = frozenset(
    (
        "workers",
        "batch_size",
        "visibility_timeout",
        "crash_budget",
        "poll_interval_ms",
        "max_memory_per_worker",
        "threads",
        "metrics_port",
    )
)
_LARGEST: Final = 2**31 - 1
_MOST_BYTES: Final = 2**63 - 1
_LONGEST: Final = 36_500 * 86_400  # seconds, a hundred years


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that can be set. Times are in seconds where the name does not say otherwise.

    ``targets`` are texts that pgflow_mp.loading understands; ``sys_path`` are directories that loading
    them needs besides their own, ``main_path`` the script behind a target in ``__main__``. ``shipped`` is a
    flow itself in their place (loading/shipping.py); with ``job`` the target is a function. ``handlers`` is
    the list of functions that flow files among the targets may name: ``module``, ``module:function``,
    ``package.*``; ``contents`` are what such files say, by path, as far as they were read. ``flows`` limits
    the worker to these slugs. ``workers`` is the number of lanes (None: the CPUs this process may use);
    ``batch_size`` the quantity of every claim (None: measured). After an empty claim the next one
    follows in ``poll_interval_ms``, then twice that and so on up to ``max_poll_seconds``, unless the
    database announces work. ``visibility_timeout`` is the lease of a claim (None: the flow's longest
    timeout + 2); leases of what is held are extended. ``grace`` bounds the wait for running items at a
    stop. A worker that is silent for ``dead_after`` is taken for dead by the others. Finished items
    are settled ``linger`` after the first of them (twice that in the midst of a map), or at once when a
    batch is full, when nothing more of their run is held, or when a lane has nothing to do.
    ``claim_ahead`` is how much work, per lane, is claimed beyond what the lanes hold.
    ``artifacts`` is a folder or a URL for what handlers make of files, whatever their flows say;
    ``artifacts_beside`` serves flows that say nothing.
    ``keep``: runs of the served flows go this long after they ended (None: never).
    ``crash_budget`` is how often an item may crash its process before it is quarantined.
    Every lane imports the targets for itself, within ``load_timeout``. ``preload`` names modules that are
    imported once and shared by all lanes, and by those that replace them; "flow" stands for the targets
    themselves. What such a module makes when it is imported (random generators, temporary directories)
    is the same in every lane.
    ``metrics_port`` (0: any that is free): metrics and health checks are served there, at
    ``metrics_address``. ``labels``: what this worker has, for steps that require it.
    ``traces``: "otlp", or a file of JSON lines, for OpenTelemetry's spans.
    A worker that serves one run claims what there is of that run first, and with ``only`` nothing else.
    """

    dsn: str
    targets: tuple[str, ...]
    flows: tuple[str, ...] | None = None
    sys_path: tuple[str, ...] = ()
    main_path: str | None = None
    shipped: bytes = b""
    job: bool = False
    handlers: tuple[str, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    workers: int | None = None
    batch_size: int | None = None
    max_poll_seconds: float = 2.0
    poll_interval_ms: int = 100
    visibility_timeout: int | None = None
    grace: float = 30.0
    name: str | None = None
    compile: Compile = "check"
    max_memory_per_worker: int | None = None
    threads: int = 1
    preload: tuple[str, ...] = ()
    load_timeout: float = LOAD_TIMEOUT
    heartbeat_interval: float = 2.0
    dead_after: float = 10.0
    linger: float = 0.25
    claim_ahead: float = 0.4
    crash_budget: int = 2
    keep: float | None = None
    artifacts: str | None = None
    artifacts_beside: str | None = None
    metrics_port: int | None = None
    metrics_address: str = "127.0.0.1"
    traces: str | None = None
    labels: tuple[str, ...] = ()
    only: bool = False
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        least = {
            "workers": 1,
            "batch_size": 1,
            "visibility_timeout": 1,
            "crash_budget": 1,
            "poll_interval_ms": 1,
            "max_memory_per_worker": 1 << 20,
            "threads": 0,
            "grace": 0,
            "linger": 0,
            "claim_ahead": 0,
            "keep": 0,
            "metrics_port": 0,
        }
        for name, minimum in least.items():
            value = self._number(name)
            if value is not None and not value >= minimum:
                raise ConfigError(f"{name} must be at least {minimum}, not {value}")
        for name in ("heartbeat_interval", "dead_after", "max_poll_seconds", "load_timeout"):
            value = self._number(name)
            if value is None or not value > 0:
                raise ConfigError(f"{name} must be more than 0, not {value}")
        if self.dead_after < 2 * self.heartbeat_interval:
            raise ConfigError(
                f"dead_after ({self.dead_after:g} s) must be at least twice "
                f"heartbeat_interval ({self.heartbeat_interval:g} s)"
            )
        if self.artifacts is not None:
            object.__setattr__(self, "artifacts", normal_root(self.artifacts))
        try:
            object.__setattr__(self, "labels", labels_of(self.labels))
        except ValueError as error:
            raise ConfigError(f"labels: {error}") from None
        object.__setattr__(self, "handlers", HandlerList.of(self.handlers).entries)
        if not self.targets:
            raise ConfigError(
                "A worker needs at least one target", hint="For example: flows.py, or app.flows"
            )

    def _number(self, name: str) -> Any:
        """The value, if it is a number that is not too large for clocks and for PostgreSQL's integers."""
        value = getattr(self, name)
        whole = name in _WHOLE
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
            raise ConfigError(f"{name} must be a {'whole ' if whole else ''}number, not {value!r}")
        most = _MOST_BYTES if name == "max_memory_per_worker" else _LARGEST if whole else _LONGEST
        if float(value) > most:
            raise ConfigError(f"{name} must be at most {most:,}, not {value}")
        return value

    @property
    def lanes(self) -> int:
        """The number of lanes that ``workers`` comes to."""
        return self.workers if self.workers is not None else cpus.available_cpus()

    @property
    def worker_name(self) -> str:
        """``name``, or host:pid."""
        return self.name or f"{socket.gethostname()}:{os.getpid()}"

    def for_handlers(self) -> dict[str, Any]:
        """What handlers see as ctx.worker_config: everything but the connection string."""
        values = dataclasses.asdict(self)
        del values["dsn"], values["shipped"], values["job"], values["contents"]
        values.update(workers=self.lanes, name=self.worker_name)
        return values


class WorkerState(StrEnum):
    """The contract's states (worker section 2)."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    DEPRECATED = "deprecated"
    STOPPING = "stopping"
    STOPPED = "stopped"


# starting -> stopping is ours: a start that was interrupted or failed cleans up too.
_NEXT: Final = {
    WorkerState.CREATED: {WorkerState.STARTING},
    WorkerState.STARTING: {WorkerState.RUNNING, WorkerState.STOPPING},
    WorkerState.RUNNING: {WorkerState.DEPRECATED, WorkerState.STOPPING},
    WorkerState.DEPRECATED: {WorkerState.STOPPING},
    WorkerState.STOPPING: {WorkerState.STOPPED},
    WorkerState.STOPPED: set[WorkerState](),
}


def transition(current: WorkerState, to: WorkerState) -> bool:
    """Whether ``to`` is another state; raises PgflowError where the contract has no way there."""
    if to is current:
        return False
    if to not in _NEXT[current]:
        raise PgflowError(f"Cannot transition from {current} to {to}")
    return True
