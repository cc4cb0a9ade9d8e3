"""What runs in a process or thread of somebody else's executor: plain functions over bytes.

Unlike a lane's process it is not ours: nothing of it is set up, watched or cleaned between items.
"""

from __future__ import annotations

import threading
import time
from typing import Final

import msgspec

from pgflow_mp.errors import PgflowError
from pgflow_mp.executors.endings import frame
from pgflow_mp.executors.execution import Pages, Prepared, describe, error_text, flows_of
from pgflow_mp.executors.messages import Chunk, Hello, Kind, Outcome, RangeChunk, Setup, decode_chunk, encode
from pgflow_mp.flows.context import Context, Runtime
from pgflow_mp.loading import reentry

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
        self._runtime = Runtime(dsn=orders.dsn, worker_config=orders.worker_config, shutdown=self._stopping)

    def run(self, data: bytes) -> bytes:
        """Run an encoded chunk item by item; the encoded answer, with an outcome for each, in order."""
        chunk = decode_chunk(data)
        return self._run_range(chunk) if isinstance(chunk, RangeChunk) else self._run_tasks(chunk)

    def _run_tasks(self, chunk: Chunk) -> bytes:
        executes = [self._prepared.of(chunk.flow, step).execute for step in chunk.steps]
        outcomes: list[Outcome] = []
        for position, item in enumerate(chunk.items):
            if self._stopping.is_set():
                outcomes.append(Outcome(position, Kind.NOT_RUN, b"", 0.0))
                continue
            context = Context(
                run_id=chunk.runs[item.run],
                flow_slug=chunk.flow,
                step_slug=chunk.steps[item.step],
                task_index=item.index,
                attempt=item.attempt,
                msg_id=item.msg_id,
                raw_input=item.input,
                raw_flow_input=item.flow_input,
                runtime=self._runtime,
            )
            started = time.perf_counter()
            try:
                kind, body = executes[item.step](item.input, item.flow_input, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
            outcomes.append(Outcome(position, kind, body, time.perf_counter() - started))
        return encode(outcomes)

    def _run_range(self, chunk: RangeChunk) -> bytes:
        step = self._prepared.of(chunk.flow, chunk.step)
        stream = bytearray()
        seconds = 0.0
        for position, element in enumerate(self._pages_of_thread().elements(chunk)):
            if self._stopping.is_set():
                stream += frame(Outcome(position, Kind.NOT_RUN, b"", 0.0))
                break
            input = bytes(element)
            context = Context(
                run_id=chunk.run,
                flow_slug=chunk.flow,
                step_slug=chunk.step,
                task_index=chunk.first_index + position,
                raw_input=input,
                runtime=self._runtime,
            )
            started = time.perf_counter()
            try:
                kind, body = step.execute(input, None, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
            spent = time.perf_counter() - started
            if kind == Kind.COMPLETED:
                seconds += spent
                stream += body
                stream += b","
            else:
                stream += frame(Outcome(position, kind, body, spent))
        return encode((bytes(stream), seconds))

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
    _places.pop(setup, None)


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
