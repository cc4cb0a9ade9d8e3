"""Progress as log lines, for logs, pipes and process managers: quiet while the work is short."""

from __future__ import annotations

import logging
from typing import Any, Final

from pgflow_mp.logs import LEVELS, VERBOSE
from pgflow_mp.observe.observer import FailedAttempt, Level, ProgressSnapshot, RunNote, StepSnapshot
from pgflow_mp.observe.text import duration, essence, percent, plural, rate, waits

logger = logging.getLogger("pgflow_mp")

# (from this age of the worker on, seconds between two lines)
_INTERVALS: Final = ((600.0, 60.0), (120.0, 15.0), (0.0, 5.0))
_FAILURES_SHOWN: Final = 20


class PlainObserver:
    """Logs a line for what happens, and one every few seconds while something moves.

    ``names_flows``: name the flow with each step, for a worker that serves several. ``quiet``: log only
    trouble, failures, messages and runs. ``opening`` is told once there is something to work on. People are
    told of start and end of their ``own_run`` by others, and of the first failures only; ``for_machines``
    all is logged.
    """

    def __init__(
        self,
        *,
        names_flows: bool = False,
        quiet: bool = False,
        opening: str = "",
        own_run: str | None = None,
        for_machines: bool = False,
    ) -> None:
        self._own_run = own_run
        self._for_machines = for_machines
        self._opening = opening
        self._names_flows = names_flows
        self._quiet = quiet
        self._next = _INTERVALS[-1][1]
        self._last: object = None
        self._failures = 0

    def open(self) -> None:
        """Log the opening, once; the first state "running" does it, too."""
        text, self._opening = self._opening, ""
        if text:
            logger.info("%s", text)

    def on_state(self, state: str) -> None:
        """Log the state."""
        if state == "running":
            self.open()
        logger.log(VERBOSE, "worker is %s", state, extra=_fields(event="state", state=str(state)))

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        """Log progress every few seconds."""
        if self._quiet or snapshot.elapsed < self._next:
            return
        self._next = snapshot.elapsed + next(pause for age, pause in _INTERVALS if snapshot.elapsed >= age)
        moved = tuple((step.flow, step.slug, step.done, step.failed) for step in snapshot.steps)
        waits_for_retries = snapshot.waiting or any(step.waiting for step in snapshot.steps)
        if moved == self._last and not (snapshot.lanes_busy or waits_for_retries):
            return
        self._last = moved
        logger.info("%s", self._line(snapshot), extra=_fields(**_numbers(snapshot)))

    def on_message(self, level: Level, text: str) -> None:
        """Log it."""
        logger.log(LEVELS[level], "%s", text)

    def on_run(self, note: RunNote) -> None:
        """Log when a run begins here, and when it is over."""
        if note.run == self._own_run and not self._for_machines:
            return
        fields: dict[str, Any] = {"event": "run", "flow": note.flow, "run": note.run, "status": note.status}
        text = f"run {note.run} of {note.flow}: {note.status}"
        if note.status == "started":
            logger.info("run %s of %s: work begins", note.run, note.flow, extra=_fields(**fields))
            return
        if note.seconds is not None:
            fields |= {"items": note.items, "failed": note.failed, "seconds": round(note.seconds, 3)}
            text += f", {plural(note.items, 'item')} here in {duration(note.seconds)}"
            text += f", {plural(note.failed, 'failed attempt')}" if note.failed else ""
        level = logging.INFO if note.status == "completed" else logging.WARNING
        logger.log(level, "%s", text, extra=_fields(**fields))

    def on_failure(self, failure: FailedAttempt) -> None:
        """Log the first failures, the others at level verbose; the whole text at level debug."""
        self._failures += 1
        level = logging.ERROR if failure.final else logging.WARNING
        if self._failures > _FAILURES_SHOWN and not self._for_machines:
            level = VERBOSE
        if logger.isEnabledFor(level):
            shown = failure.shown()
            fields = _fields(
                event="failure",
                flow=failure.flow,
                run=failure.run,
                step=failure.step,
                index=failure.index,
                input=shown,
                attempt=failure.attempt,
                final=failure.final,
                traceback=failure.text,
            )
            whose = other_run(failure, self._own_run)
            logger.log(level, "%s", whose + failure_line(failure, shown), extra=fields)
        if self._failures == _FAILURES_SHOWN and not self._for_machines:
            logger.warning("further failures are logged at level verbose")
        logger.debug("%s[%d]: %s", failure.step, failure.index, failure.text)

    def _line(self, snapshot: ProgressSnapshot) -> str:
        steps = [step for step in snapshot.steps if step.status == "started" or step.total is None]
        parts = [self._step(step) for step in steps if step.done or step.total] or ["waiting for work"]
        if snapshot.waiting and not any(step.waiting for step in steps):
            parts.append(waits(snapshot.waiting, snapshot.next_in))
        if snapshot.paused:
            parts.append("claiming is paused")
        parts.append(f"{snapshot.lanes_busy}/{snapshot.lanes} busy, used {snapshot.utilisation:.0%}")
        return "; ".join(parts)

    def _step(self, step: StepSnapshot) -> str:
        name = f"{step.flow}.{step.slug}" if self._names_flows else step.slug
        text = f"{name} {step.done:,}"
        if step.total is not None:
            text += f"/{step.total:,} ({percent(step.done, step.total)})"
        if step.rate > 0 and not step.only_waits:
            text += f" {rate(step.rate)}"
        if step.waiting:
            text += f", {waits(step.waiting, step.next_in)}"
        if step.eta is not None and step.rate > 0 and not step.only_waits:
            text += f", {duration(step.eta)} left"
        return text + (f", {step.failed:,} failed" if step.failed else "")


def other_run(failure: FailedAttempt, own_run: str | None) -> str:
    """What stands in front of a line about another run than the one that is served."""
    return "" if own_run in (None, failure.run) else f"run {failure.run[:8]} "


def failure_line(failure: FailedAttempt, shown: str) -> str:
    """One failure in one line, with the input as it is to be ``shown``."""
    item, what = failure_lines(failure, shown)
    return f"{item} {what.lstrip()}"


def failure_lines(failure: FailedAttempt, shown: str) -> list[str]:
    """The same in two."""
    place = (failure.step, failure.index)
    what = "failed" if failure.final else f"attempt {failure.attempt} failed, retrying"
    return [
        "{}[{}] ".format(*place).rstrip() + (f" {shown}" if shown else ""),
        f"  {what}: {essence(failure.text, beside=place)}",
    ]


def _fields(**fields: Any) -> dict[str, Any]:
    return {"fields": fields}


def _numbers(snapshot: ProgressSnapshot) -> dict[str, Any]:
    steps = [
        {
            "flow": s.flow,
            "step": s.slug,
            "done": s.done,
            "total": s.total,
            "failed": s.failed,
            "waiting": s.waiting,
            "rate": round(s.rate, 2),
        }
        for s in snapshot.steps
    ]
    return {
        "event": "progress",
        "steps": steps,
        "lanes_busy": snapshot.lanes_busy,
        "lanes": snapshot.lanes,
        "utilisation": round(snapshot.utilisation, 3),
    }
