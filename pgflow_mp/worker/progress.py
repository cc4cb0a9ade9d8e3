"""What observers see: snapshots, and messages about the connection that are said once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence

from pgflow_mp.db.engine import StepProgress
from pgflow_mp.observe.observer import (
    FailedAttempt,
    Level,
    NullObserver,
    Observer,
    ProgressSnapshot,
    StepSnapshot,
)
from pgflow_mp.worker.batches import Flight

_INTERVAL = 0.5
_RATE_MEMORY = 5.0  # seconds over which rates are averaged


class SafeObserver:
    """An observer whose errors are reported once to nobody but itself, and then end the watching."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer: Observer = observer or NullObserver()
        self.watching = observer is not None

    def on_state(self, state: str) -> None:
        """Pass on."""
        self._call("on_state", state)

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        """Pass on."""
        self._call("on_progress", snapshot)

    def on_message(self, level: Level, text: str) -> None:
        """Pass on."""
        self._call("on_message", level, text)

    def on_failure(self, failure: FailedAttempt) -> None:
        """Pass on."""
        self._call("on_failure", failure)

    def _call(self, method: str, *arguments: object) -> None:
        observer = self._observer
        try:
            getattr(observer, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - a broken display must not stop the work
            self._observer, self.watching = NullObserver(), False
            if method != "on_message":
                with contextlib.suppress(Exception):
                    observer.on_message("error", f"the progress display failed: {error!r}")


class ConnectionReport:
    """Who of the worker's threads has no connection, said when it begins and when it ends."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lost: dict[str, str] = {}
        self._since = 0.0
        self._said = False

    def heard(self, who: str, text: str) -> None:
        """A thread lost its connection (``text``), or has one (no text)."""
        if text:
            if not self._lost:
                self._since, self._said = time.monotonic(), False
            self._lost[who] = text
        elif self._lost.pop(who, None) is not None and not self._lost and self._said:
            away = time.monotonic() - self._since
            self._observer.on_message("info", f"connected to the database again after {away:.1f} s")

    def tick(self, now: float) -> None:
        """Say that the database is away, once it is for more than a moment."""
        if self._lost and not self._said and now - self._since > 0.5:
            self._said = True
            text = next(iter(self._lost.values()))
            self._observer.on_message("warn", f"waiting for the database: {text}")

    @property
    def text(self) -> str:
        """``connected``, or what is being waited for."""
        return f"waiting for the database: {next(iter(self._lost.values()))}" if self._lost else "connected"


class _Rate:
    def __init__(self) -> None:
        self.value = 0.0
        self._last: tuple[float, int] | None = None

    def update(self, now: float, done: int) -> float:
        if self._last is not None and now > self._last[0]:
            seconds = now - self._last[0]
            weight = min(1.0, seconds / _RATE_MEMORY) if self.value else 1.0
            self.value += weight * ((done - self._last[1]) / seconds - self.value)
        self._last = (now, done)
        return max(0.0, self.value)


class Progress:
    """Makes snapshots every half second."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        """May change."""
        self._started = self._last = time.monotonic()
        self._busy = 0.0
        self._rates: dict[tuple[str, str], _Rate] = {}
        self._seen: dict[str, StepProgress] = {}
        self.flow = ""

    def due(self, now: float) -> bool:
        """Whether it is time for another one."""
        return now - self._last >= _INTERVAL

    def seen(self, steps: Sequence[StepProgress]) -> None:
        """The counters of the served run."""
        self._seen = {step.step_slug: step for step in steps}

    def snapshot(
        self,
        now: float,
        counts: dict[tuple[str, str], list[int]],
        *,
        flights: Collection[Flight],
        busy: float,
        queued: int,
        unsettled: int,
        connection: str,
    ) -> ProgressSnapshot:
        """The state now; ``busy``: seconds that handlers ran so far, ``counts`` as of the Collector.

        What a lane runs is in ``busy`` only once it has ended; one that has been at the same chunk since the
        last snapshot was busy all the time.
        """
        occupied = len({flight.lane for flight in flights if flight.sent <= self._last})
        spent = (busy - self._busy) / max(1e-6, (now - self._last) * self.lanes)
        spent = max(spent, occupied / self.lanes)
        self._busy, self._last = busy, now
        steps = self._run_steps(now, counts) if self._seen else self._own_steps(now, counts)
        return ProgressSnapshot(
            tuple(steps),
            len({flight.lane for flight in flights}),
            self.lanes,
            max(0.0, min(1.0, spent)),
            queued,
            unsettled,
            connection,
            now - self._started,
        )

    def _run_steps(self, now: float, counts: dict[tuple[str, str], list[int]]) -> list[StepSnapshot]:
        found: list[StepSnapshot] = []
        for slug, step in self._seen.items():
            total, remaining = step.initial_tasks, step.remaining_tasks
            done = 0 if total is None or remaining is None else total - remaining
            if step.status == "completed" and total is not None:
                done = total
            failed = counts.get((self.flow, slug), [0, 0])[1]
            rate = self._rates.setdefault((self.flow, slug), _Rate()).update(now, done)
            eta = (
                (total - done) / rate if total is not None and rate > 0 and step.status == "started" else None
            )
            found.append(StepSnapshot(self.flow, slug, step.status, done, total, failed, rate, eta))
        return found

    def _own_steps(self, now: float, counts: dict[tuple[str, str], list[int]]) -> list[StepSnapshot]:
        return [
            StepSnapshot(
                flow,
                slug,
                "started",
                done,
                None,
                failed,
                self._rates.setdefault((flow, slug), _Rate()).update(now, done),
                None,
            )
            for (flow, slug), (done, failed) in counts.items()
        ]
