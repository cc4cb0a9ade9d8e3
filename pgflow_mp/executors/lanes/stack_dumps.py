"""Where the code of a lane's process is at this moment: a signal, and what faulthandler writes then.

faulthandler's handler is C code that runs at once in the main thread, whatever that does: Python, a C
function that never lets go of the interpreter, a sleep. System calls that the signal interrupts are begun
again, by the kernel or by Python. What is written lies in the lane's control file, behind the page that both
sides map; there the process says first under which number it has that file, and where handlers have closed
it, which may have given the number to a file of theirs, nobody is asked.

SIGURG, because by default it does nothing: a process that does not listen yet, or whose handler has taken
the signal for itself, is not harmed by it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pgflow_mp.executors.stacks import Frame, LaneStack, is_at_work, users_frames, with_source

if TYPE_CHECKING:
    from pgflow_mp.executors.lanes.lane import LaneProcess
    from pgflow_mp.executors.lanes.slots import SlotReader

ASK: Final = signal.SIGURG
_MOST: Final = 100_000
"""Bytes of a stack that are read: 100 frames, with at most 500 characters of each name."""
_LOOK: Final = 0.01  # seconds between looks for answers
_HEAD: Final = b"Stack (most recent call first):"
_FRAME: Final = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$')
_ESCAPED: Final = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")

_SILENT: Final = "no answer: it is stopped, or its code has taken or blocked SIGURG, or closed our files"

_listening: int | None = None


def listen(fd: int, start: int) -> None:
    """In a lane's process: answer ASK from here on, into ``fd`` behind ``start``."""
    global _listening
    _listening = fd
    faulthandler.register(ASK, fd, all_threads=False, chain=False)
    os.pwrite(fd, b"%d\n" % fd, start)


def listen_again() -> None:
    """In a lane's process: after somebody has had the signal."""
    if _listening is not None:
        with contextlib.suppress(OSError, ValueError):
            faulthandler.unregister(ASK)
            faulthandler.register(ASK, _listening, all_threads=False, chain=False)


class StackFile:
    """The worker's side: the part of a control file that is behind ``start``."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self._start = start
        self._theirs: int | None = None

    def ask(self, pid: int) -> bool:
        """Have the process write where it is; False if it does not listen."""
        if self._theirs is None:
            number = os.pread(self._fd, 20, self._start)
            self._theirs = int(number) if number.endswith(b"\n") else None
        if self._theirs is None or not _is_same(f"/proc/{pid}/fd/{self._theirs}", self._fd):
            return False
        os.ftruncate(self._fd, self._start)
        os.lseek(self._fd, self._start, os.SEEK_SET)  # of both: the descriptor was sent, not opened
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, ASK)
        return True

    def read(self) -> tuple[list[Frame], bool]:
        """What it has written, the innermost frame first, and whether that is all of it."""
        return _frames(os.pread(self._fd, _MOST, self._start))


def _is_same(path: str, fd: int) -> bool:
    """Whether both are one file; where there is no /proc, that is taken for granted."""
    try:
        other, ours = os.stat(path), os.fstat(fd)
    except OSError:
        return not os.path.isdir("/proc/self/fd")
    return (other.st_dev, other.st_ino) == (ours.st_dev, ours.st_ino)


def _frames(written: bytes) -> tuple[list[Frame], bool]:
    _, head, text = written.rpartition(_HEAD)
    lines = text.decode("utf-8", "replace").split("\n")
    found = [
        Frame(_plain(each[1]), int(each[2]) if each[2].isdigit() else 0, _plain(each[3]))
        for each in map(_FRAME.match, lines)
        if each
    ]
    last = lines[-2] if head and len(lines) > 1 and not lines[-1] else ""
    return found, last == "  ..." or (last.startswith("  File ") and last.endswith(" in <module>"))


def _plain(name: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), name)


def stacks_of(processes: Iterable[LaneProcess], wait: float) -> list[LaneStack]:
    """Those of processes, which are asked at the same time and have ``wait`` seconds to answer."""
    asked = [(process, bool(process.look(_asking(process.pid)))) for process in processes]
    found: dict[int, LaneStack] = {}
    until = time.monotonic() + wait
    while len(found) < len(asked):
        over = time.monotonic() >= until
        for number, (process, listens) in enumerate(asked):
            if number not in found and (stack := _answer(process, over=over or not listens)) is not None:
                found[number] = stack
        if over:
            break
        time.sleep(_LOOK)
    return [found[number] for number in sorted(found)]


def _asking(pid: int) -> Callable[[SlotReader], bool]:
    return lambda slot: slot.stack.ask(pid)


def _answer(process: LaneProcess, *, over: bool) -> LaneStack | None:
    """What it has answered; None as long as that may still come."""
    frames, whole = process.look(lambda slot: slot.stack.read()) or ([], False)
    item, starting = process.running(), process.starting
    if process.dead:
        return LaneStack(process.lane, process.pid, (), note="its process has just ended")
    if not whole and not over:
        return None
    note = ""
    if not frames:
        note = _SILENT
        if not process.ready:
            note = "its process is being started"
    elif starting is not None:
        note = starting.what
    elif not process.ready:
        note = "loads its target"
    elif not is_at_work(frames):
        frames, item, note = [], None, "idle"
    shown = with_source(users_frames(frames))
    if item is None:
        return LaneStack(process.lane, process.pid, shown, note=note)
    return LaneStack(process.lane, process.pid, shown, item.run, item.step, item.index, item.elapsed, note)
