"""What all items of a lane share, put right between them: an item may close or change it for the others.

Only what would fail or charge other items is looked after. What may be meant to last (a replaced
sys.stdout, a redirected descriptor, resource limits, the environment) stays as the handler left it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import os
import select
import signal
import sys
from typing import Any, Final

from pgflow_mp import streams
from pgflow_mp.executors.lanes import lifeline

_signal: Final[Any] = importlib.import_module("_signal")  # as signal, but makes no enums of what it tells
_SPARE_FD: Final = 64  # out of the way of what handlers open and count on
_STANDARD: Final = (0, 1, 2)


class Surroundings:
    """Remembers how things are; made once the target is loaded. Nothing here raises.

    ``after_item`` costs half a microsecond and belongs after every item. ``inspect`` looks closer, for
    some three microseconds, ten after an item that has filled the caches.
    """

    def __init__(self, shared_fd: int) -> None:
        self._directory = os.getcwd()
        self._spares = {fd: spare for fd in _STANDARD if (spare := _duplicate(fd)) is not None}
        self._standard = select.poll()
        for fd in _STANDARD:
            self._standard.register(fd, 0)
        self._shared_fd, self._shared = shared_fd, _identity(shared_fd)
        self._identities = {spare: _identity(spare) for spare in self._spares.values()}
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._has_alarm = signal.getitimer(signal.ITIMER_REAL)[0] > 0

    def after_item(self) -> None:
        """The working directory, and Python's standard streams."""
        try:
            if sys.stdout.closed or sys.stderr.closed:
                self._open_streams()
        except AttributeError:  # none, or a replacement that cannot be closed
            self._open_streams()
        try:
            if os.getcwd() == self._directory:
                return
        except OSError:
            pass
        with contextlib.suppress(OSError):
            os.chdir(self._directory)

    def inspect(self) -> bool:
        """The rest. False if the process has lost its connection to the worker, and cannot go on."""
        for fd, event in self._standard.poll(0):
            if event & select.POLLNVAL:
                self._open_file(fd)
        self._mend_signals()
        return self.connected

    @property
    def connected(self) -> bool:
        """False once an item has closed files that are ours; their numbers may be those of its own by now."""
        return _identity(self._shared_fd) == self._shared

    def _mend_signals(self) -> None:
        if _signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            lifeline.outlast_sigterm()
        if _signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if _signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if not self._has_alarm and signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            signal.setitimer(signal.ITIMER_REAL, 0)  # it would end or interrupt another item

    def _open_file(self, fd: int) -> None:
        spare = self._spares.get(fd)
        with contextlib.suppress(OSError):
            if spare is not None and _identity(spare) == self._identities[spare]:
                os.dup2(spare, fd)
                return
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)

    def _open_streams(self) -> None:
        for fd, name in ((1, "stdout"), (2, "stderr")):
            if not _is_closed(getattr(sys, name)):
                continue
            original = f"__{name}__"
            if _is_closed(getattr(sys, original)):
                with contextlib.suppress(OSError):
                    setattr(sys, original, _stream(fd))
            setattr(sys, name, getattr(sys, original))


def _is_closed(stream: Any) -> bool:
    return bool(getattr(stream, "closed", False))


def _stream(fd: int) -> io.TextIOWrapper:
    return streams.forgiving(fd)


def _duplicate(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SPARE_FD)
    except OSError:
        return None


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino
