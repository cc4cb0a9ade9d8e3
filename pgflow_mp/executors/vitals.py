"""What processes use: CPU time and resident memory of a process and all that it has started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """By process id: ``cpus`` are CPUs used since the last look (1.0: one all the time), ``rss`` bytes."""

    cpus: dict[int, float]
    rss: dict[int, int]

    @property
    def cpu(self) -> float:
        """Of all processes together."""
        return sum(self.cpus.values())

    @property
    def total_rss(self) -> int:
        """Of all processes together; what they share counts several times."""
        return sum(self.rss.values())


class Vitals:
    """Looks at this process and its descendants. One thread at a time."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or os.getpid()
        self._spent: dict[int, float] = {}
        self._known: dict[int, psutil.Process] = {}
        self._last: float | None = None

    def look(self) -> Usage:
        """What they use now; the first look tells no CPU time."""
        now, spent, rss, cpus = time.monotonic(), dict[int, float](), dict[int, int](), dict[int, float]()
        known: dict[int, psutil.Process] = {}
        for pid in descendants(self._pid):
            with contextlib.suppress(psutil.Error, OSError):
                process = known[pid] = self._known.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    rss[pid] = process.memory_info().rss
                spent[pid] = times.user + times.system
                cpus[pid] = max(0.0, spent[pid] - self._spent.get(pid, 0.0))
        passed = None if self._last is None else max(1e-3, now - self._last)
        self._spent, self._known, self._last = spent, known, now
        return Usage({pid: 0.0 if passed is None else cpu / passed for pid, cpu in cpus.items()}, rss)


def descendants(pid: int) -> Iterator[int]:
    """A process and all that it has started, and these, as far as they are alive."""
    yield pid
    try:
        children = [
            int(child)
            for task in (_PROC / str(pid) / "task").iterdir()
            for child in (task / "children").read_bytes().split()
        ]
    except OSError:
        if not (_PROC / str(pid)).exists():  # not Linux, where each search reads every process of the machine
            with contextlib.suppress(psutil.Error):
                yield from (child.pid for child in psutil.Process(pid).children(recursive=True))
        return
    for child in children:
        yield from descendants(child)
