"""Spans of OpenTelemetry: a trace for each run, with its steps and, below them, what lanes ran.

Ids of runs' and steps' spans follow from the run's id, so that the spans of all workers of a run join one
trace without talking to each other. Who records the last item of a run tells of the run and its steps; what
lanes ran is told by each worker, a span for a chunk, or for several quick ones that followed each other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import sys
from datetime import datetime
from typing import IO, Any, Final, NamedTuple

from pgflow_mp.errors import ConfigError
from pgflow_mp.installed import pip_install
from pgflow_mp.observe.run_reports import RunDetails

_FLUSH: Final = 3000  # milliseconds
_GOOD: Final = ("completed", "completed_with_failures", "skipped")


class LaneWork(NamedTuple):
    """Items of a step that a lane ran; ``start`` and ``end`` in nanoseconds since 1970."""

    run: str
    flow: str
    step: str
    lane: int
    first: int
    items: int
    failed: int
    outcome: str
    seconds: float
    start: int
    end: int


def trace_id(run_id: str) -> int:
    """The trace of a run; as random as samplers want it, which a uuid is not in all of its bits."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:16], "big")


def span_id(run_id: str, step: str | None = None) -> int:
    """That of the run's span, or of a step's."""
    name = f"{run_id}/{step or ''}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") or 1


def wanted(where: str | None) -> bool:
    """Whether spans go anywhere: where --traces says, or where this program has set up the SDK."""
    return where is not None or _configured() is not None


def check(where: str) -> None:
    """Raise ConfigError where spans cannot go there."""
    if where != "otlp" and not where.endswith(".jsonl"):
        raise ConfigError(
            f"Traces cannot go to {where!r}", hint="Give otlp, or a file whose name ends with .jsonl."
        )
    exporter = "opentelemetry.exporter.otlp.proto.http" if where == "otlp" else "opentelemetry.sdk"
    try:
        found = importlib.util.find_spec(exporter)
    except ImportError:
        found = None
    if found is None:
        hint = f"Install them: {pip_install('traces')}"
        raise ConfigError("Traces need the packages of OpenTelemetry", hint=hint)
    if where != "otlp":
        _opened(where).close()


def _opened(name: str) -> IO[str]:
    try:
        return open(name, "a", encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"Traces cannot be written to {name!r}: {reason}") from None


def _configured() -> Any | None:
    """The provider of spans that somebody has set up in this process."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def _made(where: str) -> tuple[Any, IO[str] | None]:
    """A provider that sends spans to ``otlp``, as OTEL_* variables say, or writes them to a file."""
    check(where)
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
        SpanExporter,
    )

    exporter: SpanExporter
    file: IO[str] | None = None
    if where == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    else:
        file = _opened(where)
        exporter = ConsoleSpanExporter(out=file, formatter=lambda span: f"{span.to_json(indent=None)}\n")
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": "pgflow_mp"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    make = SimpleSpanProcessor if file is not None else BatchSpanProcessor
    provider.add_span_processor(make(exporter))
    return provider, file


class _Ids:
    """What the SDK asks for ids (its IdGenerator): those that are wanted, else random ones."""

    trace: int | None = None
    span: int | None = None

    def generate_trace_id(self) -> int:
        return self.trace or secrets.randbits(128) or 1

    def generate_span_id(self) -> int:
        return self.span or secrets.randbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """Whether its last 56 bits are, as W3C has it."""
        return True


class RunTracer:
    """Makes spans. Raises ConfigError where they cannot go there. Threads: its owner's."""

    def __init__(self, where: str | None, worker: str) -> None:
        self._own = where is not None
        provider: Any
        self._file: IO[str] | None
        provider, self._file = (_configured(), None) if where is None else _made(where)
        self._provider = provider
        self._worker = worker
        self._tracer = provider.get_tracer("pgflow_mp")
        self._ids = self._tracer.id_generator = _Ids()

    def ran(self, work: LaneWork) -> None:
        """What a lane did."""
        about = {
            **_about(work.run, work.flow, work.step),
            "pgflow.worker": self._worker,
            "pgflow.lane": work.lane,
            "pgflow.first_index": work.first,
            "pgflow.items": work.items,
            "pgflow.failed_items": work.failed,
            "pgflow.busy_seconds": work.seconds,
        }
        parent = self._below(work.run, span_id(work.run, work.step))
        self._emit(f"items {work.step}", parent, None, about, work.start, work.end, work.outcome)

    def ended(self, run: RunDetails) -> None:
        """A run with its steps, those that began."""
        root = self._below(run.run_id, span_id(run.run_id))
        for step in run.steps:
            if step.started_at is not None:
                counts = {"pgflow.items": step.counts.items, "pgflow.failed_items": step.counts.failed}
                about = {**_about(run.run_id, run.flow_slug, step.step_slug), **counts}
                own, start = span_id(run.run_id, step.step_slug), _nanoseconds(step.started_at)
                end = max(start, _nanoseconds(step.finished_at or run.finished_at or step.started_at))
                self._emit(f"step {step.step_slug}", root, own, about, start, end, step.state)
        about = {
            **_about(run.run_id, run.flow_slug),
            "pgflow.items": run.counts.items,
            "pgflow.failed_items": run.counts.failed,
            "pgflow.tags": run.tags,
        }
        start, end = _nanoseconds(run.started_at), _nanoseconds(run.finished_at or run.started_at)
        self._ids.trace = trace_id(run.run_id)
        self._emit(
            f"run {run.flow_slug}", None, span_id(run.run_id), about, start, max(start, end), run.state
        )
        self._ids.trace = None

    def close(self) -> None:
        """Send what is left, for a few seconds."""
        self._provider.force_flush(_FLUSH)
        if self._own:
            self._provider.shutdown()
        if self._file is not None:
            self._file.close()

    def _below(self, run_id: str, parent: int) -> Any:
        """What a span is made in that belongs to another one, which may be anybody's."""
        from opentelemetry import trace

        number = trace_id(run_id)
        sampled = self._tracer.sampler.should_sample(None, number, "run").decision.is_sampled()
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
        context = trace.SpanContext(number, parent, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(trace.NonRecordingSpan(context))

    def _emit(
        self, name: str, parent: Any, own: int | None, about: dict[str, Any], start: int, end: int, state: str
    ) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import StatusCode

        self._ids.span = own
        span = self._tracer.start_span(
            name, Context() if parent is None else parent, attributes=about, start_time=start
        )
        self._ids.span = None
        if state not in _GOOD:
            span.set_status(StatusCode.ERROR, state)
        span.end(end)


def _about(run_id: str, flow: str, step: str | None = None) -> dict[str, Any]:
    about: dict[str, Any] = {"pgflow.run_id": run_id, "pgflow.flow": flow}
    return about if step is None else {**about, "pgflow.step": step}


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000) * 1000
