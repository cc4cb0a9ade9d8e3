"""Metrics in Prometheus's text, made when they are asked for; nothing is counted for them in between."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgflow_mp.errors import ConfigError
from pgflow_mp.installed import pip_install
from pgflow_mp.observe.metric_names import DATABASE, WORKER, MetricName
from pgflow_mp.time_buckets import BUCKETS, PER_DECADE, edge

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection
    from pgflow_mp.observe.worker_figures import StepFigures, WorkerFigures

_NAMES: Final = {metric.name: metric for metric in (*WORKER, *DATABASE)}
_MOST_FLOWS: Final = 1000
_LEAST_EDGE, _LAST_EDGE = 2 * PER_DECADE, 10 * PER_DECADE  # 0.1 ms to 10,000 s
_EDGES: Final = range(_LEAST_EDGE, _LAST_EDGE + 1, PER_DECADE // 2)

Labels = tuple[str, ...]


class Exposed(NamedTuple):
    """What is sent to Prometheus."""

    content_type: str
    body: bytes


def require() -> None:
    """Raise ConfigError where the library for metrics is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Metrics need the package prometheus-client", hint=f"Install it: {pip_install('metrics')}"
        ) from None


def expose(families: Iterable[Any]) -> Exposed:
    """The text of these metrics."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    found = [*families]

    class _Once:
        def collect(self) -> list[Any]:
            return found

    registry: Any = _Once()
    return Exposed(CONTENT_TYPE_LATEST, generate_latest(registry))


def worker_metrics(figures: WorkerFigures) -> Iterator[Any]:
    """What a worker did, and its process as Prometheus names that: process_cpu_seconds_total and the like."""
    from prometheus_client import ProcessCollector

    single = {
        "pgflow_worker_ready": float(figures.ready),
        "pgflow_worker_lanes": figures.lanes,
        "pgflow_worker_lanes_busy": figures.busy_lanes,
        "pgflow_worker_utilisation_ratio": figures.utilisation,
        "pgflow_worker_items_claimed": figures.claimed,
        "pgflow_worker_items_unsettled": figures.unsettled,
        "pgflow_worker_database_connected": float(figures.connected),
        **figures.counters,
    }
    if figures.heartbeat_age is not None:
        single["pgflow_worker_heartbeat_age_seconds"] = figures.heartbeat_age
    yield _family("pgflow_worker_info", {(figures.version, figures.executor): 1})
    for name, value in single.items():
        yield _family(name, {(): value})
    yield _family(
        "pgflow_worker_items",
        {
            (*key, status): count
            for key, counts in figures.items.items()
            for status, count in zip(("completed", "failed"), counts, strict=True)
        },
    )
    yield _family(
        "pgflow_worker_failed_attempts", {key: times.failed for key, times in figures.times.items()}
    )
    yield _histogram("pgflow_worker_item_duration_seconds", figures.times)
    yield from ProcessCollector(registry=None).collect()


def database_metrics(conn: Connection) -> list[Any]:
    """What is to be told of the database: what ``flows``, ``workers`` and ``schedule list`` read, too."""
    from pgflow_mp.db import schedules
    from pgflow_mp.observe.read_reports import read_flows, read_workers

    began = time.monotonic()
    flows = read_flows(conn, _MOST_FLOWS)
    workers = read_workers(conn)
    timed = schedules.schedules(conn)
    conditions = dict.fromkeys((("running",), ("idle",), ("draining",)), 0)
    for worker in workers:
        conditions[worker.state,] = conditions.get((worker.state,), 0) + 1
    planned: dict[Labels, float] = {}
    for each in timed:
        failing = each.problem is not None or each.last_state == "failed"
        state = "paused" if each.paused_at is not None else "failing" if failing else "active"
        planned[each.flow_slug, state] = planned.get((each.flow_slug, state), 0) + 1
    runs, items, ended, ages = (
        dict[Labels, float](),
        dict[Labels, float](),
        dict[Labels, float](),
        dict[Labels, float](),
    )
    for flow in flows:
        slug = flow.flow_slug
        runs |= {
            (slug, "queued"): flow.queued_runs,
            (slug, "running"): flow.running_runs,
            (slug, "waiting"): flow.waiting_runs,
        }
        items |= {(slug, "running"): flow.running_items, (slug, "waiting"): flow.waiting_items}
        ended |= {(slug, "completed"): flow.completed_day, (slug, "failed"): flow.failed_day}
        oldest = flow.oldest_started_at
        ages[slug,] = 0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp())
    return [
        _family("pgflow_database_up", {(): 1}),
        _family("pgflow_database_ask_seconds", {(): time.monotonic() - began}),
        _family("pgflow_runs", runs),
        _family("pgflow_items", items),
        _family("pgflow_runs_ended_last_day", ended),
        _family("pgflow_oldest_run_age_seconds", ages),
        _family("pgflow_flow_workers", {(flow.flow_slug,): flow.workers for flow in flows}),
        _family("pgflow_flow_unserved_steps", {(flow.flow_slug,): len(flow.unserved) for flow in flows}),
        _family("pgflow_flow_paused", {(flow.flow_slug,): float(flow.paused) for flow in flows}),
        _family("pgflow_workers", conditions),
        _family("pgflow_schedules", planned),
    ]


def database_down() -> list[Any]:
    """The same where it cannot be asked."""
    return [_family("pgflow_database_up", {(): 0})]


def page_metrics(conn: Connection) -> Exposed:
    """The metrics of a database, for whoever serves them."""
    return expose(database_metrics(conn))


def _family(name: str, values: Mapping[Any, float]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    metric = _NAMES[name]
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(name: str, times: Mapping[Any, StepFigures]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    metric: MetricName = _NAMES[name]
    family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    for labels, figures in times.items():
        family.add_metric(labels, _buckets(figures.counts), figures.seconds)
    return family


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper edge: two for each power of ten."""
    found, below, at = [], 0, 0
    for upper in _EDGES:
        below += sum(counts[at:upper])
        at = upper
        found.append((str(float(f"{edge(upper):.4g}")), float(below)))
    return [*found, ("+Inf", float(below + sum(counts[at:BUCKETS])))]
