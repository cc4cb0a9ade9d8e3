"""The lane pool: N lanes, each a process of its own that can be killed and replaced without its neighbours.

The owner calls submit() and poll() (every 20 ms or so) from one thread and receives events, in order per
process, from several: ``on_event`` must be quick, e.g. ``queue.SimpleQueue.put``, and must not call back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.executors.events import LaneEvent
from pgflow_mp.executors.lanes import descriptors
from pgflow_mp.executors.lanes.hooks import RunningItem
from pgflow_mp.executors.lanes.nursery import Nursery
from pgflow_mp.executors.lanes.roster import LEAVE_GRACE, Roster, Terms
from pgflow_mp.executors.lanes.stack_dumps import stacks_of
from pgflow_mp.executors.lanes.start_note import Starting
from pgflow_mp.executors.messages import LOAD_TIMEOUT, AnyChunk, FlowInfo, Setup
from pgflow_mp.executors.stacks import LaneStack
from pgflow_mp.executors.verdicts import KillReason


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
        self.start_timeout = start_timeout
        self.recycle_memory = recycle_memory or (max_memory * 3 // 4 if max_memory else None)
        self.flows: list[FlowInfo] = []
        setup = msgspec.structs.replace(setup, open_files=descriptors.given())
        self._took = False
        self._size = size
        self._nursery = Nursery(setup, preload=preload, start_method=start_method)
        target = ", ".join(setup.target.splitlines())
        terms = Terms(target, start_timeout, recycle_items, recycle_seconds)
        self._roster = Roster(self._nursery, on_event, terms)

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
            hello = self._roster.await_first(self.poll)
            if hello.error:
                raise FlowDefinitionError(hello.error, hint=hello.hint)
        except BaseException:
            self.abort()
            raise
        self.flows = hello.flows
        return self.flows

    def resize(self, size: int) -> None:
        """Add lanes, or let the last ones finish what they hold and go."""
        if size < 1:
            raise ValueError(f"a pool has at least one lane, not {size}")
        self._size = size
        self._roster.resize(size)

    # -- work --------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return self._size

    def rooms(self) -> list[tuple[int, int]]:
        """(lane, chunks it would take now) of all lanes that would take one."""
        if self._roster.stopping:
            return []
        return [(process.lane, room) for process in self._roster.up() if (room := process.room) > 0]

    def room(self, lane: int) -> int:
        """Chunks this lane would take now: 2 when idle, 0 when full, starting or dying."""
        process = self._roster.serving(lane)
        return 0 if process is None or self._roster.stopping else process.room

    @property
    def in_flight(self) -> int:
        """Chunks that lanes hold."""
        return sum(process.busy for process in self._roster.processes())

    def submit(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None] = ()) -> bool:
        """Hand a chunk to a lane; ``timeouts``: seconds per entry of ``chunk.steps``, None for no limit.

        False if the lane cannot take it (full, dead, stopping): nothing will be reported for it.
        ``chunk.seq`` must be unique among the chunks in flight.
        """
        process = self._roster.serving(lane)
        if process is None or self._roster.stopping:
            return False
        return process.submit(chunk, timeouts or [None] * len(chunk.steps))

    def poll(self, now: float | None = None) -> None:
        """Early outcomes of running chunks, deaths of idle lanes, follow-up of kills, recycling, restarts."""
        now = time.monotonic() if now is None else now
        for process in self._roster.processes():
            process.poll()
            process.tick(now)
        self._roster.tend(now)

    def relieve(self, after: float) -> bool:
        """Give other lanes a chance at what waits behind items that run for ``after`` seconds.

        True if there may be more to give soon: call again.
        """
        more = [process.relieve(after) for process in self._roster.processes()]
        return any(more)

    def wake_server(self) -> None:
        """Let the forkserver go on if somebody has stopped it."""
        self._nursery.wake()

    def running(self) -> Iterator[RunningItem]:
        """What every lane executes now."""
        for process in self._roster.processes():
            if (item := process.running()) is not None:
                yield item

    def starting(self) -> dict[tuple[int, int], Starting]:
        """The on_start functions that run now, by lane and generation."""
        found = {(process.lane, process.generation): process.starting for process in self._roster.processes()}
        return {key: starting for key, starting in found.items() if starting is not None}

    def lanes(self, *, retiring: bool = False) -> list[LaneStatus]:
        """The lanes that are up; also processes that finish what they hold before they go, if asked for."""
        return [
            LaneStatus(process.lane, process.generation, process.pid, process.finished, process.busy)
            for process in self._roster.up(retiring=retiring)
        ]

    def stacks(self, wait: float) -> list[LaneStack]:
        """Where the code of every lane is, within ``wait`` seconds. From any thread."""
        return stacks_of(self._roster.processes(), wait)

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
        for process in self._roster.processes():
            if process.lane == lane and generation in (None, process.generation):
                return process.kill(reason, grace)
        return False

    def recycle(self, lane: int, *, generation: int | None = None) -> None:
        """Replace a lane's process, the new one up before the old one goes."""
        self._roster.recycle(lane, generation)

    def skip_rest(self) -> None:
        """Have all items that have not begun handed back; what runs is finished."""
        for process in self._roster.processes():
            process.skip_rest()

    def expect_stop(self) -> None:
        """Charge no item whose process ends by SIGTERM, SIGINT or SIGHUP from here on.

        May be called in a signal handler.
        """
        self._roster.leaving = True

    def quiesce(self) -> None:
        """Take no more chunks, let handlers see ctx.shutdown, have what has not begun handed back."""
        self._roster.stopping = True
        for process in self._roster.processes():
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
        if self._roster.stopped:
            return True
        drained = self.drain(grace)
        self._end(LEAVE_GRACE if drained else 0.0)
        return drained

    def abort(self) -> None:
        """Kill all lanes at once; everything that runs or waits is handed back."""
        if not self._roster.stopped:
            self._roster.stopping = True
            self._end(0.0)

    def _end(self, grace: float) -> None:
        self._roster.end(grace)
        if self._took:
            self._took = descriptors.give()
