"""How runs, steps and workers are, in words, for whoever shows them to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pgflow_mp.observe.run_reports import OPEN_STATES, ItemCounts, RunReport, StepReport
from pgflow_mp.observe.text import duration, plural
from pgflow_mp.observe.worker_reports import FlowReport

_DAY: Final = 86_400


def words(state: str) -> str:
    """A state as it is written: "completed with failures"."""
    return state.replace("_", " ")


def state_of_run(run: RunReport) -> str:
    """In a few words, for a column: "queued, no worker", "starts in 4:05", "completed, 3 failed"."""
    if run.state == "completed_with_failures":
        return f"completed, {run.counts.failed:,} failed"
    if run.state == "waiting" and run.next_retry is not None:
        return f"waiting, {duration(run.next_retry)}"
    if run.paused_until is not None:
        left = _seconds_to(run.paused_until)
        when = f"{run.paused_until.astimezone():%Y-%m-%d}" if left >= _DAY else f"in {duration(left)}"
        return f"paused, ends {when}" if _has_begun(run) else f"starts {when}"
    if run.unserved and run.state in ("queued", "waiting"):
        fit = " fit" if len(run.lacking) == len(run.unserved) else ""
        return f"{run.state}, no{fit} worker"
    return run.state


def sentence_of_run(run: RunReport) -> str:
    """What a run that has not ended does, or waits for; nothing of one that has."""
    if run.state not in OPEN_STATES:
        return ""
    parts = [_open(run.counts, run.next_retry)]
    if run.state == "paused":
        parts.insert(0, _pause(run))
    if run.unserved:
        parts.append(no_worker(run.unserved, run.lacking))
    return "; ".join(part for part in parts if part)


def _pause(run: RunReport) -> str:
    if run.paused_until is None or _has_begun(run):
        return paused(run.paused_until)
    return f"starts at {_moment(run.paused_until)}"


def paused(until: datetime | None) -> str:
    """ "paused", or "paused until 2026-11-27 03:00:00 (in 9:58)"."""
    return "paused" if until is None else f"paused until {_moment(until)}"


def _moment(when: datetime) -> str:
    left = _seconds_to(when)
    short = f" (in {duration(left)})" if left < _DAY else ""
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}{short}"


def _has_begun(run: RunReport) -> bool:
    return run.counts.attempts > 0


def _seconds_to(when: datetime) -> float:
    return max(0.0, (when - datetime.now(when.tzinfo)).total_seconds())


def no_worker(steps: Sequence[str], lacking: Mapping[str, Sequence[str]]) -> str:
    """That nobody takes items of these steps; ``lacking``: labels that a worker needs for some of them."""
    parts = []
    if others := [step for step in steps if step not in lacking]:
        parts.append(f"no worker serves {_named(others)}")
    if needy := [f"{step} requires ({', '.join(lacking[step])})" for step in steps if step in lacking]:
        parts.append(f"no worker has what {_named(needy)}")
    return "; ".join(parts)


def _named(several: Sequence[str]) -> str:
    return ", ".join(several[:3]) + (", ..." if len(several) > 3 else "")


def remark_on_step(step: StepReport) -> str:
    """What there is to say of a step besides how many of its items are done."""
    counts, parts = step.counts, []
    if step.status == "started" and (now := _open(counts, step.next_retry, queued=False)):
        parts.append(now)
    if counts.tolerated:
        parts.append(f"{counts.tolerated:,} failed, tolerated")
    elif counts.failed > 1:
        parts.append(f"{counts.failed:,} failed")
    if counts.cancelled:
        parts.append(f"{counts.cancelled:,} cancelled")
    if counts.skipped:
        parts.append(f"{counts.skipped:,} skipped")
    reason = step.error_message if step.status == "failed" else step.skip_reason
    if reason:
        parts.append(reason.partition("\n")[0])
    return "; ".join(parts)


def queue_of_flow(flow: FlowReport) -> str:
    """That a flow is paused until then, or its runs wait for a worker that there is not; else nothing."""
    if flow.paused and flow.paused_until is not None:
        return paused(flow.paused_until)
    waiting = flow.queued_runs + flow.waiting_runs
    if not waiting or not flow.unserved or flow.paused:
        return ""
    return f"{plural(waiting, 'run')} queued, {no_worker(flow.unserved, flow.lacking)}"


def _open(counts: ItemCounts, next_retry: float | None, *, queued: bool = True) -> str:
    parts = []
    if counts.running:
        parts.append(f"{counts.running:,} running")
    if counts.queued and queued:
        parts.append(f"{counts.queued:,} queued")
    if counts.waiting:
        when = "" if next_retry is None else f" (next in {duration(next_retry)})"
        parts.append(f"{counts.waiting:,} waiting for a retry{when}")
    return ", ".join(parts)
