"""Runs a chunk in a thread of its own and keeps it to its limits: where the process can be spared.

A thread cannot be ended. What goes over its limit is given up: the chunk is answered without it, and the
process is spoiled; whoever has it ends it.
Threads: each of those that the engine has may run a chunk.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Final

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.chunk_runs import BegunItems, ChunkRun
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes import memory
from pgflow_mp.executors.messages import AnyChunk, Remark, RunLimits

_LOOK: Final = 0.5  # seconds
_LOOK_AT_MEMORY: Final = 0.1

_spoiled = threading.Event()


def is_spoiled() -> bool:
    """Whether this process runs something that was given up."""
    return _spoiled.is_set()


def run(chunk: AnyChunk, run: ChunkRun, limits: RunLimits) -> tuple[bytes, Remark | None]:
    """Run it to its end, or as far as the limits let it: the answer, and what is to be said of that."""
    thread = threading.Thread(target=run.execute, name="pgflow_mp chunk", daemon=True)
    thread.start()
    while True:
        run.changed.wait(_pause(run, limits))
        if run.over:
            thread.join()
            return run.answer(), None
        running = run.running
        if run.unwanted:
            return _give_up(run, limits, Cause.CANCELLED, None)
        if running is None:
            continue
        _, step, _, index = chunk.locate(running.first)
        timeout = limits.timeouts[running.step]
        if timeout is not None and time.monotonic() - running.since >= timeout:
            return _give_up(run, limits, Cause.TIMEOUT, verdicts.timeout_error(step, index, timeout))
        if limits.max_memory is not None and (used := memory.tree_rss(os.getpid())) > limits.max_memory:
            error = verdicts.memory_error(step, index, used, limits.max_memory)
            return _give_up(run, limits, Cause.MEMORY, error)


def _pause(run: ChunkRun, limits: RunLimits) -> float:
    """Seconds until something has to be looked at."""
    longest = _LOOK if limits.max_memory is None else _LOOK_AT_MEMORY
    running: BegunItems | None = run.running
    timeout = limits.timeouts[running.step] if running is not None else min_of(limits.timeouts)
    if timeout is None:
        return longest
    since = time.monotonic() if running is None else running.since
    return min(longest, max(0.001, since + timeout - time.monotonic()))


def min_of(timeouts: list[float | None]) -> float | None:
    """The shortest of them."""
    return min((timeout for timeout in timeouts if timeout is not None), default=None)


def _give_up(
    run: ChunkRun, limits: RunLimits, cause: Cause, error: str | None
) -> tuple[bytes, Remark | None]:
    answer, given_up = run.give_up(error)
    if given_up is None and run.over:
        return answer, None
    _spoiled.set()
    if limits.leave is not None:
        timer = threading.Timer(limits.leave, os._exit, (1,))
        timer.daemon = True
        timer.start()
    return answer, Remark(given_up=given_up or (0, 0), cause=cause, address=_address())


def _address() -> str:
    """What the engine calls this process, where that can be told."""
    distributed = sys.modules.get("distributed")
    try:
        return "" if distributed is None else str(distributed.get_worker().address)
    except ValueError:  # it is imported for other reasons
        return ""
