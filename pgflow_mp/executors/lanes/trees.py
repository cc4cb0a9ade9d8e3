"""Killing a lane's process together with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

from pgflow_mp.executors.lanes.lifeline import TERMINATE


class ProcessTree:
    """A process, its descendants as they are now, and its process group."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._members: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            # psutil remembers creation times, so a recycled pid is never signalled.
            self._members = [process, *process.children(recursive=True)]

    def terminate(self) -> None:
        """Ask every member to end; the lane itself, which passes over SIGTERM, ends at once."""
        self.signal(signal.SIGTERM)
        for member in self._members[:1]:
            with contextlib.suppress(psutil.Error, OSError):
                member.send_signal(TERMINATE)

    def signal(self, number: signal.Signals) -> None:
        """Send to every member; those that are gone are passed over."""
        signal_group(self._pid, number)
        for member in self._members:
            with contextlib.suppress(psutil.Error, OSError):
                if number == signal.SIGKILL or os.getpgid(member.pid) != self._pid:
                    member.send_signal(number)

    def alive(self) -> bool:
        """Whether any member but zombies is left."""
        for member in self._members:
            with contextlib.suppress(psutil.Error):
                if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                    return True
        return group_exists(self._pid)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that ``pid`` leads, if there is one."""
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def group_exists(pid: int) -> bool:
    """Whether a process group of this id has a member (zombies count)."""
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True
