"""What runs in a process or thread of somebody else's executor: plain functions over bytes.

Unlike a lane's process it is not ours: nothing of it is set up, watched or cleaned between items.
"""

from __future__ import annotations

import threading
import time
from multiprocessing import util
from typing import Final

import msgspec

from pgflow_mp.errors import OnStartFailed, PgflowError
from pgflow_mp.executors.bundles import Bundle, RangeBundle, TaskBundle, bounds_of, task_context
from pgflow_mp.executors.decoded_pages import Pages
from pgflow_mp.executors.execution import Prepared, Runnable, artifact_roots, describe, error_text, flows_of
from pgflow_mp.executors.messages import (
    Chunk,
    Hello,
    Kind,
    Outcome,
    RangeChunk,
    Setup,
    StartTrouble,
    decode_chunk,
    encode,
)
from pgflow_mp.flows.batching import run_batches
from pgflow_mp.flows.context import Context, Runtime
from pgflow_mp.loading import reentry
from pgflow_mp.values import artifacts

_FIRST: Final = 1000

stopping: Final[dict[bytes, threading.Event]] = {}
"""By setup, the executors of this process that are being stopped: they see it where they run items, too."""

_places: Final[dict[bytes, Place]] = {}
_lock: Final = threading.Lock()


class Place:
    """Runs chunks for one setup in this process; several threads may share it."""

    def __init__(self, setup: bytes) -> None:
        orders = msgspec.msgpack.decode(setup, type=Setup)
        self.flows = flows_of(orders)
        self._stopping = stopping.get(setup) or threading.Event()
        self._prepared = Prepared(self.flows)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._users = 0
        self._over = False
        # A process of a pool leaves when its owner says so; then the same is to be done as by end().
        self._at_exit = util.Finalize(None, self._prepared.close, exitpriority=_FIRST)
        self._runtime = Runtime(
            dsn=orders.dsn,
            worker_config=orders.worker_config,
            shutdown=self._stopping,
            artifacts=artifact_roots(orders, self.flows),
        )

    def run(self, data: bytes) -> bytes:
        """Run an encoded chunk item by item; the encoded answer, with an outcome for each, in order.

        Or a StartTrouble, with nothing run.
        """
        chunk = decode_chunk(data)
        with self._lock:
            self._users += 1
        try:
            if (trouble := self._start(chunk.flow)) is not None:
                return encode(trouble)
            return self._run_range(chunk) if isinstance(chunk, RangeChunk) else self._run_tasks(chunk)
        finally:
            artifacts.leave()
            with self._lock:
                self._users -= 1
            self._leave()

    def end(self) -> None:
        """Nothing is run here any more: what on_start functions have to do at the end is done by the last."""
        self._over = True
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            if not self._over or self._users:
                return
        self._at_exit()  # once

    def _start(self, flow: str) -> StartTrouble | None:
        """Call its on_start functions, once in this process, whichever of its threads comes first."""
        if flow not in self._prepared.waiting:
            return None
        with self._starting:
            if flow in self._prepared.waiting:
                try:
                    self._prepared.start(flow)
                except OnStartFailed as error:
                    return StartTrouble(flow, str(error))
        return None

    def _run_tasks(self, chunk: Chunk) -> bytes:
        steps = [self._prepared.of(chunk.flow, step) for step in chunk.steps]
        outcomes: list[Outcome] = []
        for first, end in bounds_of(chunk, [step.batch for step in steps]):
            step = steps[chunk.items[first].step]
            if step.batch:
                bundle = TaskBundle(chunk, step, first, end, self._runtime)
                found, seconds = self._run_bundle(bundle)
                outcomes += bundle.outcomes(first, found, seconds)
                continue
            for item in chunk.items[first:end]:
                if self._stopping.is_set():
                    break
                context = task_context(chunk, item, item.input, self._runtime)
                kind, body, spent = self._run_item(steps[item.step], item.input, item.flow_input, context)
                outcomes.append(Outcome(len(outcomes), kind, body, spent))
            if len(outcomes) < end:
                break
        outcomes += [Outcome(n, Kind.NOT_RUN, b"", 0.0) for n in range(len(outcomes), chunk.size)]
        return encode(outcomes)

    def _run_range(self, chunk: RangeChunk) -> bytes:
        step = self._prepared.of(chunk.flow, chunk.step)
        elements = self._pages_of_thread().elements(chunk)
        bundle = RangeBundle(chunk, step, elements, self._runtime)
        stream = bytearray()
        seconds, ended = 0.0, 0
        if step.batch:
            found, spent = self._run_bundle(bundle)
            stream += bundle.ended(0, found, spent)
            seconds = spent * sum(kind == Kind.COMPLETED for kind, _ in found) / max(1, len(found))
            ended = len(found)
        else:
            for element in elements:
                if self._stopping.is_set():
                    break
                input = bytes(element)
                kind, body, spent = self._run_item(step, input, None, bundle.context(ended, input))
                stream += bundle.ended(ended, [(kind, body)], spent)
                seconds += spent if kind == Kind.COMPLETED else 0.0
                ended += 1
        if ended < chunk.count:
            stream += bundle.not_run(ended)
        return encode((bytes(stream), seconds))

    def _run_item(
        self, step: Runnable, input: bytes, flow_input: bytes | None, context: Context
    ) -> tuple[int, bytes, float]:
        started = time.perf_counter()
        try:
            kind, body = step.execute(input, flow_input, context)
        except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
            kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
        return kind, body, time.perf_counter() - started

    def _run_bundle(self, bundle: Bundle) -> tuple[list[tuple[int, bytes]], float]:
        """The outcomes of its items, as far as they ran, and the seconds of all of them."""
        first, end = bundle.first, bundle.end
        started = time.perf_counter()
        found = run_batches(
            bundle.step,
            bundle.inputs(first, end),
            bundle.indexes(first, end),
            bundle.flow_input,
            lambda low, input: bundle.context(first + low, input),
            size=bundle.size,
            stopped=self._stopping.is_set,
        )
        return found, time.perf_counter() - started

    def _pages_of_thread(self) -> Pages:
        pages: Pages | None = getattr(self._local, "pages", None)
        if pages is None:
            pages = self._local.pages = Pages()
        return pages


def _place(setup: bytes) -> Place:
    with _lock:
        place = _places.get(setup)
        if place is None:
            place = _places[setup] = Place(setup)
        return place


def forget(setup: bytes) -> None:
    """The executor of this process with this setup is over."""
    stopping.pop(setup, None)
    if (place := _places.pop(setup, None)) is not None:
        place.end()


def hello(setup: bytes) -> bytes:
    """Load what an encoded Setup names; the encoded Hello."""
    started = time.perf_counter()
    answer = Hello([], "", "", 0.0, False, "")
    try:
        answer.flows = [describe(flow) for flow in _place(setup).flows.values()]
    except PgflowError as error:
        answer.error, answer.hint = str(error), error.hint
    except BaseException as error:  # noqa: BLE001 - user code may raise anything while it is imported
        answer.error = (
            f"Importing {msgspec.msgpack.decode(setup, type=Setup).target!r} failed: {error_text(error)}"
        )
    answer.seconds = time.perf_counter() - started
    return encode(answer)


def run_chunk(setup: bytes, data: bytes) -> bytes:
    """Run an encoded chunk; the encoded list of its outcomes, of a RangeChunk (stream, seconds)."""
    with reentry.executing():
        return _place(setup).run(data)
