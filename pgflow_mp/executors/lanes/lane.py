"""One process of a lane, from start to end: a ProcessPoolExecutor of one, its shared memory, its chunks."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, Final

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.endings import Endings, endings_of
from pgflow_mp.executors.events import LaneEvent
from pgflow_mp.executors.lanes import child, memory
from pgflow_mp.executors.lanes.postmortem import Death, HeldChunk, settle
from pgflow_mp.executors.lanes.processes import forget_semaphores, semaphore_names, was_lost
from pgflow_mp.executors.lanes.slots import MAX_ITEMS, SlotFiles, SlotReader
from pgflow_mp.executors.lanes.trees import ProcessTree, signal_group
from pgflow_mp.executors.messages import AnyChunk, Hello, Kind, Outcome, decode_hello
from pgflow_mp.executors.protocol import IN_FLIGHT
from pgflow_mp.executors.verdicts import KillReason

_IN_SIGHT: Final = 0.02  # seconds in which a store of ours has surely reached the child
_EARLY: Final = 0.3  # seconds without a report after which outcomes of a running chunk are reported
_HEARSAY: Final = 0.15  # seconds between signals that a process manager sends to all of us at once


@dataclass(frozen=True, slots=True)
class RunningItem:
    """What a lane is executing: ``timeout`` and ``elapsed`` in seconds, ``target`` for a KillReason."""

    lane: int
    generation: int
    pid: int
    seq: int
    target: tuple[int, int]
    run: str
    step: str
    index: int
    timeout: float | None
    elapsed: float


@dataclass(slots=True)
class _Killing:
    reason: KillReason
    tree: ProcessTree
    deadline: float


@dataclass(frozen=True, slots=True)
class _Relief:
    """The process was asked at ``since``, in ``target``, to begin nothing of its chunks up to ``ordinal``."""

    target: tuple[int, int]
    ordinal: int
    since: float


@dataclass(slots=True)
class Hooks:
    """What a process calls: ``emit`` with its lock held, the others without.

    ``leaving`` says whether the pool, or the worker that it belongs to, is being stopped.
    """

    emit: Callable[[LaneEvent], None]
    started: Callable[[LaneProcess, Hello], None]
    died: Callable[[LaneProcess, str], None]
    leaving: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _State:
    ready: bool = False
    retired: bool = False
    dead: bool = False
    closed: bool = False
    ordinal: int = 0
    flights: dict[int, HeldChunk] = field(default_factory=dict)
    killing: _Killing | None = None
    relief: _Relief | None = None


class LaneProcess:
    """One generation of a lane. Thread-safe; its events come in order."""

    def __init__(self, lane: int, generation: int, hooks: Hooks, oom_kills: Callable[[], int]) -> None:
        self.lane = lane
        self.generation = generation
        self.pid = 0
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.lock = threading.RLock()
        self._hooks = hooks
        self._oom_kills = oom_kills
        self._oom_before = oom_kills()
        self._state = _State()
        self._files = SlotFiles.create()
        self._slot = SlotReader(self._files)
        self._reported = self.started_at
        self._process: Any = None
        self._executor: ProcessPoolExecutor | None = None
        self._manager: Any = None
        self._semaphores: set[str] = set()

    def launch(self, context: BaseContext, setup: bytes) -> None:
        """Start the process; takes milliseconds, or as long as the forkserver takes to load the target."""
        self._executor = ProcessPoolExecutor(
            1, mp_context=context, initializer=child.begin, initargs=(setup, self._files)
        )
        self._semaphores = semaphore_names(self._executor)
        first = self._executor.submit(child.hello)
        with self.lock:
            self._process = next(iter(self._executor._processes.values()), None)
            self.pid = self._process.pid if self._process is not None else 0
            self._manager = self._executor._executor_manager_thread
        first.add_done_callback(self._on_hello)

    # -- state -------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        state = self._state
        return state.ready and not (state.dead or state.retired)

    @property
    def lost(self) -> bool:
        """Whether it ended with the forkserver."""
        return self._process is not None and was_lost(self._process)

    @property
    def dead(self) -> bool:
        return self._state.dead

    @property
    def room(self) -> int:
        """Chunks it would take now."""
        state = self._state
        return IN_FLIGHT - len(state.flights) if self.ready and state.killing is None else 0

    @property
    def busy(self) -> int:
        """Chunks it holds."""
        return len(self._state.flights)

    @property
    def has_worked(self) -> bool:
        """Whether it was ever given a chunk."""
        return self._state.ordinal > 0

    @property
    def finished(self) -> int:
        """Items it has executed."""
        with self.lock:
            return 0 if self._state.closed else self._slot.finished

    @property
    def sentinel(self) -> int | None:
        """Readable once the process is dead; None while there is none to watch."""
        if self._process is None or self._state.dead or self._state.closed:
            return None
        sentinel: int = self._process.sentinel
        return sentinel

    # -- work --------------------------------------------------------------------------------------

    def submit(self, chunk: AnyChunk, data: bytes, timeouts: Sequence[float | None]) -> bool:
        """Hand over a chunk. False if the process cannot take it: then nothing is reported for it."""
        if not 0 < chunk.size <= MAX_ITEMS:
            raise ValueError(f"a chunk holds 1 to {MAX_ITEMS} items, not {chunk.size}")
        with self.lock:
            if self.room <= 0 or self._executor is None:
                return False
            self._state.ordinal += 1
            flight = HeldChunk(self._state.ordinal, chunk, timeouts)
            self._state.flights[flight.ordinal] = flight
            executor = self._executor
        # Not under our lock: the executor reports deaths while holding its own.
        try:
            future = executor.submit(child.run_chunk, flight.ordinal, data)
        except (BrokenProcessPool, RuntimeError):
            with self.lock:
                return self._state.flights.pop(flight.ordinal, None) is None
        future.add_done_callback(lambda done: self._on_chunk(flight, done))
        return True

    def poll(self) -> None:
        """Report what finished inside chunks that run for long."""
        now = time.monotonic()
        if now < self._reported + _EARLY:
            return
        with self.lock:
            if not self._state.closed:
                self._reported = now
                for flight in list(self._state.flights.values()):
                    if endings := flight.take(self._slot):
                        self._emit(endings, done=False)

    def running(self) -> RunningItem | None:
        """The item it executes now."""
        with self.lock:
            if self._state.closed or self._state.dead:
                return None
            found = self._slot.running()
            flight = self._state.flights.get(found.ordinal) if found is not None else None
            if found is None or flight is None:
                return None
            run, step, limit, index = flight.chunk.locate(found.position)
            return RunningItem(
                self.lane,
                self.generation,
                self.pid,
                flight.chunk.seq,
                (found.ordinal, found.position),
                run,
                step,
                index,
                flight.timeouts[limit],
                (time.monotonic_ns() - found.started_ns) / 1e9,
            )

    def skip_rest(self) -> None:
        """Hand back what has not begun; what runs is finished."""
        with self.lock:
            if not self._state.closed:
                self._slot.skip(self._state.ordinal)

    def relieve(self, after: float) -> bool:
        """Report as not run what waits behind an item that has been running for ``after`` seconds.

        True if something waits that another call may take away. Taking takes two calls. The first asks the
        process to begin nothing more of what it holds. A process announces an item before it looks for such
        a request; so if the second call, some time later, finds it in the same item, it will not begin
        another.
        """
        with self.lock:
            state, now = self._state, time.monotonic()
            if state.closed or state.dead or state.killing is not None:
                return False
            found = self._slot.running()
            if found is None:
                return bool(state.flights)
            target, relief = (found.ordinal, found.position), state.relief
            behind = {
                flight.ordinal: found.position + found.width if flight.ordinal == found.ordinal else 0
                for flight in state.flights.values()
            }
            if not any(flight.end > behind[flight.ordinal] for flight in state.flights.values()):
                return False
            if now - found.started_ns / 1e9 < after:
                return True
            if relief is None or relief.target != target or relief.ordinal != state.ordinal:
                self._slot.skip(state.ordinal)
                state.relief = _Relief(target, state.ordinal, now)
            elif now - relief.since >= _IN_SIGHT:
                for flight in state.flights.values():
                    self._take_away(flight, behind[flight.ordinal])
                return False
            return True

    def _take_away(self, flight: HeldChunk, first: int) -> None:
        """Report a chunk's items from ``first`` on as not run; what its process says of them is ignored."""
        if first < flight.end:
            endings = endings_of(flight.chunk)
            endings.add_not_run(first, flight.end)
            flight.end = first
            self._emit(endings, done=False)

    def announce_shutdown(self) -> None:
        """Let handlers see it in ctx.shutdown."""
        with self.lock:
            if not self._state.closed:
                self._slot.shut_down()

    # -- the end -----------------------------------------------------------------------------------

    def kill(self, reason: KillReason, grace: float) -> bool:
        """TERM to the process tree now, KILL after ``grace`` seconds (by tick). False if it is dying."""
        with self.lock:
            if self._state.dead or self._state.killing is not None or not self.pid:
                return False
            if reason.target is not None and not self._still(reason.target):
                return False
            tree = ProcessTree(self.pid)
            self._state.killing = _Killing(reason, tree, time.monotonic() + grace)
            if grace > 0:
                tree.terminate()
            else:
                tree.signal(signal.SIGKILL)
        return True

    def tick(self, now: float) -> None:
        """Follow up a kill whose grace is over; notice a death that no chunk will report."""
        killing = self._state.killing
        if killing is not None and now >= killing.deadline and not self._state.closed:
            killing.tree.signal(signal.SIGKILL)
            if not self._state.dead and self.pid:
                ProcessTree(self.pid).signal(signal.SIGKILL)  # what it started meanwhile
            killing.deadline = now + 1.0

    def retire(self) -> None:
        """Take no more chunks."""
        with self.lock:
            self._state.retired = True

    def close(self, grace: float) -> None:
        """End the process (waits up to ``grace`` seconds for it to leave by itself) and free everything."""
        executor, process = self._executor, self._process
        with self.lock:
            self._state.retired = True
        if executor is not None:
            executor.shutdown(wait=False)
            if process is not None and not wait([process.sentinel], max(0.0, grace)):
                ProcessTree(self.pid).signal(signal.SIGKILL)
            if self._manager is not None:  # shutdown(wait=False) has forgotten it
                self._manager.join()
        if self.pid:
            self._end_survivors()
        with self.lock:
            if not self._state.closed:
                self._state.closed = self._state.dead = True
                self._slot.close()
        self._process = self._executor = self._manager = None

    def _end_survivors(self) -> None:
        """Kill what the process left behind, after the grace of a kill that is under way."""
        killing = self._state.killing
        while killing is not None and killing.tree.alive() and time.monotonic() < killing.deadline:
            time.sleep(0.02)
        if killing is not None:
            killing.tree.signal(signal.SIGKILL)
        signal_group(self.pid, signal.SIGKILL)

    def died(self) -> None:
        """Settle the death of the process: report every chunk it held, once."""
        told = self._told_to_leave()
        with self.lock:
            state = self._state
            if state.dead or state.closed:
                return
            state.dead = True
            process = self._process
            if process is not None and not wait([process.sentinel], 0.2):
                ProcessTree(self.pid).signal(signal.SIGKILL)  # alive, but its pipe is closed or broken
                wait([process.sentinel], 5.0)
            how = self._report_death(told)
        self._hooks.died(self, how)

    # -- internals ---------------------------------------------------------------------------------

    def _on_hello(self, done: Future[bytes]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.died()
            return
        hello = decode_hello(done.result())
        forget_semaphores(self._semaphores)
        with self.lock:
            self._state.ready = not hello.error
            self.ready_at = time.monotonic()
        self._hooks.started(self, hello)

    def _on_chunk(self, flight: HeldChunk, done: Future[None]) -> None:
        if done.cancelled() or isinstance(done.exception(), BrokenProcessPool):
            self.died()
            return
        with self.lock:
            if self._state.flights.pop(flight.ordinal, None) is None:
                return  # reported already, by its process's death
            endings = flight.take(self._slot)
            if flight.count < flight.end:
                self._miss(flight, endings, done.exception())
            self._reported = time.monotonic()
            self._emit(endings, done=True)

    def _miss(self, flight: HeldChunk, endings: Endings, error: BaseException | None) -> None:
        """A chunk that ended without all its outcomes: a fault of ours or of the handler's tampering."""
        first = flight.count
        _, step, _, index = flight.chunk.locate(first)
        name = verdicts.task_name(step, index)
        text = f"InternalError: the lane ended its chunk before {name} had an outcome ({error!r})"
        endings.add(Outcome(first, Kind.FAILED, text.encode("utf-8", "backslashreplace"), 0.0))
        endings.add_not_run(first + 1, flight.end)

    def _emit(self, endings: Endings, *, done: bool) -> None:
        self._hooks.emit(endings.event(self.lane, self.generation, done=done))

    def _still(self, target: tuple[int, int]) -> bool:
        found = self._slot.running()
        return found is not None and (found.ordinal, found.position) == target

    def _told_to_leave(self) -> bool:
        """Whether a process manager ended this process on its way to end us: we may be about to hear."""
        state = self._state
        if state.dead or state.closed or state.killing is not None:
            return False
        if self._process is None or not wait([self._process.sentinel], 0):
            return False
        if not verdicts.by_process_manager(self._exitcode()):
            return False
        until = time.monotonic() + _HEARSAY
        while not (leaving := self._hooks.leaving()) and time.monotonic() < until:
            time.sleep(0.01)
        return leaving

    def _exitcode(self) -> int | None:
        """How the dead process ended; another thread may be collecting it at this very moment."""
        code: int | None = None
        until = time.monotonic() + 1.0
        while self._process is not None and code is None and time.monotonic() < until:
            if (code := self._process.exitcode) is None:
                time.sleep(0.001)
        return code

    def _report_death(self, told_to_leave: bool) -> str:
        state, killing = self._state, self._state.killing
        exitcode = self._exitcode()
        death = Death(
            self.lane,
            self.generation,
            exitcode,
            lost=self.lost,
            oom_killed=self._oom_kills() > self._oom_before,
            reason=killing.reason if killing is not None else None,
            running=self._slot.running(),
            trace=self._slot.trace(),
            told_to_leave=told_to_leave,
        )
        flights = [(flight, flight.take(self._slot)) for flight in state.flights.values()]
        state.flights.clear()
        for event in settle(death, flights):
            self._hooks.emit(event)
        return verdicts.describe_exit(exitcode)


def default_oom_kills() -> int:
    """memory.oom_kills(), 0 where it cannot be read."""
    with contextlib.suppress(OSError):
        return memory.oom_kills()
    return 0
