"""Rows of runs, steps and items become reports: what they count, and the state that says it in a word."""

from __future__ import annotations

from datetime import datetime

from pgflow_mp.db.reads import worked
from pgflow_mp.db.reads.lists import ItemEntry, RunEntry, StepEntry
from pgflow_mp.db.reads.worked import Span
from pgflow_mp.observe.run_reports import (
    ItemCounts,
    ItemReport,
    ItemState,
    RunDetails,
    RunState,
    StepReport,
    StepState,
    total,
)


def run_details(entry: RunEntry, steps: list[StepEntry], spans: list[Span], now: datetime) -> RunDetails:
    """A run and its steps, at ``now``; ``spans`` are when workers were there for its flow."""
    reports = [_step(entry, step, spans, now) for step in steps]
    counts = total(step.counts for step in reports)
    ended = entry.completed_at or entry.failed_at
    waits = [step.next_retry for step in reports if step.next_retry is not None]
    return RunDetails(
        run_id=entry.run_id,
        flow_slug=entry.flow_slug,
        status=entry.status,
        state=_run_state(entry, counts),
        items=counts.items,
        done=counts.done,
        counts=counts,
        next_retry=min(waits, default=None),
        unserved=[
            step.step_slug
            for step in reports
            if not step.workers and step.counts.queued + step.counts.waiting
        ],
        remaining_steps=entry.remaining_steps,
        priority=entry.priority,
        key=entry.key,
        tags=entry.tags,
        started_at=entry.started_at,
        completed_at=entry.completed_at,
        failed_at=entry.failed_at,
        finished_at=ended,
        paused_until=entry.paused_until,
        seconds=worked.seconds(spans, entry.flow_slug, entry.started_at, ended or now),
        steps=reports,
    )


def _run_state(entry: RunEntry, counts: ItemCounts) -> RunState:
    if entry.status == "completed":
        return "completed_with_failures" if counts.failed else "completed"
    if entry.status == "failed":
        return "cancelled" if entry.is_cancelled else "failed"
    return "paused" if entry.is_paused else _open_state(counts)


def _open_state(counts: ItemCounts) -> RunState:
    if counts.running:
        return "running"
    return "waiting" if counts.waiting and not counts.queued else "queued"


def _step(run: RunEntry, entry: StepEntry, spans: list[Span], now: datetime) -> StepReport:
    counts = _counts(run, entry)
    seconds = None
    if entry.started_at is not None:
        end = entry.finished_at or run.completed_at or run.failed_at or now
        seconds = worked.seconds(spans, run.flow_slug, entry.started_at, end)
    return StepReport(
        step_slug=entry.step_slug,
        step_type=entry.step_type,
        depends_on=entry.depends_on,
        status=entry.status,
        state=_step_state(run, entry, counts),
        storage=entry.storage,
        initial_tasks=entry.initial_tasks,
        remaining_tasks=entry.remaining_tasks,
        failed_tasks=counts.failed,
        cancelled_tasks=counts.cancelled,
        skipped_tasks=counts.skipped,
        counts=counts,
        next_retry=entry.next_in,
        workers=entry.workers,
        error_message=entry.error_message,
        skip_reason=entry.skip_reason,
        started_at=entry.started_at,
        finished_at=entry.finished_at,
        seconds=seconds,
    )


def _counts(run: RunEntry, entry: StepEntry) -> ItemCounts:
    if entry.started_at is None or entry.initial_tasks is None:
        return ItemCounts()
    left = 0
    if run.status == "started" and entry.status == "started":
        left = max(0, (entry.remaining_tasks or 0) - entry.running - entry.waiting)
    return ItemCounts(
        items=entry.initial_tasks,
        completed=entry.completed,
        failed=entry.failed,
        tolerated=entry.failed if entry.status in ("started", "completed") else 0,
        running=entry.running,
        waiting=entry.waiting,
        queued=left,
        cancelled=entry.cancelled,
        skipped=entry.skipped,
        attempts=entry.completed + entry.running + entry.lost_attempts,
    )


def _step_state(run: RunEntry, entry: StepEntry, counts: ItemCounts) -> StepState:
    if entry.status == "completed":
        return "completed_with_failures" if counts.failed else "completed"
    if entry.status == "skipped":
        return "skipped"
    if run.status == "started":
        if entry.status == "created":
            return "pending"
        return "paused" if run.is_paused else _open_state(counts)
    return "failed" if entry.status == "failed" and not run.is_cancelled else "cancelled"


def item_report(entry: ItemEntry, step_failed: bool) -> ItemReport:
    """An item of a step, which has ``step_failed`` or not."""
    states: dict[str, ItemState] = {
        "queued": "queued" if entry.next_in is None else "waiting",
        "started": "running",
        "completed": "completed",
        "failed": "failed" if step_failed else "tolerated",
        "cancelled": "cancelled",
        "skipped": "skipped",
    }
    seconds = None
    if entry.started_at is not None and entry.finished_at is not None:
        seconds = (entry.finished_at - entry.started_at).total_seconds()
    return ItemReport(
        index=entry.item_index,
        status=entry.status,
        state=states[entry.status],
        attempts=entry.attempts,
        error=entry.error,
        worker_id=entry.worker_id,
        queued_at=entry.queued_at,
        started_at=entry.started_at,
        finished_at=entry.finished_at,
        seconds=seconds,
        next_retry=entry.next_in,
        input=entry.input,
        output=entry.output,
    )
