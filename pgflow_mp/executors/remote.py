"""What runs in a process or thread of somebody else's executor: plain functions over bytes.

Unlike a lane's process it is not ours: nothing of it is set up, watched or cleaned between items.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from multiprocessing import util
from typing import Final

import msgspec

from pgflow_mp.errors import OnStartFailed, PgflowError
from pgflow_mp.executors import code_identity, guarding, tied_processes
from pgflow_mp.executors.chunk_runs import ChunkRun, RangeRun, TaskRun
from pgflow_mp.executors.decoded_pages import Pages
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.execution import Prepared, artifact_roots, describe, error_text, flows_of
from pgflow_mp.executors.messages import (
    AnyChunk,
    Hello,
    RangeChunk,
    Remark,
    Setup,
    StartTrouble,
    decode_chunk,
    decode_limits,
    encode,
)
from pgflow_mp.flows.context import Runtime
from pgflow_mp.loading import reentry

_FIRST: Final = 1000
_MOST: Final = 8  # setups that a process keeps ready, those that are used last

stopping: Final[dict[bytes, threading.Event]] = {}
"""By setup, the executors of this process that are being stopped: they see it where they run items, too."""

_places: Final[dict[bytes, Place]] = {}
_lock: Final = threading.Lock()


class Place:
    """Runs chunks for one setup in this process; several threads may share it."""

    def __init__(self, setup: bytes) -> None:
        orders = msgspec.msgpack.decode(setup, type=Setup)
        if orders.version not in ("", here := code_identity.own_version()):
            place = code_identity.host()
            raise code_identity.DifferentCode(code_identity.other_version(here, place, orders.version))
        self.flows = flows_of(orders)
        if orders.code:
            found = code_identity.code_of(self.flows.values())
            if other := code_identity.differences(code_identity.host(), orders.code, found):
                raise code_identity.DifferentCode(other)
        self._stopping = stopping.get(setup) or threading.Event()
        self._prepared = Prepared(self.flows)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._users = 0
        self._running: dict[int, ChunkRun] = {}
        self._over = False
        # A process of a pool leaves when its owner says so; then the same is to be done as by end().
        self._at_exit = util.Finalize(None, self._prepared.close, exitpriority=_FIRST)
        self._runtime = Runtime(
            dsn=orders.dsn,
            worker_config=orders.worker_config,
            shutdown=self._stopping,
            artifacts=artifact_roots(orders, self.flows),
        )

    def run(self, data: bytes, limits: bytes) -> tuple[bytes, bytes]:
        """Run an encoded chunk item by item; the encoded answer, with an outcome for each, in order.

        Or a StartTrouble, with nothing run. Besides, an encoded Remark, if there is one.
        """
        chunk = decode_chunk(data)
        with self._lock:
            self._users += 1
        try:
            with reentry.executing():
                trouble = self._start(chunk.flow)
            if trouble is not None:
                return encode(trouble), b""
            run = self._run_of(chunk)
            if not limits:
                run.execute()
                return run.answer(), b""
            self._running[chunk.seq] = run
            answer, remark = guarding.run(chunk, run, decode_limits(limits))
            return answer, b"" if remark is None else encode(remark)
        finally:
            self._running.pop(chunk.seq, None)
            with self._lock:
                self._users -= 1
            self._leave()

    def give_up(self, seqs: Sequence[int]) -> None:
        """End what runs of these chunks: nobody wants it."""
        for seq in seqs:
            if (run := self._running.get(seq)) is not None:
                run.unwanted = True
                run.changed.set()

    def stop(self) -> None:
        """Begin nothing more, and let handlers see it."""
        self._stopping.set()

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

    def _run_of(self, chunk: AnyChunk) -> ChunkRun:
        stopped = self._stopping.is_set
        if isinstance(chunk, RangeChunk):
            return RangeRun(chunk, self._prepared, self._runtime, stopped, self._pages_of_thread())
        return TaskRun(chunk, self._prepared, self._runtime, stopped)

    def _pages_of_thread(self) -> Pages:
        pages: Pages | None = getattr(self._local, "pages", None)
        if pages is None:
            pages = self._local.pages = Pages()
        return pages


def _place(setup: bytes) -> Place:
    with _lock:
        place = _places.pop(setup, None)
        if place is None:
            tied_processes.end_with_parent()
            place = Place(setup)
        _places[setup] = place
        old = [] if len(_places) <= _MOST else [_places.pop(next(iter(_places)))]
    for other in old:
        other.end()
    return place


def forget(setup: bytes) -> None:
    """The executor with this setup is over, or will not be served here any more."""
    stopping.pop(setup, None)
    with _lock:
        place = _places.pop(setup, None)
    if place is not None:
        place.end()


def stop(setup: bytes) -> None:
    """The executor with this setup is being stopped."""
    if (place := _places.get(setup)) is not None:
        place.stop()


def give_up(setup: bytes, seqs: Sequence[int]) -> None:
    """Nobody wants these chunks of the executor with this setup."""
    if (place := _places.get(setup)) is not None:
        place.give_up(seqs)


def hello(setup: bytes) -> bytes:
    """Load what an encoded Setup names; the encoded Hello."""
    started = time.perf_counter()
    answer = Hello([], "", "", 0.0, False, "", host=code_identity.host())
    try:
        flows = _place(setup).flows.values()
        answer.flows = [describe(flow) for flow in flows]
        answer.code = code_identity.code_of(flows)
    except PgflowError as error:
        answer.error, answer.hint = str(error), error.hint
    except BaseException as error:  # noqa: BLE001 - user code may raise anything while it is imported
        answer.error = (
            f"Importing {msgspec.msgpack.decode(setup, type=Setup).target!r} failed: {error_text(error)}"
        )
    answer.seconds = time.perf_counter() - started
    return encode(answer)


def version() -> tuple[str, str]:
    """This package as it is here, and where that is. Of all functions here this one is never to change."""
    return code_identity.own_version(), code_identity.host()


def run_chunk(setup: bytes, data: bytes, limits: bytes = b"") -> tuple[bytes, bytes]:
    """Run an encoded chunk: the encoded list of its outcomes, of a RangeChunk what ``decode_answer`` has.

    ``limits``: encoded RunLimits, for a process that may be ended for the sake of an item. The second text is
    an encoded Remark, if there is one.
    """
    try:
        place = _place(setup)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything while it is imported
        text = str(error) if isinstance(error, PgflowError) else error_text(error)
        if not isinstance(error, code_identity.DifferentCode):
            text = f"{code_identity.host()} cannot run the flow: {text}"
        return b"", encode(Remark(refused=text))
    if guarding.is_spoiled():
        return b"", encode(Remark(cause=Cause.STALLED))
    return place.run(data, limits)
