"""The metrics that there are: names by the conventions of Prometheus, with their labels.

Base units, ``_total`` for what only grows. Labels have few values: flows, steps, statuses; never ids of runs.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

MetricKind = Literal["counter", "gauge", "histogram"]


class MetricName(NamedTuple):
    """A metric; a counter is shown as ``name_total``, a histogram as ``_bucket``, ``_sum`` and ``_count``."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of its samples."""
        if self.kind == "counter":
            return (f"{self.name}_total",)
        if self.kind == "histogram":
            return tuple(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
        return (self.name,)


_STEP: Final = ("flow", "step")

WORKER: Final = (
    MetricName("pgflow_worker_info", "gauge", "1; what the worker is", ("version", "executor")),
    MetricName("pgflow_worker_ready", "gauge", "1 while it works, 0 while it starts or stops"),
    MetricName("pgflow_worker_lanes", "gauge", "Places where items run"),
    MetricName("pgflow_worker_lanes_busy", "gauge", "Lanes that run something, a few seconds ago at most"),
    MetricName("pgflow_worker_utilisation_ratio", "gauge", "Share of the lanes' time in which handlers ran"),
    MetricName("pgflow_worker_items_claimed", "gauge", "Items in the worker's hands"),
    MetricName("pgflow_worker_items_unsettled", "gauge", "Items that ended and are not recorded yet"),
    MetricName(
        "pgflow_worker_database_connected", "gauge", "1 if the last sign of life was confirmed in time"
    ),
    MetricName("pgflow_worker_heartbeat_age_seconds", "gauge", "Since the last confirmed sign of life"),
    MetricName(
        "pgflow_worker_items",
        "counter",
        "Items that ended here: completed, or failed for good",
        (*_STEP, "status"),
    ),
    MetricName("pgflow_worker_item_duration_seconds", "histogram", "How long attempts of items took", _STEP),
    MetricName(
        "pgflow_worker_failed_attempts", "counter", "Attempts that failed, also those tried again", _STEP
    ),
    MetricName("pgflow_worker_busy_seconds", "counter", "Time that handlers ran"),
    MetricName("pgflow_worker_claims", "counter", "Claims that got something"),
    MetricName("pgflow_worker_claimed_items", "counter", "Items that were claimed"),
    MetricName("pgflow_worker_retries", "counter", "Failed attempts that are tried again"),
    MetricName("pgflow_worker_late_results", "counter", "Results that came too late and were discarded"),
    MetricName("pgflow_worker_lane_crashes", "counter", "Processes that died of an item"),
    MetricName("pgflow_worker_handed_back_items", "counter", "Items that were handed back uncharged"),
    MetricName("pgflow_worker_settled_batches", "counter", "Transactions that recorded results"),
)
"""What a worker tells of itself."""

DATABASE: Final = (
    MetricName("pgflow_database_up", "gauge", "1 if the database could be asked"),
    MetricName("pgflow_database_ask_seconds", "gauge", "How long asking it took"),
    MetricName(
        "pgflow_runs",
        "gauge",
        "Runs that have not ended: queued, running, waiting for a retry",
        ("flow", "state"),
    ),
    MetricName(
        "pgflow_items", "gauge", "Items of these runs: running, waiting for a retry", ("flow", "state")
    ),
    MetricName(
        "pgflow_runs_ended_last_day",
        "gauge",
        "Runs that were started within 24 h and have ended",
        ("flow", "status"),
    ),
    MetricName(
        "pgflow_oldest_run_age_seconds", "gauge", "Since the oldest run that has not ended began", ("flow",)
    ),
    MetricName("pgflow_flow_workers", "gauge", "Workers that serve it", ("flow",)),
    MetricName("pgflow_flow_unserved_steps", "gauge", "Steps that no worker serves", ("flow",)),
    MetricName("pgflow_flow_paused", "gauge", "1 if it is paused", ("flow",)),
    MetricName("pgflow_workers", "gauge", "Workers", ("state",)),
    MetricName(
        "pgflow_schedules",
        "gauge",
        "Schedules: active, paused, failing (its last run did not start)",
        ("flow", "state"),
    ),
)
"""What is read of the database, the same for whoever reads it."""
