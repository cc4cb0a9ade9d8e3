"""What runs inside a lane's process.

begin() is the initializer: it ties the process to its parent, then loads the target. hello() tells the
parent what was found. run_chunk() executes items one by one and publishes every outcome as it comes.
Nothing here raises across the process boundary, and nothing here imports a database driver.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

import msgspec

from pgflow_mp import logs, streams
from pgflow_mp.errors import PgflowError
from pgflow_mp.executors import cpus
from pgflow_mp.executors.execution import Prepared, describe, error_text
from pgflow_mp.executors.lanes import descriptors, lifeline, listening, preloaded
from pgflow_mp.executors.lanes.slots import SlotFiles, SlotWriter
from pgflow_mp.executors.lanes.surroundings import Surroundings
from pgflow_mp.executors.messages import Hello, Kind, Outcome, Setup, decode_chunk, encode
from pgflow_mp.flows.context import Context, Runtime
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading import reentry

_CUT_OFF: Final = 4  # exit code

_lane: Lane | None = None
_hello: bytes = b""


def begin(setup: bytes, files: SlotFiles) -> None:
    """Initializer of a lane's process."""
    global _lane, _hello
    lifeline.arm()
    _set_up_process(files)
    orders = msgspec.msgpack.decode(setup, type=Setup)
    if orders.open_files is not None:
        descriptors.restore(orders.open_files)
    os.environ.update(cpus.thread_environment(orders.threads))
    started = time.perf_counter()
    hello = Hello([], "", "", 0.0, preloaded.before_fork, preloaded.why_not)
    reentry.become_lane()
    listening.begin()
    try:
        flows = preloaded.load(orders)
        _reseed()
        hello.flows = [describe(flow) for flow in flows.values()]
    except PgflowError as error:
        hello.error, hello.hint = str(error), error.hint
    except BaseException as error:  # noqa: BLE001 - user code may raise anything while it is imported
        hello.error = f"Importing {', '.join(orders.target.splitlines())} failed: {error_text(error)}"
    _set_up_logging(orders.log_level, orders.log_format)
    if not hello.error:
        listening.listen_to_numpy()
        _lane = Lane(flows, orders, _Slot(files), Surroundings(files.control.fd))
    hello.seconds = time.perf_counter() - started
    _hello = encode(hello)


def hello() -> bytes:
    """The encoded Hello of this process."""
    return _hello


def run_chunk(ordinal: int, data: bytes) -> None:
    """Execute an encoded Chunk; the outcomes are in the lane's shared memory when this returns."""
    if _lane is None:
        raise RuntimeError("this lane has not loaded its target")
    _lane.run(ordinal, data)


class _Slot(SlotWriter):
    """Leaves a file alone that a handler has opened under the number of one of ours, which it closed."""

    def __init__(self, files: SlotFiles) -> None:
        super().__init__(files)
        self._identities = [os.fstat(file.fd)[1:3] for file in files.buffers]

    def _remap(self, buffer: int, size: int) -> None:
        if os.fstat(self._files[buffer].fd)[1:3] != self._identities[buffer]:
            raise OSError("a handler has closed the files of this process")
        super()._remap(buffer, size)


class Lane:
    """Executes chunks in this process."""

    def __init__(
        self,
        flows: dict[str, Flow],
        setup: Setup,
        slot: SlotWriter,
        surroundings: Surroundings,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._slot = slot
        self._surroundings = surroundings
        self._now_ns = now_ns  # taken before handlers can put another clock into the module
        self._runtime = Runtime(dsn=setup.dsn, worker_config=setup.worker_config, shutdown=slot)
        self._prepared = Prepared(flows)
        self._is_copy = False
        os.register_at_fork(after_in_child=self._become_copy)

    def _become_copy(self) -> None:
        self._is_copy = True

    def run(self, ordinal: int, data: bytes) -> None:
        """Execute one chunk, item by item."""
        slot, runtime, now_ns = self._slot, self._runtime, self._now_ns
        surroundings = self._surroundings
        chunk = decode_chunk(data)
        flow, runs, steps = chunk.flow, chunk.runs, chunk.steps
        executes = [self._prepared.of(flow, step) for step in steps]
        if not surroundings.begin_chunk():
            os._exit(_CUT_OFF)
        slot.begin(ordinal)
        for position, item in enumerate(chunk.items):
            started = now_ns()
            slot.start(position, started)  # before the look at skipped: see LaneProcess.relieve
            if slot.skipped >= ordinal:
                slot.finish(encode(Outcome(position, Kind.NOT_RUN, b"", 0.0)))
                continue
            context = Context(
                run_id=runs[item.run],
                flow_slug=flow,
                step_slug=steps[item.step],
                task_index=item.index,
                attempt=item.attempt,
                msg_id=item.msg_id,
                raw_input=item.input,
                raw_flow_input=item.flow_input,
                runtime=runtime,
            )
            try:
                kind, body = copy_context().run(executes[item.step], item.input, item.flow_input, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
            if self._is_copy:
                os._exit(0)  # a copy of this process, forked by the handler, that came back here
            seconds = (now_ns() - started) / 1e9
            fine = surroundings.after_item(seconds, failed=kind != Kind.COMPLETED)
            self._publish(Outcome(position, kind, body, seconds))
            if not fine:
                os._exit(_CUT_OFF)
        slot.end()
        if not surroundings.connected:
            os._exit(_CUT_OFF)  # rather than write into what has our files' numbers now

    def _publish(self, outcome: Outcome) -> None:
        try:
            self._slot.finish(encode(outcome))
        except (MemoryError, OSError, ValueError) as error:
            size = len(outcome.body)
            text = f"MemoryError: no room to hand over an output of {size} bytes ({error})"
            self._slot.finish(encode(Outcome(outcome.position, Kind.FAILED, text.encode(), outcome.seconds)))


def _set_up_process(files: SlotFiles) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    lifeline.outlast_sigterm()
    with contextlib.suppress(OSError, ValueError):
        faulthandler.enable(files.trace.fd, all_threads=False)
        # A task that is terminated over its timeout leaves a note of where it was.
        faulthandler.register(lifeline.TERMINATE, files.trace.fd, all_threads=False, chain=True)
    streams.forgive()  # what a handler prints never decides about its item
    own: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in own:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _set_up_logging(level: str, form: str) -> None:
    """As in the parent; but where the target has set up logging itself, text goes its way."""
    level = level if level in logs.LEVELS else "info"
    logger = logging.getLogger("pgflow_mp")
    if form == "json" or not (logging.getLogger().handlers or logger.handlers):
        logs.set_up(level, form)
    else:
        logger.setLevel(logs.LEVELS[level])


def _reseed() -> None:
    """Lanes forked from one process must not draw the same "random" numbers (Python reseeds its own)."""
    random: Any = sys.modules.get("numpy.random")
    if random is not None and preloaded.before_fork:
        random.seed()
