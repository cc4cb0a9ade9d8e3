"""What runs inside a lane's process.

begin() is the initializer: it ties the process to its parent, then loads the target. hello() tells the
parent what was found. run_chunk() executes a chunk (``executing``).
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
from multiprocessing import util
from typing import Any, Final

import msgspec

from pgflow_mp import logs, streams
from pgflow_mp.errors import PgflowError
from pgflow_mp.executors import cpus
from pgflow_mp.executors.execution import describe, error_text
from pgflow_mp.executors.lanes import descriptors, lifeline, listening, preloaded, stack_dumps
from pgflow_mp.executors.lanes.executing import Lane, OwnSlot
from pgflow_mp.executors.lanes.slots import CONTROL_SIZE, SlotFiles
from pgflow_mp.executors.lanes.surroundings import Surroundings
from pgflow_mp.executors.messages import Hello, Setup, encode
from pgflow_mp.loading import reentry

_FIRST: Final = 1000

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
    reentry.become_lane(orders.dsn)
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
        _lane = Lane(flows, orders, OwnSlot(files), Surroundings(files.control.fd))
        util.Finalize(None, _lane.close, exitpriority=_FIRST)  # when this process leaves by itself
    hello.seconds = time.perf_counter() - started
    _hello = encode(hello)


def hello() -> bytes:
    """The encoded Hello of this process."""
    return _hello


def run_chunk(ordinal: int, data: bytes) -> bytes | None:
    """Execute an encoded Chunk; the outcomes are in the lane's shared memory when this returns.

    An encoded StartTrouble if none of it was executed since its flow could not be started.
    """
    if _lane is None:
        raise RuntimeError("this lane has not loaded its target")
    trouble = _lane.run(ordinal, data)
    return None if trouble is None else encode(trouble)


def _set_up_process(files: SlotFiles) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    lifeline.outlast_sigterm()
    with contextlib.suppress(OSError, ValueError):
        faulthandler.enable(files.trace.fd, all_threads=False)
        # A task that is terminated over its timeout leaves a note of where it was.
        faulthandler.register(lifeline.TERMINATE, files.trace.fd, all_threads=False, chain=True)
        stack_dumps.listen(files.control.fd, CONTROL_SIZE)
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
