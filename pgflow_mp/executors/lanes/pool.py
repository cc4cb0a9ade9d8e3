"""The lane pool: N lanes, each a process of its own that can be killed and replaced without its neighbours.

The owner calls submit() and poll() (every 20 ms or so) from one thread and receives events, in order per
process, from several: ``on_event`` must be quick, e.g. ``queue.SimpleQueue.put``, and must not call back.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Final

import msgspec

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.executors.events import Cause, LaneEvent, LaneFailedToStart, LaneReady
from pgflow_mp.executors.lanes import descriptors
from pgflow_mp.executors.lanes.lane import Hooks, LaneProcess, RunningItem, default_oom_kills
from pgflow_mp.executors.lanes.nursery import Losses, Nursery
from pgflow_mp.executors.messages import LOAD_TIMEOUT, AnyChunk, FlowInfo, Hello, Setup, encode
from pgflow_mp.executors.verdicts import KillReason, start_hint

_log: Final = logging.getLogger("pgflow_mp.lanes")

LEAVE_GRACE: Final = 1.0  # seconds an idle process gets to leave by itself
_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0
_TRIES: Final = 5  # of each lane, before a pool without any other lane is given up
_TOO_SLOW: Final = (
    "Look for slow work at import time, or allow it more: "
    "--load-timeout S, PGFLOW_LOAD_TIMEOUT=S, or load_timeout=S."
)


@dataclass(slots=True)
class _Lane:
    """A place in the pool. ``coming`` is a process that loads its target and takes over once ready."""

    id: int
    current: LaneProcess | None = None
    coming: LaneProcess | None = None
    launching: bool = False
    failures: int = 0
    retry_at: float | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """A lane that is up: items it has ``finished``, chunks it holds."""

    lane: int
    generation: int
    pid: int
    finished: int
    chunks: int


class LanePool:
    """Starts lanes, feeds them, replaces the dead, recycles the grown.

    ``max_memory`` (bytes of a lane's process tree) is enforced by the Watchdog. A lane is recycled once it
    uses ``recycle_memory`` bytes (75 % of max_memory by default), has executed ``recycle_items`` items or is
    ``recycle_seconds`` old; its replacement is up before it goes. ``preload`` names what is imported
    once for all lanes, within ``start_timeout`` seconds like what each imports for itself.
    """

    def __init__(
        self,
        setup: Setup,
        size: int,
        on_event: Callable[[LaneEvent], None],
        *,
        max_memory: int | None = None,
        recycle_memory: int | None = None,
        recycle_items: int | None = None,
        recycle_seconds: float | None = None,
        preload: Sequence[str] = (),
        start_timeout: float = LOAD_TIMEOUT,
        start_method: str | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool has at least one lane, not {size}")
        self.max_memory = max_memory
        self.recycle_memory = recycle_memory or (max_memory * 3 // 4 if max_memory else None)
        self.flows: list[FlowInfo] = []
        setup = msgspec.structs.replace(setup, open_files=descriptors.given())
        self._setup, self._took = setup, False
        self._on_event = on_event
        self._recycle_items = recycle_items
        self._recycle_seconds = recycle_seconds
        self._start_timeout = start_timeout
        self._lock = threading.RLock()
        self._generations = itertools.count(1)
        self._lanes: dict[int, _Lane] = {}
        self._retiring: list[LaneProcess] = []
        self._first: Future[Hello] = Future()
        self._stopping = False
        self._stopped = False
        self._size = size
        self._nursery = Nursery(setup, preload=preload, start_method=start_method)
        self._leaving = False
        self._losses = Losses()
        self._hooks = Hooks(
            on_event, self._on_started, self._on_died, lambda: self._leaving or self._stopping
        )

    def __enter__(self) -> LanePool:
        return self

    def __exit__(self, *_error: object) -> None:
        self.abort()

    # -- start -------------------------------------------------------------------------------------

    def start(self) -> list[FlowInfo]:
        """Start all lanes at once; returns what the target holds as soon as the first lane knows.

        Raises FlowDefinitionError (no such target) or ConfigError (too many lanes), with the pool stopped.
        """
        try:
            self._took = descriptors.take(self._size)
            self.resize(self._size)
            hello = self._await_first()
            if hello.error:
                raise FlowDefinitionError(hello.error, hint=hello.hint)
        except BaseException:
            self.abort()
            raise
        self.flows = hello.flows
        return self.flows

    def _await_first(self) -> Hello:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                return self._first.result(0.05)
            self.poll()
        raise FlowDefinitionError(self._too_slow, hint=_TOO_SLOW)

    def resize(self, size: int) -> None:
        """Add lanes, or let the last ones finish what they hold and go."""
        if size < 1:
            raise ValueError(f"a pool has at least one lane, not {size}")
        with self._lock:
            self._size = size
            for lane in [lane for lane in self._lanes.values() if lane.id >= size]:
                lane.removed = True
                del self._lanes[lane.id]
                for process in (lane.current, lane.coming):
                    if process is not None:
                        self._retire(process)
            for number in range(size):
                if number not in self._lanes:
                    self._lanes[number] = _Lane(number)
                    self._start_process(self._lanes[number])

    # -- work --------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._size

    def rooms(self) -> list[tuple[int, int]]:
        """(lane, chunks it would take now) of all lanes that would take one."""
        found: list[tuple[int, int]] = []
        for lane in list(self._lanes.values()):
            if (process := lane.current) is not None and (room := process.room) > 0:
                found.append((lane.id, room))
        return [] if self._stopping else found

    def room(self, lane: int) -> int:
        """Chunks this lane would take now: 2 when idle, 0 when full, starting or dying."""
        place = self._lanes.get(lane)
        process = place.current if place is not None else None
        return 0 if process is None or self._stopping else process.room

    @property
    def in_flight(self) -> int:
        """Chunks that lanes hold."""
        return sum(process.busy for process in self._processes())

    def submit(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None] = ()) -> bool:
        """Hand a chunk to a lane; ``timeouts``: seconds per entry of ``chunk.steps``, None for no limit.

        False if the lane cannot take it (full, dead, stopping): nothing will be reported for it.
        ``chunk.seq`` must be unique among the chunks in flight.
        """
        place = self._lanes.get(lane)
        process = place.current if place is not None else None
        if process is None or self._stopping:
            return False
        return process.submit(chunk, encode(chunk), timeouts or [None] * len(chunk.steps))

    def poll(self, now: float | None = None) -> None:
        """Early outcomes of running chunks, deaths of idle lanes, follow-up of kills, recycling, restarts."""
        now = time.monotonic() if now is None else now
        processes = self._processes()
        for process in processes:
            process.poll()
            process.tick(now)
        self._notice_deaths(processes)
        with self._lock:
            for process in [process for process in self._retiring if not process.busy]:
                self._retiring.remove(process)
                self._nursery.close(process, LEAVE_GRACE)
            for lane in self._lanes.values():
                self._tend(lane, now)

    def relieve(self, after: float) -> bool:
        """Give other lanes a chance at what waits behind items that run for ``after`` seconds.

        True if there may be more to give soon: call again.
        """
        more = [process.relieve(after) for process in self._processes()]
        return any(more)

    def wake_server(self) -> None:
        """Let the forkserver go on if somebody has stopped it."""
        self._nursery.wake()

    def running(self) -> Iterator[RunningItem]:
        """What every lane executes now."""
        for process in self._processes():
            if (item := process.running()) is not None:
                yield item

    def lanes(self, *, retiring: bool = False) -> list[LaneStatus]:
        """The lanes that are up; also processes that finish what they hold before they go, if asked for."""
        with self._lock:
            found = [lane.current for lane in self._lanes.values() if lane.current is not None]
            found += self._retiring if retiring else []
        return [
            LaneStatus(process.lane, process.generation, process.pid, process.finished, process.busy)
            for process in found
        ]

    @property
    def server_pid(self) -> int | None:
        """The forkserver's process id."""
        return self._nursery.server_pid

    # -- the end of processes ----------------------------------------------------------------------

    def kill(
        self, lane: int, reason: KillReason, *, generation: int | None = None, grace: float = 0.5
    ) -> bool:
        """TERM a lane's process tree now, KILL it after ``grace`` seconds; it is replaced when it is dead.

        With ``reason.target`` only if that item still runs, with ``generation`` only that process.
        """
        for process in self._processes():
            if process.lane == lane and generation in (None, process.generation):
                return process.kill(reason, grace)
        return False

    def recycle(self, lane: int, *, generation: int | None = None) -> None:
        """Replace a lane's process, the new one up before the old one goes."""
        with self._lock:
            place = self._lanes.get(lane)
            process = place.current if place is not None else None
            if place is not None and process is not None and generation in (None, process.generation):
                self._start_process(place)

    def skip_rest(self) -> None:
        """Have all items that have not begun handed back; what runs is finished."""
        for process in self._processes():
            process.skip_rest()

    def expect_stop(self) -> None:
        """Charge no item whose process ends by SIGTERM, SIGINT or SIGHUP from here on.

        May be called in a signal handler.
        """
        self._leaving = True

    def quiesce(self) -> None:
        """Take no more chunks, let handlers see ctx.shutdown, have what has not begun handed back."""
        self._stopping = True
        for process in self._processes():
            process.announce_shutdown()
            process.skip_rest()

    def drain(self, timeout: float) -> bool:
        """quiesce(), then wait up to ``timeout`` seconds for what runs: True if all of it ended in time."""
        self.quiesce()
        deadline = time.monotonic() + timeout
        while self.in_flight and time.monotonic() < deadline:
            self.poll()
            time.sleep(0.01)
        return not self.in_flight

    def stop(self, grace: float) -> bool:
        """Drain for up to ``grace`` seconds, kill what still runs (it is handed back), end everything.

        True if nothing had to be killed. No event comes after it returns. May be called twice.
        """
        if self._stopped:
            return True
        drained = self.drain(grace)
        self._end(LEAVE_GRACE if drained else 0.0)
        return drained

    def abort(self) -> None:
        """Kill all lanes at once; everything that runs or waits is handed back."""
        if not self._stopped:
            self._stopping = True
            self._end(0.0)

    def _end(self, grace: float) -> None:
        self._stopped = True
        for process in self._processes():
            if process.busy or not process.ready:
                process.kill(KillReason(Cause.STOPPED), 0.0)
        self._nursery.finish_launching(stuck=not self._first.done())
        with self._lock:
            processes = self._processes()
            self._lanes.clear()
            self._retiring.clear()
        for process in processes:
            if not process.ready:
                process.kill(KillReason(Cause.STOPPED), 0.0)
            self._nursery.close(process, grace)
        self._nursery.stop()
        if self._took:
            self._took = descriptors.give()

    # -- internals ---------------------------------------------------------------------------------

    @property
    def _target(self) -> str:
        return ", ".join(self._setup.target.splitlines())

    @property
    def _too_slow(self) -> str:
        return f"Loading {self._target} took longer than {self._start_timeout:g} s"

    def _processes(self) -> list[LaneProcess]:
        with self._lock:
            found = [p for lane in self._lanes.values() for p in (lane.current, lane.coming) if p is not None]
            return found + self._retiring

    def _start_process(self, lane: _Lane) -> None:
        with self._lock:
            if lane.launching or lane.coming is not None or lane.removed or self._stopping:
                return
            lane.launching, lane.retry_at = True, None
            self._nursery.launch(lambda: self._make(lane), self._on_not_started)

    def _make(self, lane: _Lane) -> LaneProcess | None:
        with self._lock:
            lane.launching = False
            if lane.removed or self._stopping:
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
        if lane is None or self._stopping:
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
            if not self._answer(hello) and lane is not None and not self._stopping:
                self._failed(lane, process.generation, hello.error, hello.hint)
            return
        with self._lock:
            lane = self._lanes.get(process.lane)
            if lane is None or lane.coming is not process or self._stopping:
                self._retire(process)
                return
            seconds = time.monotonic() - process.started_at
            self._on_event(LaneReady(process.lane, process.generation, process.pid, seconds))
            lane.current, old = process, lane.current
            lane.coming, lane.failures = None, 0
            if old is not None:
                self._retire(old)
        if self._answer(hello) and hello.why_not:
            _log.warning("Nothing is preloaded, every process imports for itself: %s", hello.why_not)

    def _on_died(self, process: LaneProcess, how: str) -> None:
        with self._lock:
            lane, lost = self._forget(process), process.lost
            self._nursery.close(process, LEAVE_GRACE)
            if lane is not None and lost and (pause := self._losses.pause(time.monotonic())):
                lane.retry_at = time.monotonic() + pause
                return
        if lane is None or self._stopping:
            return
        if process.ready_at is not None and (process.has_worked or time.monotonic() - process.ready_at > 1.0):
            self._start_process(lane)
            return
        slow = process.ready_at is None and time.monotonic() - process.started_at > self._start_timeout
        error = self._too_slow if slow else f"A lane's process ended while loading {self._target}: {how}"
        hint = _TOO_SLOW if slow else ""
        if not self._answer(Hello([], error, hint, 0.0, False, "")):
            self._failed(lane, process.generation, error, hint)

    def _answer(self, hello: Hello) -> bool:
        """Tell start() what became of the first process; False if it has been told."""
        with self._lock:
            if self._first.done():
                return False
            self._first.set_result(hello)
            return True

    def _failed(self, lane: _Lane, generation: int, error: str, hint: str) -> None:
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

    def _forget(self, process: LaneProcess) -> _Lane | None:
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
        if not self._stopped:  # else it is being closed
            self._retiring.append(process)

    def _notice_deaths(self, processes: list[LaneProcess]) -> None:
        watched = {sentinel: process for process in processes if (sentinel := process.sentinel) is not None}
        for dead in wait(list(watched), 0) if watched else ():
            if isinstance(dead, int):
                watched[dead].died()

    def _tend(self, lane: _Lane, now: float) -> None:
        if self._stopping:
            return
        if lane.retry_at is not None and now >= lane.retry_at:
            self._start_process(lane)
        coming, current = lane.coming, lane.current
        if coming is not None and now - coming.started_at > self._start_timeout:
            coming.kill(KillReason(Cause.STOPPED), 0.0)
        if current is not None and coming is None and current.ready_at is not None:
            old = self._recycle_seconds is not None and now - current.ready_at >= self._recycle_seconds
            worn = self._recycle_items is not None and current.finished >= self._recycle_items
            if old or worn:
                self._start_process(lane)
