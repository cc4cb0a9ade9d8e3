"""Chunks run in the places of an engine that calls functions: a pool of the standard library, Dask, Ray, MPI.

Nothing is said of a chunk before its call has ended. Where a process dies its chunk runs once more; where it
dies again, or all of the engine with it, the item that is to blame is cornered: parts run again, in halves,
alone where neighbours can be taken along, until the culprit is by itself; that one is charged with a crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Final

from pgflow_mp.errors import OnStartFailed
from pgflow_mp.executors import code_identity, events, remote, verdicts
from pgflow_mp.executors.call_engines import CallEngine, CallFault
from pgflow_mp.executors.chunk_flights import FlightPart, Flights
from pgflow_mp.executors.endings import Endings, endings_of
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.greeting import greet
from pgflow_mp.executors.messages import (
    LOAD_TIMEOUT,
    AnyChunk,
    FlowInfo,
    Remark,
    RunLimits,
    Setup,
    StartTrouble,
    decode_remark,
    encode,
    trouble_in,
)
from pgflow_mp.executors.protocol import Abilities, OnEvent
from pgflow_mp.executors.start_failures import HINT, StartFailures

_LAST_WAIT: Final = 0.02
_MOST_HOSTS: Final = 5  # machines that an item may lose before it is taken for the reason
_AGAIN: Final = "Give a function that makes the executor: then it is made anew, and the culprit found."
_RESUME: Final = "What ran was handed back: start it again, then run --resume goes on where it was."

_Answer = tuple[bytes, bytes]


class FuturesExecutor:
    """``Executor`` over an CallEngine; ``most``: lanes that are used at most (None: all)."""

    paused: Final = False

    def __init__(
        self,
        setup: Setup,
        on_event: OnEvent,
        engine: CallEngine,
        *,
        most: int | None = None,
        max_memory: int | None = None,
        load_timeout: float = LOAD_TIMEOUT,
    ) -> None:
        self._engine = engine
        self._most = most
        self._max_memory = max_memory
        self._orders = setup
        self._on_event = on_event
        self._load_timeout = load_timeout
        self._flights = Flights()
        self._lock = self._flights.lock
        self._start_failures = StartFailures()
        self._last_capacity = 1
        self._retry_at = 0.0
        self._running: dict[Future[_Answer], FlightPart] = {}
        self._closed = False  # takes nothing more
        self._lost = False
        self._stopped = False  # reports nothing more
        self._stopping = threading.Event()
        self._setup = b""
        self._use(encode(setup))

    # -- start -------------------------------------------------------------------------------------

    def start(self) -> list[FlowInfo]:
        """Load the target in one of the engine's places. Raises PgflowError if that fails."""
        began = time.monotonic()
        try:
            self._engine.open(self._say, self._load_timeout)
            flows, orders = greet(self._engine, self._orders, self._load_timeout)
            self._use(encode(orders))
        except BaseException:
            self.abort()
            raise
        self._on_event(events.LaneReady(0, 0, 0, time.monotonic() - began))
        return flows

    # -- work --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def abilities(self) -> Abilities:
        return self._engine.abilities

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def capacity(self) -> int:
        if not self._stopped and (lanes := self._lanes()):
            self._last_capacity = lanes
        return self._last_capacity

    def rooms(self) -> list[tuple[int, int]]:
        lanes = self._lanes()
        with self._lock:
            if not self._takes_more():
                return []
            return self._flights.rooms(lanes)

    def submit(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None] = ()) -> bool:
        with self._lock:
            if not self._takes_more() or not 0 <= lane < self._lanes():
                return False
            part = self._flights.take(lane, chunk, timeouts)
        if part is None:
            return False
        self._send(part)
        return True

    def tick(self, now: float) -> None:
        """Send again what was lost, go on with the search for a culprit, look whether the engine is there."""
        with self._lock:
            parts = [] if self._closed else self._flights.next_ones(busy=bool(self._running))
        for part in parts:
            self._send(part)
        if not self._lost and (trouble := self._engine.trouble()):
            self._lose(trouble, _RESUME)
        elif self._closed and not self._engine.places:  # nobody is there to end it
            self._not_run(*self._flights.parts())

    def relieve(self, after: float) -> bool:
        return False

    def cancel(self, unwanted: Callable[[int, int], bool]) -> None:
        """End, or take back before it begins, what is unwanted as a whole."""
        with self._lock:
            running = list(self._running.items())
        for future, part in running:
            seq = part.flight.chunk.seq
            if all(unwanted(seq, position) for position in range(part.first, part.end)):
                if self.abilities.kill:
                    self._engine.end(future, self._setup, seq)
                elif self._engine.cancels:
                    future.cancel()

    # -- stop --------------------------------------------------------------------------------------

    def expect_stop(self) -> None:
        """Nothing is charged here."""

    def quiesce(self) -> None:
        with self._lock:
            if self._closed and self._stopping.is_set():
                return
            self._closed = True
            self._stopping.set()
            waiting = list(self._running)
            kept = [*self._flights.again, *self._flights.suspects]
            self._flights.again.clear()
            self._flights.suspects.clear()
        if self._engine.cancels:
            for future in waiting:
                future.cancel()
        self._engine.tell_all(remote.stop, self._setup)
        self._not_run(*kept)

    def stop(self, grace: float) -> bool:
        self.quiesce()
        deadline = time.monotonic() + grace
        while self._flights and time.monotonic() < deadline:
            self.tick(time.monotonic())
            time.sleep(_LAST_WAIT)
        drained = not self._flights
        self.abort()
        return drained

    def abort(self) -> None:
        if self._stopped:
            return
        self.quiesce()
        with self._lock:
            left = [(future, part.flight.chunk.seq) for future, part in self._running.items()]
        self._not_run(*self._flights.parts())
        self._stopped = True
        for future, seq in left if self.abilities.kill else ():
            self._engine.end(future, self._setup, seq)
        self._engine.tell_all(remote.forget, self._setup)
        remote.forget(self._setup)
        self._engine.close()

    # -- internals ---------------------------------------------------------------------------------

    def _use(self, setup: bytes) -> None:
        """These are the orders that go along with chunks; where this process runs any, it sees the stop."""
        remote.stopping.pop(self._setup, None)
        self._setup = setup
        remote.stopping[setup] = self._stopping

    def _say(self, level: str, text: str) -> None:
        self._on_event(
            events.ExecutorSaid("warn" if level == "warn" else "info", f"executor {self.name}: {text}")
        )

    def _lanes(self) -> int:
        places = self._engine.places
        return places if self._most is None else min(places, self._most)

    def _takes_more(self) -> bool:
        if time.monotonic() < self._retry_at:  # an on_start function has failed
            return False
        return not (
            self._closed or self._flights.suspects or any(part.alone for part in self._running.values())
        )

    def _send(self, part: FlightPart) -> None:
        began, generation, limits = time.monotonic(), self._engine.generation, b""
        if self.abilities.kill:
            limits = encode(RunLimits(list(part.flight.timeouts), self._max_memory, self._engine.leave))
        try:
            future = self._engine.submit(remote.run_chunk, self._setup, encode(part.chunk), limits)
        except Exception as error:  # noqa: BLE001 - broken, shut down, or whatever an engine raises
            self._failed(part, error, generation, begun=False)
            return
        with self._lock:
            self._running[future] = part
        future.add_done_callback(lambda done: self._on_done(done, generation, began))

    def _on_done(self, done: Future[_Answer], generation: int, began: float) -> None:
        with self._lock:
            part = self._running.pop(done)
        error = CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self._failed(part, error, generation)
            return
        answer, noted = done.result()
        remark = decode_remark(noted) if noted else None
        if remark is not None and remark.refused:
            self._lose(remark.refused, code_identity.HINT)
        elif remark is not None and remark.given_up is None:
            self._retry(part)  # its process is about to be ended
        elif (trouble := trouble_in(answer)) is not None:
            self._not_started(part, trouble, began)
        else:
            self._start_failures.started(part.flight.chunk.flow)
            endings = endings_of(part.flight.chunk)
            endings.read_answer(answer, part.first, part.size)
            if remark is not None:
                self._gave_up(part, remark)
            self._report(part, endings)

    def _gave_up(self, part: FlightPart, remark: Remark) -> None:
        """Its process ran something over its limits, or that nobody wants, and is of no use any more."""
        position, count = remark.given_up or (0, 0)
        cause, seq = Cause(remark.cause), part.flight.chunk.seq
        several = (part.first + position, count) if count > 1 and cause is not Cause.CANCELLED else None
        with self._lock:
            if not self._stopped and part in part.flight.parts:
                lane = part.flight.lane
                self._on_event(events.LaneDied(lane, 0, cause, "given up", seq, None, "", suspects=several))
        if self._engine.leave is None:
            self._engine.replace(remark.address)

    def _failed(self, part: FlightPart, error: BaseException, generation: int, begun: bool = True) -> None:
        """Its place ended, or the engine has: whose fault it was is to be found out."""
        fault = self._engine.fault(error)
        if self._closed or fault is CallFault.WITHDRAWN:
            self._not_run(part)
        elif fault is CallFault.CODE:
            self._lose(f"{type(error).__name__}: {error}", code_identity.HINT)
        elif fault is CallFault.ENGINE and not self._renewed(generation):
            self._lose(f"{type(error).__name__}: {error}", _RESUME if self._engine.far else _AGAIN)
        elif (fault is CallFault.HOST or not begun) and part.hosts < _MOST_HOSTS:
            self._retry(part, hosts=1)
        elif fault is not CallFault.ENGINE and not (part.losses or part.alone or self._engine.repeats):
            self._retry(part, losses=1)
        elif part.size == 1 and (part.alone or self._engine.isolates):
            self._charge(part, error)
        else:
            with self._lock:
                self._flights.suspect(part, self._engine.isolates)

    def _not_started(self, part: FlightPart, trouble: StartTrouble, began: float) -> None:
        """Handed back, for another try some time later; for good after some rounds."""
        now = time.monotonic()
        with self._lock:
            delay = self._start_failures.failed(trouble.flow, began, now)
            self._retry_at = now + delay
            if hopeless := self._start_failures.hopeless(trouble.flow):
                hopeless, self._closed, self._lost = not self._lost, True, True
        self._not_run(part)
        error = trouble.text.partition("\n")[0]
        lane = part.flight.lane
        fatal = OnStartFailed(trouble.text, hint=HINT) if hopeless else None
        self._on_event(events.LaneFailedToStart(lane, 0, error, HINT, delay, fatal))

    def _renewed(self, generation: int) -> bool:
        try:
            return self._engine.renew(generation)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            self._lose(f"{type(error).__name__}: {error}", _AGAIN)
            return False

    def _lose(self, why: str, hint: str) -> None:
        with self._lock:
            self._closed, lost, self._lost = True, self._lost, True
        if not lost:
            self._on_event(events.ExecutorLost(f"Executor {self.name} is broken: {why}", hint))
        self._not_run(*self._flights.parts())

    def _retry(self, part: FlightPart, *, losses: int = 0, hosts: int = 0) -> None:
        """Have it run once more."""
        with self._lock:
            if self._closed:
                self._not_run(part)
            else:
                self._flights.retry(part, losses, hosts)

    def _charge(self, part: FlightPart, error: BaseException) -> None:
        flight, seq = part.flight, part.flight.chunk.seq
        how, outcome = verdicts.crashed(flight.chunk, part.first, error)
        with self._lock:
            if not self._stopped and part in flight.parts:
                self._on_event(events.LaneDied(flight.lane, 0, Cause.CRASH, how, seq, outcome, ""))
                self._report(part, endings_of(flight.chunk))

    def _report(self, part: FlightPart, endings: Endings) -> None:
        flight = part.flight
        with self._lock:
            if self._stopped or part not in flight.parts:
                return
            done = self._flights.settle(part)
            self._on_event(endings.event(flight.lane, 0, done=done))

    def _not_run(self, *parts: FlightPart) -> None:
        for part in parts:
            endings = endings_of(part.flight.chunk)
            endings.add_not_run(part.first, part.end)
            self._report(part, endings)
