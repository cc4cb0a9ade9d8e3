"""One process of a lane, from start to end: a ProcessPoolExecutor of one, its shared memory, its chunks."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, Final, TypeVar

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.decoded_pages import PagesSent
from pgflow_mp.executors.endings import Endings
from pgflow_mp.executors.lanes import child
from pgflow_mp.executors.lanes.holding import HeldChunk, Holding
from pgflow_mp.executors.lanes.hooks import Hooks, LaneState, RunningItem
from pgflow_mp.executors.lanes.killing import (
    Killing,
    end_survivors,
    exit_code,
    see_to_its_end,
    told_to_leave,
)
from pgflow_mp.executors.lanes.postmortem import Death, settle
from pgflow_mp.executors.lanes.processes import forget_semaphores, semaphore_names, was_lost
from pgflow_mp.executors.lanes.slots import MAX_ITEMS, SlotFiles, SlotReader
from pgflow_mp.executors.lanes.start_note import Starting
from pgflow_mp.executors.lanes.trees import ProcessTree
from pgflow_mp.executors.messages import AnyChunk, StartTrouble, decode_hello, encode, trouble_in
from pgflow_mp.executors.verdicts import KillReason

ENDING_GRACE: Final = 10.0  # seconds for what on_start functions have to do when their process leaves
Seen = TypeVar("Seen")
_EARLY: Final = 0.3  # seconds without a report after which outcomes of a running chunk are reported


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
        self._state = LaneState()
        self._files = SlotFiles.create()
        self._slot = SlotReader(self._files)
        self._holding = Holding(self._slot)
        self._pages = PagesSent()
        self._reported = self.started_at
        self._process: Any = None
        self._executor: ProcessPoolExecutor | None = None
        self._manager: Any = None
        self._semaphores: set[str] = set()
        self._flows: set[str] = set()
        self.trouble: StartTrouble | None = None
        """That it could not start a flow, or ended while it did."""

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
        return self._holding.room if self.ready and state.killing is None else 0

    @property
    def busy(self) -> int:
        """Chunks it holds."""
        return len(self._holding)

    @property
    def has_worked(self) -> bool:
        """Whether it was ever given a chunk."""
        return self._holding.ordinal > 0

    @property
    def starting(self) -> Starting | None:
        """The on_start function that it runs."""
        return self.look(lambda slot: slot.start_note.read())

    def look(self, at: Callable[[SlotReader], Seen]) -> Seen | None:
        """What ``at`` tells of its shared memory; None once it is gone."""
        with self.lock:
            return None if self._state.closed or self._state.dead else at(self._slot)

    def serves(self, flow: str) -> bool:
        """Whether it has started this flow, and can run its items."""
        with self.lock:
            if self._state.closed or self._state.dead:
                return False
            running = self._holding.running()
            return flow in self._flows or (running is not None and running[0].chunk.flow == flow)

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

    def submit(self, chunk: AnyChunk, timeouts: Sequence[float | None]) -> bool:
        """Hand over a chunk. False if the process cannot take it: then nothing is reported for it."""
        if not 0 < chunk.size <= MAX_ITEMS:
            raise ValueError(f"a chunk holds 1 to {MAX_ITEMS} items, not {chunk.size}")
        smaller, pages = self._pages.without_known(chunk)
        data = encode(smaller)
        with self.lock:
            if self.room <= 0 or self._executor is None:
                return False
            held = self._holding.add(chunk, timeouts)
            executor = self._executor
        # Not under our lock: the executor reports deaths while holding its own.
        try:
            future = executor.submit(child.run_chunk, held.ordinal, data)
        except (BrokenProcessPool, RuntimeError):
            with self.lock:
                return not self._holding.drop(held)
        self._pages = pages
        future.add_done_callback(lambda done: self._on_chunk(held, done))
        return True

    def poll(self) -> None:
        """Report what finished inside chunks that run for long."""
        now = time.monotonic()
        if now < self._reported + _EARLY:
            return
        with self.lock:
            if not self._state.closed:
                self._reported = now
                for held in self._holding:
                    if endings := held.take(self._slot):
                        self._emit(endings, done=False)

    def running(self) -> RunningItem | None:
        """The item it executes now."""
        with self.lock:
            if self._state.closed or self._state.dead:
                return None
            if (running := self._holding.running()) is None:
                return None
            held, found = running
            run, step, limit, index = held.chunk.locate(found.position)
            return RunningItem(
                self.lane,
                self.generation,
                self.pid,
                held.chunk.seq,
                (found.ordinal, found.position),
                run,
                step,
                index,
                held.timeouts[limit],
                (time.monotonic_ns() - found.started_ns) / 1e9,
            )

    def skip_rest(self) -> None:
        """Hand back what has not begun; what runs is finished."""
        with self.lock:
            if not self._state.closed:
                self._holding.skip_rest()

    def relieve(self, after: float) -> bool:
        """Report as not run what waits behind an item that has been running for ``after`` seconds.

        True if something waits that another call may take away: taking takes two.
        """
        with self.lock:
            state = self._state
            if state.closed or state.dead or state.killing is not None:
                return False
            taken, more = self._holding.relieve(after)
            for endings in taken:
                self._emit(endings, done=False)
            return more

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
            if reason.target is not None and not self._holding.is_running(reason.target):
                return False
            self._state.killing = Killing(reason, self.pid, grace)
        return True

    def tick(self, now: float) -> None:
        """Follow up a kill whose grace is over."""
        if self._state.killing is not None and not self._state.closed:
            self._state.killing.follow_up(now, dead=self._state.dead)

    def retire(self) -> None:
        """Take no more chunks."""
        with self.lock:
            self._state.retired = True

    def dismiss(self) -> None:
        """Have it leave by itself; close() waits for that."""
        self.retire()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def close(self, grace: float) -> None:
        """End the process and free everything; it has ``grace`` seconds to leave by itself, if any.

        More if on_start functions have something to do at its end.
        """
        executor, process = self._executor, self._process
        with self.lock:
            self._state.retired = True
            if grace > 0 and not self._state.closed and self._slot.start_note.endings:
                grace = max(grace, ENDING_GRACE)
        if executor is not None:
            executor.shutdown(wait=False)
            if process is not None and not wait([process.sentinel], max(0.0, grace)):
                ProcessTree(self.pid).signal(signal.SIGKILL)
            if self._manager is not None:  # shutdown(wait=False) has forgotten it
                self._manager.join()
        if self.pid:
            end_survivors(self.pid, self._state.killing)
        with self.lock:
            if not self._state.closed:
                self._state.closed = self._state.dead = True
                self._slot.close()
        self._process = self._executor = self._manager = None

    def died(self) -> None:
        """Settle the death of the process: report every chunk it held, once."""
        state = self._state
        ours = state.dead or state.closed or state.killing is not None
        told = not ours and told_to_leave(self._process, self._hooks.leaving)
        with self.lock:
            if state.dead or state.closed:
                return
            state.dead = True
            see_to_its_end(self._process, self.pid)
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

    def _on_chunk(self, held: HeldChunk, done: Future[bytes | None]) -> None:
        if done.cancelled() or isinstance(done.exception(), BrokenProcessPool):
            self.died()
            return
        with self.lock:
            if not self._holding.drop(held):
                return  # reported already, by its process's death
            endings = held.take(self._slot)
            trouble = trouble_in(done.result() or b"") if done.exception() is None else None
            known = self.trouble is not None
            if trouble is None:
                held.give_up(endings, done.exception())
            else:
                endings.add_not_run(held.count, held.end)
                self._state.retired, self.trouble = True, self.trouble or trouble
            self._reported = time.monotonic()
            self._emit(endings, done=True)
        if trouble is not None and not known:
            self._hooks.troubled(self, trouble)
        elif trouble is None and held.chunk.flow not in self._flows:
            self._flows.add(held.chunk.flow)
            self._hooks.serves(held.chunk.flow)

    def _emit(self, endings: Endings, *, done: bool) -> None:
        self._hooks.emit(endings.event(self.lane, self.generation, done=done))

    def _report_death(self, was_told: bool) -> str:
        killing = self._state.killing
        exitcode = exit_code(self._process)
        death = Death(
            self.lane,
            self.generation,
            exitcode,
            lost=self.lost,
            oom_killed=self._oom_kills() > self._oom_before,
            reason=killing.reason if killing is not None else None,
            running=self._slot.running(),
            trace=self._slot.trace(),
            told_to_leave=was_told,
        )
        if (starting := self._slot.start_note.read()) is not None and not (self.lost or was_told):
            self.trouble = verdicts.start_trouble(starting.flow, starting.what, death.reason, exitcode)
        for event in settle(death, self._holding.take_all()):
            self._hooks.emit(event)
        return verdicts.describe_exit(exitcode)
