"""Spans: those of several workers join one trace a run, and nothing is loaded where nobody wants them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.importorskip("opentelemetry.sdk")

from worker_harness import compiled, eventually, settings, start, threaded

from pgflow_mp.errors import ConfigError
from pgflow_mp.observe import tracing
from pgflow_mp.worker.settings import WorkerState
from pgflow_mp.worker.worker import Worker

ITEMS = 60


def spans(*files: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _runs(worker: Worker) -> bool:
    return worker.state is WorkerState.RUNNING


def test_the_spans_of_several_workers_make_one_trace(dsn: str, tmp_path: Path) -> None:
    compiled(dsn, "naps")
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    workers = [Worker(settings(dsn, "naps", traces=str(file), batch_size=2)) for file in files]
    with threaded(workers[0]), threaded(workers[1]), psycopg.connect(dsn, autocommit=True) as conn:
        for worker in workers:  # else one of them may do all before the other has begun
            eventually(partial(_runs, worker), 30)
        run = start(dsn, "naps", [0.05] * ITEMS)
        query = "select status from pgflow.runs where run_id = %s"
        eventually(lambda: conn.execute(query, (run,)).fetchone() == ("completed",), 30)
        eventually(lambda: any(span["name"] == "run naps" for span in spans(*files)), 10)
        started, ended = conn.execute(
            "select started_at, completed_at from pgflow.runs where run_id = %s", (run,)
        ).fetchone() or (None, None)
    found = spans(*files)
    assert {span["context"]["trace_id"] for span in found} == {f"0x{tracing.trace_id(run):032x}"}
    names = Counter(span["name"] for span in found)
    assert (names["run naps"], names["step nap"], names["step count"]) == (1, 1, 1)
    by_name = {span["name"]: span for span in found}
    root, step = by_name["run naps"], by_name["step nap"]
    assert root["parent_id"] is None
    assert step["parent_id"] == root["context"]["span_id"]
    items = [span for span in found if span["name"] == "items nap"]
    assert {span["parent_id"] for span in items} == {step["context"]["span_id"]}
    assert sum(span["attributes"]["pgflow.items"] for span in items) == ITEMS
    assert all({span["name"] for span in spans(file)} >= {"items nap"} for file in files)
    assert len({span["context"]["span_id"] for span in found}) == len(found)
    assert (_time(root["start_time"]), _time(root["end_time"])) == (started, ended)
    assert all(_time(span["start_time"]) < _time(span["end_time"]) for span in items)
    assert root["resource"]["attributes"]["service.name"] == "pgflow_mp"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_what_failed_is_an_error(dsn: str, tmp_path: Path) -> None:
    compiled(dsn, "mischief")
    start(dsn, "mischief", [["permanent", "no"]])
    file = tmp_path / "t.jsonl"
    with threaded(Worker(settings(dsn, "mischief", traces=str(file)))):
        eventually(lambda: file.exists() and "run mischief" in file.read_text(), 20)
    found = {span["name"]: span["status"]["status_code"] for span in spans(file)}
    assert found == dict.fromkeys(("run mischief", "step act", "items act"), "ERROR")


def test_the_sdk_that_a_program_has_set_up_is_used() -> None:
    """In a process of its own: there is one provider a process."""
    code = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.sampling import TraceIdRatioBased, ParentBased\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "from pgflow_mp.observe import tracing\n"
        "assert not tracing.wanted(None)\n"
        "memory = InMemorySpanExporter()\n"
        "provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.5)))\n"
        "provider.add_span_processor(SimpleSpanProcessor(memory))\n"
        "trace.set_tracer_provider(provider)\n"
        "assert tracing.wanted(None)\n"
        "tracers = [tracing.RunTracer(None, 'a'), tracing.RunTracer(None, 'b')]\n"
        "import uuid\n"
        "for _ in range(100):\n"
        "    run = str(uuid.uuid4())\n"
        "    for tracer in tracers:\n"
        "        tracer.ran(tracing.LaneWork(run, 'f', 's', 0, 0, 1, 0, 'completed', 0.1, 1, 2))\n"
        "found = memory.get_finished_spans()\n"
        "runs = [span.attributes['pgflow.run_id'] for span in found]\n"
        "assert all(runs.count(run) == 2 for run in runs)\n"  # both workers sample the same runs
        "assert 20 < len(set(runs)) < 80, len(set(runs))\n"
        "assert all(span.context.trace_id == tracing.trace_id(run) for span, run in zip(found, runs))\n"
        "with trace.get_tracer('mine').start_as_current_span('x') as mine: pass\n"
        "assert mine.get_span_context().span_id\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_nothing_is_loaded_where_nobody_wants_spans_or_metrics() -> None:
    heavy = ("opentelemetry", "prometheus", "http.server")
    code = (
        "import sys; from pgflow_mp.worker.worker import Worker; import pgflow_mp\n"
        "from pgflow_mp.observe import tracing; assert not tracing.wanted(None)\n"
        f"print([name for name in sys.modules if name.startswith({heavy})])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("where", ["nowhere", "", "http://x", "/nowhere/at/all.jsonl", "a\0.jsonl"])
def test_where_spans_cannot_go_is_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="Traces cannot"):
        tracing.check(where)


def test_an_otlp_collector_that_is_away_harms_no_run(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    compiled(dsn, "naps")
    run = start(dsn, "naps", [0.0] * 5)
    with (
        threaded(Worker(settings(dsn, "naps", traces="otlp"))),
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        query = "select status from pgflow.runs where run_id = %s"
        eventually(lambda: conn.execute(query, (run,)).fetchone() == ("completed",))
