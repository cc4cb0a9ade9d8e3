"""Any ``concurrent.futures.Executor`` in the place of lanes: its threads or processes run the chunks.

It is the caller's: it is neither shut down nor killed by us, so a time limit cannot be enforced, and what
runs at a stop runs to its end unseen. Where a *function that makes* one is given, one that breaks is made
anew, and the item that broke it is cornered: what was in flight runs again alone, in halves, until the
culprit is by itself; that one is charged with a crash.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures import Executor as Pool
from typing import Final, TypeVar

from pgflow_mp.errors import ConfigError, OnStartFailed, PgflowError
from pgflow_mp.executors import remote, verdicts
from pgflow_mp.executors.chunk_flights import ChunkFlight, FlightPart
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.endings import Endings, endings_of
from pgflow_mp.executors.events import Cause, ExecutorLost, LaneDied, LaneFailedToStart, LaneReady
from pgflow_mp.executors.messages import (
    LOAD_TIMEOUT,
    AnyChunk,
    FlowInfo,
    Setup,
    StartTrouble,
    decode_hello,
    encode,
    trouble_in,
)
from pgflow_mp.executors.protocol import IN_FLIGHT, Abilities, ExecutorFactory, Limits, OnEvent
from pgflow_mp.executors.start_failures import HINT, StartFailures

T = TypeVar("T")

_LAST_WAIT: Final = 0.02


class InlinePool(Pool):
    """Runs what is submitted at once, in the calling thread."""

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        """Run ``fn`` and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as the futures of the standard library do
            future.set_exception(error)
        return future


class FuturesExecutor:
    """``Executor`` over a pool of the standard library's interface. ``again`` makes another one."""

    abilities: Final = Abilities()
    paused: Final = False

    def __init__(
        self,
        setup: Setup,
        on_event: OnEvent,
        pool: Pool,
        capacity: int,
        *,
        again: Callable[[], Pool] | None = None,
        name: str | None = None,
        load_timeout: float = LOAD_TIMEOUT,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"an executor needs at least one lane, not {capacity}")
        self.name = name or type(pool).__name__
        self.capacity = capacity
        self._setup = encode(setup)
        self._on_event = on_event
        self._load_timeout = load_timeout
        self._pool = pool
        self._again = again
        self._lock = threading.RLock()
        self._start_failures = StartFailures()
        self._retry_at = 0.0
        self._flights: dict[int, ChunkFlight] = {}
        self._running: dict[Future[bytes], FlightPart] = {}
        self._suspects: deque[FlightPart] = deque()
        self._closed = False  # takes nothing more
        self._lost = False
        self._stopped = False  # reports nothing more
        self._stopping = remote.stopping[self._setup] = threading.Event()

    # -- start -------------------------------------------------------------------------------------

    def start(self) -> list[FlowInfo]:
        """Load the target in one of the pool's places. Raises PgflowError if that fails."""
        began = time.monotonic()
        try:
            hello = decode_hello(self._pool.submit(remote.hello, self._setup).result(self._load_timeout))
        except TimeoutError:
            self.abort()
            raise PgflowError(
                f"executor {self.name} has not loaded the flow within {self._load_timeout:g} s",
                hint="Has it any worker? Is the module quick to import? --load-timeout allows it more time.",
            ) from None
        except Exception as error:
            self.abort()
            raise PgflowError(
                f"executor {self.name} cannot run anything: {type(error).__name__}: {error}",
                hint="It must be open, and its workers must be able to import pgflow_mp.",
            ) from error
        if hello.error:
            self.abort()
            raise PgflowError(hello.error, hint=hello.hint)
        for lane in range(self.capacity):
            self._on_event(LaneReady(lane, 0, 0, time.monotonic() - began))
        return hello.flows

    # -- work --------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def rooms(self) -> list[tuple[int, int]]:
        with self._lock:
            if not self._takes_more():
                return []
            held = [0] * self.capacity
            for flight in self._flights.values():
                held[flight.lane] += 1
            return [(lane, IN_FLIGHT - count) for lane, count in enumerate(held) if count < IN_FLIGHT]

    def submit(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None] = ()) -> bool:
        with self._lock:
            held = sum(flight.lane == lane for flight in self._flights.values())
            if not self._takes_more() or held >= IN_FLIGHT or not 0 <= lane < self.capacity:
                return False
            flight = self._flights[chunk.seq] = ChunkFlight(lane, chunk)
            part = FlightPart(flight, 0, chunk.size)
            flight.parts.add(part)
        self._send(part)
        return True

    def tick(self, now: float) -> None:
        """Go on with the search for a culprit."""
        with self._lock:
            if not self._suspects or self._running or self._closed:
                return
            part = self._suspects.popleft()
        self._send(part)

    def relieve(self, after: float) -> bool:
        return False

    def cancel(self, unwanted: Callable[[int, int], bool]) -> None:
        """Nothing that runs can be ended."""

    # -- stop --------------------------------------------------------------------------------------

    def expect_stop(self) -> None:
        """Nothing here is charged for a process that leaves."""

    def quiesce(self) -> None:
        with self._lock:
            self._closed = True
            self._stopping.set()
            waiting, suspects = list(self._running), list(self._suspects)
            self._suspects.clear()
        for future in waiting:
            future.cancel()
        for part in suspects:
            self._not_run(part)

    def stop(self, grace: float) -> bool:
        self.quiesce()
        deadline = time.monotonic() + grace
        while self._flights and time.monotonic() < deadline:
            time.sleep(_LAST_WAIT)
        drained = not self._flights
        self.abort()
        return drained

    def abort(self) -> None:
        if self._stopped:
            return
        self.quiesce()
        with self._lock:
            for part in [part for flight in self._flights.values() for part in flight.parts]:
                self._not_run(part)
            self._stopped = True
        remote.forget(self._setup)
        if self._again is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)  # we made it

    # -- internals ---------------------------------------------------------------------------------

    def _takes_more(self) -> bool:
        if time.monotonic() < self._retry_at:  # an on_start function has failed
            return False
        return not (self._closed or self._suspects or any(part.alone for part in self._running.values()))

    def _send(self, part: FlightPart) -> None:
        pool, began = self._pool, time.monotonic()
        try:
            future = pool.submit(remote.run_chunk, self._setup, encode(part.chunk))
        except Exception as error:  # noqa: BLE001 - broken, shut down, or whatever an engine raises
            self._failed(part, error, pool)
            return
        with self._lock:
            self._running[future] = part
        future.add_done_callback(lambda done: self._on_done(done, pool, began))

    def _on_done(self, done: Future[bytes], pool: Pool, began: float) -> None:
        with self._lock:
            part = self._running.pop(done)
        error = CancelledError() if done.cancelled() else done.exception()
        if error is None:
            answer, flow = done.result(), part.flight.chunk.flow
            if (trouble := trouble_in(answer)) is not None:
                self._not_started(part, trouble, began)
                return
            self._start_failures.started(flow)
            endings = endings_of(part.flight.chunk)
            endings.read_answer(answer, part.first, part.end - part.first)
            self._report(part, endings)
        else:
            self._failed(part, error, pool)

    def _failed(self, part: FlightPart, error: BaseException, pool: Pool) -> None:
        """Its place ended, or the pool has: whose fault it was is to be found out."""
        broken = isinstance(error, BrokenExecutor | RuntimeError)
        if self._closed or isinstance(error, CancelledError):
            self._not_run(part)
        elif broken and not self._renewed(pool):
            self._lose(error)
            self._not_run(part)
        elif part.alone and part.end - part.first == 1:
            self._charge(part, error)
        else:
            self._suspect(part)

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
        self._on_event(LaneFailedToStart(lane, 0, error, HINT, delay, fatal))

    def _renewed(self, broken: Pool) -> bool:
        """Whether there is another pool in the place of one that is broken."""
        with self._lock:
            if self._again is None:
                return False
            if self._pool is broken:
                broken.shutdown(wait=False)
                try:
                    self._pool = self._again()
                except Exception as error:  # noqa: BLE001 - whatever the user's function raises
                    self._lose(error)
                    return False
            return True

    def _lose(self, error: BaseException) -> None:
        with self._lock:
            self._closed, lost, self._lost = True, self._lost, True
        if not lost:
            hint = "Give a function that makes the executor: then it is made anew, and the culprit found."
            text = f"executor {self.name} is broken: {type(error).__name__}: {error}"
            self._on_event(ExecutorLost(text, hint))

    def _suspect(self, part: FlightPart) -> None:
        """Have it run alone; if it did, its halves."""
        middle = (part.first + part.end) // 2 if part.alone else part.end
        flight = part.flight
        with self._lock:
            flight.parts.discard(part)
            for first, end in ((part.first, middle), (middle, part.end)):
                if first < end:
                    half = FlightPart(flight, first, end, alone=True)
                    flight.parts.add(half)
                    self._suspects.append(half)

    def _charge(self, part: FlightPart, error: BaseException) -> None:
        flight, chunk = part.flight, part.flight.chunk
        _, step, _, index = chunk.locate(part.first)
        how = f"{type(error).__name__}: {error}"
        text = verdicts.crash_error(step, index, Cause.CRASH, how)
        outcome = verdicts.verdict(Cause.CRASH, text, "", part.first, 0.0)
        with self._lock:
            if not self._stopped and part in flight.parts:
                self._on_event(LaneDied(flight.lane, 0, Cause.CRASH, how, chunk.seq, outcome, ""))
                self._report(part, endings_of(chunk))

    def _report(self, part: FlightPart, endings: Endings) -> None:
        flight = part.flight
        with self._lock:
            if self._stopped or part not in flight.parts:
                return
            flight.parts.discard(part)
            if done := not flight.parts:
                del self._flights[flight.chunk.seq]
            self._on_event(endings.event(flight.lane, 0, done=done))

    def _not_run(self, part: FlightPart) -> None:
        endings = endings_of(part.flight.chunk)
        endings.add_not_run(part.first, part.end)
        self._report(part, endings)


def factory(given: Pool | Callable[[], Pool] | str, capacity: int | None = None) -> ExecutorFactory:
    """The ExecutorFactory for what a user gives as ``executor=``.

    A concurrent.futures.Executor, a function that makes one, or ``"inline"``. ``capacity`` is the number of
    its workers (None: what it says itself). Raises ConfigError for anything else.
    """
    if given == "inline":
        return lambda setup, limits, on_event: FuturesExecutor(
            setup, on_event, InlinePool(), 1, name="inline", load_timeout=limits.load_timeout
        )
    if not isinstance(given, Pool) and not callable(given):
        raise ConfigError(
            f"executor is a {type(given).__name__}, not a concurrent.futures.Executor: {given!r}",
            hint='Give an Executor, a function that makes one, or "inline"; leave it out for lanes.',
        )

    def make(setup: Setup, limits: Limits, on_event: OnEvent) -> FuturesExecutor:
        pool = given if isinstance(given, Pool) else given()
        again = None if isinstance(given, Pool) else given
        if not isinstance(pool, Pool):
            raise ConfigError(f"executor made a {type(pool).__name__}, not a concurrent.futures.Executor")
        workers = capacity or getattr(pool, "_max_workers", None) or available_cpus()
        return FuturesExecutor(setup, on_event, pool, workers, again=again, load_timeout=limits.load_timeout)

    return make
