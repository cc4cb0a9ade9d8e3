"""Who serves a lane pool: processes are started, replaced when they die or are worn, and tried again."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Final

from pgflow_mp.errors import FlowDefinitionError, OnStartFailed
from pgflow_mp.executors.events import Cause, LaneEvent, LaneFailedToStart, LaneReady
from pgflow_mp.executors.lanes.hooks import Hooks
from pgflow_mp.executors.lanes.killing import default_oom_kills
from pgflow_mp.executors.lanes.lane import LaneProcess
from pgflow_mp.executors.lanes.nursery import Losses, Nursery
from pgflow_mp.executors.messages import Hello, StartTrouble
from pgflow_mp.executors.start_failures import HINT, StartFailures
from pgflow_mp.executors.verdicts import KillReason, start_hint

_log: Final = logging.getLogger("pgflow_mp.lanes")

LEAVE_GRACE: Final = 1.0  # seconds an idle process gets to leave by itself
_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0
_TRIES: Final = 5  # of each lane, before a pool without any other lane is given up
_TOO_SLOW: Final = (
    "Look for slow work at import time, or allow it more: "
    "--load-timeout S, PGFLOW_LOAD_TIMEOUT=S, or load_timeout=S."
)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a process serves. ``target`` is what it loads, within ``start_timeout`` seconds; after so many
    items or seconds it is replaced (None: never).
    """

    target: str
    start_timeout: float
    recycle_items: int | None = None
    recycle_seconds: float | None = None


@dataclass(slots=True)
class LanePlace:
    """A lane. ``coming`` is a process that loads its target and takes over once ready."""

    id: int
    current: LaneProcess | None = None
    coming: LaneProcess | None = None
    launching: bool = False
    failures: int = 0
    retry_at: float | None = None
    removed: bool = False


class Roster:
    """The places and their processes. Thread-safe. Not for it: what processes hold."""

    def __init__(self, nursery: Nursery, on_event: Callable[[LaneEvent], None], terms: Terms) -> None:
        self._nursery = nursery
        self._on_event = on_event
        self._terms = terms
        self._lock = threading.RLock()
        self._generations = itertools.count(1)
        self._lanes: dict[int, LanePlace] = {}
        self._retiring: list[LaneProcess] = []
        self._first: Future[Hello] = Future()
        self._losses = Losses()
        self.leaving = False
        """No process is to be charged for leaving that is told to by others."""
        self.stopping = False
        """No process is started any more."""
        self.stopped = False
        self._start_failures = StartFailures()
        self._hooks = Hooks(
            on_event,
            self._on_started,
            self._on_serving,
            self._on_troubled,
            self._on_died,
            lambda: self.leaving or self.stopping,
        )

    # -- who is there ------------------------------------------------------------------------------

    def serving(self, lane: int) -> LaneProcess | None:
        """The process of a lane, if it has one that is up."""
        place = self._lanes.get(lane)
        return place.current if place is not None else None

    def processes(self) -> list[LaneProcess]:
        """All of them, those included that are to come or finish what they hold before they go."""
        with self._lock:
            found = [p for lane in self._lanes.values() for p in (lane.current, lane.coming) if p is not None]
            return found + self._retiring

    def up(self, *, retiring: bool = False) -> list[LaneProcess]:
        """Those that serve; also those that finish what they hold before they go, if asked for."""
        with self._lock:
            found = [place.current for place in self._lanes.values() if place.current is not None]
            return found + self._retiring if retiring else found

    # -- who is to come and go ---------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Add lanes, or let the last ones finish what they hold and go."""
        with self._lock:
            for lane in [lane for lane in self._lanes.values() if lane.id >= size]:
                lane.removed = True
                del self._lanes[lane.id]
                for process in (lane.current, lane.coming):
                    if process is not None:
                        self._retire(process)
            for number in range(size):
                if number not in self._lanes:
                    self._lanes[number] = LanePlace(number)
                    self._start_process(self._lanes[number])

    def recycle(self, lane: int, generation: int | None) -> None:
        """Replace a lane's process, the new one up before the old one goes."""
        with self._lock:
            place = self._lanes.get(lane)
            process = place.current if place is not None else None
            if place is not None and process is not None and generation in (None, process.generation):
                self._start_process(place)

    def await_first(self, poll: Callable[[], None]) -> Hello:
        """What the first process that is up says. Raises FlowDefinitionError where that takes too long."""
        deadline = time.monotonic() + self._terms.start_timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                return self._first.result(0.05)
            poll()
        raise FlowDefinitionError(self._too_slow, hint=_TOO_SLOW)

    def tend(self, now: float) -> None:
        """Notice the deaths of idle processes, let those go that have finished, start what is due."""
        self._notice_deaths(self.processes())
        with self._lock:
            for process in [process for process in self._retiring if not process.busy]:
                self._retiring.remove(process)
                self._nursery.close(process, LEAVE_GRACE)
            for lane in self._lanes.values():
                self._tend(lane, now)

    def end(self, grace: float) -> None:
        """End all processes; those that hold something, which is handed back, or are not up yet, at once."""
        self.stopped = True
        for process in self.processes():
            if process.busy or not process.ready:
                process.kill(KillReason(Cause.STOPPED), 0.0)
        self._nursery.finish_launching(stuck=not self._first.done())
        with self._lock:
            processes = self.processes()
            self._lanes.clear()
            self._retiring.clear()
        for process in processes:
            if not process.ready:
                process.kill(KillReason(Cause.STOPPED), 0.0)
            elif grace > 0:
                process.dismiss()  # all at once
        for process in processes:
            self._nursery.close(process, grace)
        self._nursery.stop()

    # -- internals ---------------------------------------------------------------------------------

    @property
    def _too_slow(self) -> str:
        return f"Loading {self._terms.target} took longer than {self._terms.start_timeout:g} s"

    def _start_process(self, lane: LanePlace) -> None:
        with self._lock:
            if lane.launching or lane.coming is not None or lane.removed or self.stopping:
                return
            lane.launching, lane.retry_at = True, None
            self._nursery.launch(lambda: self._make(lane), self._on_not_started)

    def _make(self, lane: LanePlace) -> LaneProcess | None:
        with self._lock:
            lane.launching = False
            if lane.removed or self.stopping:
                return None
            generation = next(self._generations)
            try:
                lane.coming = LaneProcess(lane.id, generation, self._hooks, default_oom_kills)
            except OSError as error:  # no file descriptors, no memory
                self._failed(lane, generation, f"Cannot start a process: {error}", start_hint(error))
            return lane.coming

    def _on_not_started(self, process: LaneProcess, error: BaseException, again: bool) -> None:
        with self._lock:
            lane = self._forget(process)
        if lane is None or self.stopping:
            return
        if again:
            self._start_process(lane)
        else:
            self._failed(
                lane,
                process.generation,
                f"Cannot start a process: {type(error).__name__}: {error}",
                start_hint(error),
            )

    def _on_started(self, process: LaneProcess, hello: Hello) -> None:
        if hello.error:
            with self._lock:
                lane = self._forget(process)
                self._nursery.close(process, LEAVE_GRACE)
            if not self._answer(hello) and lane is not None and not self.stopping:
                self._failed(lane, process.generation, hello.error, hello.hint)
            return
        with self._lock:
            lane = self._lanes.get(process.lane)
            if lane is None or lane.coming is not process or self.stopping:
                self._retire(process)
                return
            seconds = time.monotonic() - process.started_at
            self._on_event(LaneReady(process.lane, process.generation, process.pid, seconds))
            lane.current, old = process, lane.current
            lane.coming, lane.failures = None, 0
            if old is not None:
                self._retire(old)
        if self._answer(hello) and hello.why_not:
            _log.warning("nothing is preloaded, every process imports for itself: %s", hello.why_not)

    def _on_died(self, process: LaneProcess, how: str) -> None:
        with self._lock:
            lane, lost = self._forget(process), process.lost
            self._nursery.close(process, LEAVE_GRACE)
            if lane is not None and lost and (pause := self._losses.pause(time.monotonic())):
                lane.retry_at = time.monotonic() + pause
                return
        if lane is None or self.stopping:
            return
        if process.trouble is not None:
            self._start_failed(lane, process, process.trouble)
            return
        if process.ready_at is not None and (process.has_worked or time.monotonic() - process.ready_at > 1.0):
            self._start_process(lane)
            return
        slow = process.ready_at is None and time.monotonic() - process.started_at > self._terms.start_timeout
        error = (
            self._too_slow if slow else f"A lane's process ended while loading {self._terms.target}: {how}"
        )
        hint = _TOO_SLOW if slow else ""
        if not self._answer(Hello([], error, hint, 0.0, False, "")):
            self._failed(lane, process.generation, error, hint)

    def _on_serving(self, flow: str) -> None:
        with self._lock:
            self._start_failures.started(flow)

    def _on_troubled(self, process: LaneProcess, trouble: StartTrouble) -> None:
        """An on_start function failed: the process is replaced, for it may have left anything behind."""
        with self._lock:
            lane = self._forget(process)
            self._retire(process)
        if lane is not None and not self.stopping:
            self._start_failed(lane, process, trouble)

    def _start_failed(self, lane: LanePlace, process: LaneProcess, trouble: StartTrouble) -> None:
        now, flow = time.monotonic(), trouble.flow
        with self._lock:
            delay = self._start_failures.failed(flow, process.started_at, now)
            lane.retry_at = now + delay
            hopeless = self._start_failures.hopeless(flow)
            hopeless = hopeless and not any(other.serves(flow) for other in self.processes())
        fatal = OnStartFailed(trouble.text, hint=HINT) if hopeless else None
        error = trouble.text.partition("\n")[0]
        self._on_event(LaneFailedToStart(lane.id, process.generation, error, HINT, delay, fatal))

    def _answer(self, hello: Hello) -> bool:
        """Tell start() what became of the first process; False if it has been told."""
        with self._lock:
            if self._first.done():
                return False
            self._first.set_result(hello)
            return True

    def _failed(self, lane: LanePlace, generation: int, error: str, hint: str) -> None:
        with self._lock:
            lane.failures += 1
            delay = min(_LAST_RETRY, _FIRST_RETRY * 2 ** (lane.failures - 1))
            lane.retry_at = time.monotonic() + delay
            lanes = self._lanes.values()
            hopeless = all(other.current is None and other.failures >= _TRIES for other in lanes)
        text = f"No process of this worker starts any more. {error}"
        fatal = FlowDefinitionError(text, hint=hint) if hopeless else None
        self._on_event(LaneFailedToStart(lane.id, generation, error, hint, delay, fatal))
        if lane.failures >= 3:
            self._answer(Hello([], error, hint, 0.0, False, ""))

    def _forget(self, process: LaneProcess) -> LanePlace | None:
        """Take a process out of its lane; the lane it was serving or about to serve."""
        with contextlib.suppress(ValueError):
            self._retiring.remove(process)
        lane = self._lanes.get(process.lane)
        if lane is None or process not in (lane.current, lane.coming):
            return None
        if lane.current is process:
            lane.current = None
        if lane.coming is process:
            lane.coming = None
        return lane

    def _retire(self, process: LaneProcess) -> None:
        process.retire()
        if not self.stopped:  # else it is being closed
            self._retiring.append(process)

    def _notice_deaths(self, processes: list[LaneProcess]) -> None:
        watched = {sentinel: process for process in processes if (sentinel := process.sentinel) is not None}
        for dead in wait(list(watched), 0) if watched else ():
            if isinstance(dead, int):
                watched[dead].died()

    def _tend(self, lane: LanePlace, now: float) -> None:
        if self.stopping:
            return
        if lane.retry_at is not None and now >= lane.retry_at:
            self._start_process(lane)
        coming, current = lane.coming, lane.current
        if coming is not None and now - coming.started_at > self._terms.start_timeout:
            coming.kill(KillReason(Cause.STOPPED), 0.0)
        if current is not None and coming is None and current.ready_at is not None:
            old = (
                self._terms.recycle_seconds is not None
                and now - current.ready_at >= self._terms.recycle_seconds
            )
            worn = self._terms.recycle_items is not None and current.finished >= self._terms.recycle_items
            if old or worn:
                self._start_process(lane)
