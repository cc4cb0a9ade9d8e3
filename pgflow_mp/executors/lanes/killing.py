"""Ending a lane's process with all that it started, and finding out how one ended."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any, Final

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.lanes import memory
from pgflow_mp.executors.lanes.trees import ProcessTree, signal_group
from pgflow_mp.executors.verdicts import KillReason

_HEARSAY: Final = 0.15  # seconds between signals that a process manager sends to all of us at once


class Killing:
    """TERM to a process tree now, KILL once ``grace`` seconds are over (by ``follow_up``)."""

    def __init__(self, reason: KillReason, pid: int, grace: float) -> None:
        self.reason = reason
        self._pid = pid
        self._tree = ProcessTree(pid)
        self._deadline = time.monotonic() + grace
        if grace > 0:
            self._tree.terminate()
        else:
            self._tree.signal(signal.SIGKILL)

    def follow_up(self, now: float, *, dead: bool) -> None:
        """Kill what the grace is over for."""
        if now >= self._deadline:
            self._tree.signal(signal.SIGKILL)
            if not dead:
                ProcessTree(self._pid).signal(signal.SIGKILL)  # what it started meanwhile
            self._deadline = now + 1.0

    def end_survivors(self) -> None:
        """Kill what the process left behind, after the grace."""
        while self._tree.alive() and time.monotonic() < self._deadline:
            time.sleep(0.02)
        self._tree.signal(signal.SIGKILL)


def end_survivors(pid: int, killing: Killing | None) -> None:
    """Kill what a process left behind."""
    if killing is not None:
        killing.end_survivors()
    signal_group(pid, signal.SIGKILL)


def see_to_its_end(process: Any, pid: int) -> None:
    """A process whose pipe is closed or broken is to be dead, too."""
    if process is not None and not wait([process.sentinel], 0.2):
        ProcessTree(pid).signal(signal.SIGKILL)
        wait([process.sentinel], 5.0)


def exit_code(process: Any) -> int | None:
    """How a dead process ended; another thread may be collecting it at this very moment."""
    code: int | None = None
    until = time.monotonic() + 1.0
    while process is not None and code is None and time.monotonic() < until:
        if (code := process.exitcode) is None:
            time.sleep(0.001)
    return code


def told_to_leave(process: Any, leaving: Callable[[], bool]) -> bool:
    """Whether a process manager ended this process on its way to end us: we may be about to hear."""
    if process is None or not wait([process.sentinel], 0):
        return False
    if not verdicts.by_process_manager(exit_code(process)):
        return False
    until = time.monotonic() + _HEARSAY
    while not (is_leaving := leaving()) and time.monotonic() < until:
        time.sleep(0.01)
    return is_leaving


def default_oom_kills() -> int:
    """memory.oom_kills(), 0 where it cannot be read."""
    with contextlib.suppress(OSError):
        return memory.oom_kills()
    return 0
