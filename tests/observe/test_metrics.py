"""Metrics: names and sums, over HTTP, of a worker and its database; health; what a hostile caller can do."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families
from worker_harness import compiled, eventually, settings, start, threaded

from pgflow_mp.db import wire
from pgflow_mp.errors import ConfigError
from pgflow_mp.observe import metrics, metrics_server
from pgflow_mp.observe.metric_names import DATABASE, WORKER
from pgflow_mp.observe.metrics_server import MetricsServer
from pgflow_mp.observe.worker_figures import Health, StepFigures, WorkerFigures
from pgflow_mp.time_buckets import bucket_of
from pgflow_mp.worker.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Sample, float]:
    """By name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def get(url: str, **options: Any) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


FIGURES = WorkerFigures(
    version="1.2.3",
    executor="lanes",
    ready=True,
    lanes=4,
    busy_lanes=3,
    utilisation=0.5,
    claimed=7,
    unsettled=2,
    connected=True,
    heartbeat_age=0.5,
    items={("f", "s"): (10, 1), ("f", 'q"\n'): (1, 0)},
    times={("f", "s"): StepFigures(seconds=12.0, failed=2)},
    counters={"pgflow_worker_busy_seconds": 12.5, "pgflow_worker_claims": 3},
)


@contextmanager
def served(health: Callable[[], Health], dsn: str = "host=/nowhere") -> Iterator[str]:
    """A server of these figures; the beginning of its pages' URLs."""
    server = MetricsServer("127.0.0.1", 0, figures=lambda: FIGURES, health=health, database=dsn)
    server.serve()
    try:
        yield server.url.removesuffix("/metrics")
    finally:
        server.close()


def well() -> Health:
    return Health(True, True, True, "running")


def test_what_is_told_keeps_the_conventions_and_the_table() -> None:
    for seconds in (0.00005, 0.02, 0.02, 3.0, 50_000.0):
        FIGURES.times["f", "s"].counts[bucket_of(seconds)] += 1
    text = metrics.expose(metrics.worker_metrics(FIGURES)).body.decode()
    found = samples(text)
    names = {name for name, _ in found if name.startswith("pgflow_")}
    known = {shown for metric in WORKER for shown in metric.shown}
    assert names <= known
    assert of(found, "pgflow_worker_items_total", flow="f", step="s", status="completed") == 10
    assert of(found, "pgflow_worker_items_total", flow="f", step='q"\n', status="completed") == 1
    assert of(found, "pgflow_worker_claims_total") == 3
    assert of(found, "pgflow_worker_failed_attempts_total", flow="f", step="s") == 2
    prefix, key = "pgflow_worker_item_duration_seconds", {"flow": "f", "step": "s"}
    assert (of(found, f"{prefix}_count", **key), of(found, f"{prefix}_sum", **key)) == (5, 12.0)
    below = {
        le: of(found, f"{prefix}_bucket", le=le, **key)
        for le in ("0.0001", "0.01", "0.03162", "10.0", "+Inf")
    }
    assert below == {"0.0001": 1, "0.01": 1, "0.03162": 3, "10.0": 4, "+Inf": 5}
    assert "process_cpu_seconds_total" in text


@pytest.mark.parametrize("metric", [*WORKER, *DATABASE], ids=lambda metric: metric.name)
def test_names_follow_the_conventions_of_prometheus(metric: Any) -> None:
    assert metric.name.startswith("pgflow_")
    assert not metric.name.endswith(
        ("_total", "_count", "_sum", "_bucket", "_ms", "_milliseconds", "_percent")
    )
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")
    assert set(metric.labels) <= {"flow", "step", "status", "state", "version", "executor"}
    assert len(metric.help) > 0
    assert not metric.help.endswith(".")


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    import re

    board = json.loads((ROOT / "docs/monitoring/grafana.json").read_text())
    known = {shown: metric for metric in (*WORKER, *DATABASE) for shown in metric.shown}
    asked = set()
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"]
    for expression in expressions:
        names = re.findall(r"\bpgflow_\w+", expression)
        assert names
        assert set(names) <= set(known), expression
        asked |= set(names)
        labels = {label for name in names for label in known[name].labels} | {"le", "instance"}
        by = [label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")]
        tested = re.findall(r"(\w+)=~?\"", expression)
        assert {*by, *tested} <= labels, expression
    legends = [target["legendFormat"] for panel in board["panels"] for target in panel["targets"]]
    assert {label for text in legends for label in re.findall(r"{{(\w+)}}", text)} <= {
        "flow", "step", "status", "state", "instance",
    }  # fmt: skip
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len(asked) > 15
    edges = {(panel["gridPos"]["x"] + panel["gridPos"]["w"]) for panel in board["panels"]}
    assert max(edges) <= 24


def test_a_worker_and_its_database_tell_what_the_rows_say(dsn: str) -> None:
    compiled(dsn, "mischief")
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.create_flow('idle')")
        conn.execute("select pgflow.set_schedule('idle', 'n', '@daily', 'UTC', '{}')")
        conn.execute("select pgflow.start_flow('idle', '{}')")
    flaky = start(dsn, "mischief", [["echo", 1], ["echo", 2], ["flaky", 1]])
    failing = start(dsn, "mischief", [["permanent", "x"]])
    worker = Worker(settings(dsn, "mischief", metrics_port=0))
    with threaded(worker) as running:
        eventually(lambda: worker._monitor is not None and worker._monitor.url)
        assert worker._monitor is not None
        url = str(worker._monitor.url)
        eventually(lambda: get(url.replace("/metrics", "/readyz"))[0] == 200)
        with psycopg.connect(dsn) as conn:
            conn.autocommit = True
            query = "select count(*) from pgflow.runs where status = 'started' and flow_slug = 'mischief'"
            eventually(lambda: conn.execute(query).fetchone() == (0,))
        found = eventually(lambda: _with_times(url))
        status, text = get(f"{url}/database")
        assert status == 200
        assert get(url.replace("/metrics", "/healthz"))[0] == 200
        assert running is not None
    with pytest.raises(urllib.error.URLError):
        get(url)
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "select step_slug, status, count(*), sum(attempts) from pgflow.items "
            "where run_id = any (%s::uuid[]) group by 1, 2",
            ([flaky, failing],),
        ).fetchall()
    stored = {(step, status): count for step, status, count, _ in rows}
    told = {
        (dict(labels)["step"], dict(labels)["status"]): value
        for (name, labels), value in found.items()
        if name == "pgflow_worker_items_total" and value
    }
    assert told == {key: count for key, count in stored.items() if key[1] in ("completed", "failed")}
    attempts = sum(
        value for (name, _), value in found.items() if name == "pgflow_worker_item_duration_seconds_count"
    )
    assert attempts == sum(row[3] for row in rows if row[1] in ("completed", "failed"))
    about = samples(text)
    assert of(about, "pgflow_database_up") == 1
    assert of(about, "pgflow_runs", flow="mischief", state="running") == 0
    assert of(about, "pgflow_runs_ended_last_day", flow="mischief", status="failed") == 1
    assert of(about, "pgflow_schedules", flow="idle", state="active") == 1
    assert of(about, "pgflow_flow_workers", flow="mischief") == 1
    names = {name for name, _ in about}
    assert names <= {shown for metric in DATABASE for shown in metric.shown}


def _with_times(url: str) -> dict[Sample, float] | None:
    """What the worker tells once its record was added up."""
    found = samples(get(url)[1])
    attempts = "pgflow_worker_item_duration_seconds_count"
    return found if sum(value for (name, _), value in found.items() if name == attempts) >= 5 else None


def test_health_is_that_of_the_loop_and_of_the_database() -> None:
    states = {"now": well()}
    with served(lambda: states["now"]) as url:
        assert [get(f"{url}/{page}")[0] for page in ("livez", "readyz", "healthz")] == [200, 200, 200]
        states["now"] = Health(True, False, True, "running")
        assert [get(f"{url}/{page}")[0] for page in ("livez", "readyz", "healthz")] == [200, 503, 503]
        states["now"] = Health(False, True, False, "running")
        assert [get(f"{url}/{page}")[0] for page in ("livez", "readyz", "healthz")] == [503, 503, 503]
        states["now"] = Health(True, True, False, "starting")
        assert get(f"{url}/readyz")[0] == 503
        assert json.loads(get(f"{url}/healthz")[1]) == {
            "alive": True, "database": True, "ready": False, "state": "starting",
        }  # fmt: skip


def test_a_loop_that_stands_still_is_not_alive(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgflow_mp.worker import monitoring

    monkeypatch.setattr(monitoring, "_STILL", 0.5)
    gate = threading.Event()
    held: list[bool] = []

    def until() -> bool:
        held.append(gate.wait(0.0 if not held or gate.is_set() else 10.0))
        return False

    worker = Worker(settings(dsn, "naps", metrics_port=0))
    with threaded(worker, until=until):
        eventually(lambda: len(held) > 0)
        assert worker._monitor is not None
        page = str(worker._monitor.url).replace("/metrics", "/livez")
        eventually(lambda: get(page)[0] == 503)
        gate.set()
        eventually(lambda: get(page)[0] == 200)


def test_other_pages_and_methods_are_refused() -> None:
    with served(well) as url:
        assert get(f"{url}/../../etc/passwd") == (404, get(f"{url}/x")[1])
        assert get(f"{url}/metrics", method="POST", data=b"x")[0] == 501
        status, body = get(f"{url}/metrics", method="HEAD")
        assert (status, body) == (200, "")
        assert get(f"{url}/metrics?x=1")[0] == 200


def test_who_talks_slowly_or_in_crowds_keeps_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.5)
    with served(well) as url:
        place = url.removeprefix("http://").split(":")
        idle = [socket.create_connection((place[0], int(place[1]))) for _ in range(20)]
        began = time.monotonic()
        answered = False
        while not answered and time.monotonic() - began < 10:
            with suppress(OSError):
                answered = get(f"{url}/livez")[0] == 200
        assert answered
        for connection in idle:
            connection.close()


def test_who_keeps_all_places_by_talking_without_end_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_LONGEST", 1.0)
    stopping = threading.Event()

    def talk(place: tuple[str, int]) -> None:
        with suppress(OSError), socket.create_connection(place) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\n")
            while not stopping.wait(0.1):
                connection.sendall(b"x: y\r\n")

    with served(well) as url:
        host, port = url.removeprefix("http://").split(":")
        threads = [threading.Thread(target=talk, args=((host, int(port)),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        began, answered = time.monotonic(), 0
        while answered < 3 and time.monotonic() - began < 8:
            with suppress(OSError):
                answered += get(f"{url}/livez")[0] == 200
        stopping.set()
        for thread in threads:
            thread.join(5)
    assert answered == 3


def test_a_database_that_is_away_is_told_and_asked_again(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_FRESH", 0.0)
    asker = metrics_server.DatabaseAsker("host=/nowhere")
    assert samples(asker.ask().body.decode()) == {("pgflow_database_up", ()): 0}
    asker = metrics_server.DatabaseAsker(dsn)
    assert of(samples(asker.ask().body.decode()), "pgflow_database_up") == 1
    assert asker._conn is not None
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pg_terminate_backend(%s)", (asker._conn.info.backend_pid,))
    told = [of(samples(asker.ask().body.decode()), "pgflow_database_up") for _ in range(3)]
    assert told[-1] == 1
    asker.close()


def test_the_database_is_not_asked_for_every_scrape(dsn: str) -> None:
    asker = metrics_server.DatabaseAsker(dsn)
    first = asker.ask()
    assert all(asker.ask() is first for _ in range(100))
    asker.close()


def test_a_reader_may_ask_for_the_metrics_of_its_flows(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for slug in ("a", "b"):
            conn.execute("select pgflow.create_flow(%s)", (slug,))
            conn.execute("select pgflow.set_schedule(%s, 'n', '@daily', 'UTC', '{}')", (slug,))
        conn.execute("drop role if exists pgflow_metrics_reader")
        conn.execute("create role pgflow_metrics_reader")
        try:
            conn.execute("select pgflow.grant_access('pgflow_metrics_reader', 'reader', array['a'])")
            conn.execute("set role pgflow_metrics_reader")
            wire.adapt(conn)
            found = samples(metrics.page_metrics(conn).body.decode())
            flows = {dict(labels).get("flow") for _, labels in found} - {None}
            assert flows == {"a"}
        finally:
            conn.execute("reset role")
            conn.execute("drop owned by pgflow_metrics_reader; drop role pgflow_metrics_reader")


def test_a_port_that_is_taken_is_named_before_anything_is_done(dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1, port {port}: Address already in use"):
            Worker(settings(dsn, "naps", metrics_port=port)).run()
        with pytest.raises(ConfigError, match="Address already in use") as refused:
            metrics_server.check("127.0.0.1", port)
        assert "--metrics-port" in refused.value.hint
    metrics_server.check("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot be served at nowhere\.invalid"):
        metrics_server.check("nowhere.invalid", 0)
