"""What all items of a lane share, put right between them: what one changes is not the business of others.

What can be put back is put back: the working directory, standard streams and descriptors, the environment,
the interpreter's settings (``interpreter``), limits, timers, signals and more (``kernel``). Where something
cannot be, the process is replaced, as it is once too many files have been left open. Not looked after:
modules and their variables, and threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import resource
import select
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from pgflow_mp import streams
from pgflow_mp.executors.lanes.interpreter import Interpreter
from pgflow_mp.executors.lanes.kernel import Kernel
from pgflow_mp.executors.lanes.listening import heard, original

_SPARE_FD: Final = 64  # out of the way of what handlers open and count on
_STANDARD: Final = (0, 1, 2)
LONG: Final = 250e-6  # seconds of an item after which a closer look costs next to nothing
_VERY_LONG: Final = 10e-3  # and a look at everything, which takes a fifth of a millisecond at worst
_PAUSE: Final = 0.05  # seconds between looks at everything, where chunks begin


class Surroundings:
    """Remembers how things are; made once the target is loaded. Nothing here raises.

    ``after_item`` belongs after every item, ``begin_chunk`` before the first one.
    """

    def __init__(self, shared_fd: int) -> None:
        self._directory = os.getcwd()
        self._spares = {fd: spare for fd in _STANDARD if (spare := _duplicate(fd)) is not None}
        self._standard = select.poll()
        for fd in _STANDARD:
            self._standard.register(fd, 0)
        self._shared_fd, self._shared = shared_fd, _identity(shared_fd)
        self._identities = {spare: _identity(spare) for spare in self._spares.values()}
        self._chdir, self._dup2 = original("os", "chdir"), original("os", "dup2")
        self._lowest = _lowest_free()
        self._spare = (self._soft_limit() - self._lowest) // 2
        self._interpreter = Interpreter()
        self.contexts = self._interpreter.contexts
        self._kernel = Kernel()
        self._looked = time.monotonic()
        heard.anything = heard.seeded = False

    def after_item(self, seconds: float, failed: bool) -> bool:
        """Put right what an item has left, after so many seconds. False if that cannot be done.

        Need not be called where the item was no LONG one, completed, and ``is_changed`` answers False.
        """
        try:
            changed = self.is_changed()
        except Exception:  # noqa: BLE001 - a stream that cannot be closed, or what cannot be compared
            changed = True
        if changed:
            heard.anything = True
            self._mend()
        if heard.anything or failed or seconds > _VERY_LONG:
            return self._look_at_everything()
        if seconds > LONG:
            self._look_at_files()
            return self.connected
        return True

    @property
    def is_changed(self) -> Callable[[], bool]:
        """A function that says it of what items change most easily; another one each time it is mended."""
        return self._interpreter.is_changed

    def renewed(self) -> Surroundings:
        """As things are now: they were changed on purpose. This one is not used afterwards."""
        self._look_at_files()
        _insist(self._open_closed_streams)
        for spare in self._spares.values():
            if _identity(spare) == self._identities[spare]:
                os.close(spare)
        return Surroundings(self._shared_fd)

    def begin_chunk(self) -> bool:
        """Threads of earlier items go on between chunks. False as with after_item."""
        if time.monotonic() - self._looked > _PAUSE:
            return self.after_item(0.0, True)
        self._look_at_files()
        return self.connected

    def _mend(self) -> None:
        _insist(self._interpreter.mend)
        self._open_streams()

    def _open_closed_streams(self) -> bool:
        self._open_streams()
        return True

    def _look_at_everything(self) -> bool:
        heard.anything = False
        fine = _insist(self._kernel.mend) and _insist(self._mend_rest)
        self._looked = time.monotonic()
        return fine and self.connected

    def _mend_rest(self) -> bool:
        self._interpreter.mend_rest()
        self._look_at_files()
        for fd, spare in self._spares.items():
            if _identity(fd) != self._identities[spare]:
                self._open_file(fd)
        self._return_home()
        return _lowest_free() - self._lowest < self._spare  # files that items leave open become too many

    @staticmethod
    def _soft_limit() -> int:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return soft if soft != resource.RLIM_INFINITY else 1 << 20

    def _return_home(self) -> None:
        with contextlib.suppress(OSError):
            if os.getcwd() == self._directory:
                return
        with contextlib.suppress(OSError):
            self._chdir(self._directory)

    def _look_at_files(self) -> None:
        for fd, event in self._standard.poll(0):
            if event & select.POLLNVAL:
                self._open_file(fd)

    @property
    def connected(self) -> bool:
        """False once an item has closed files that are ours; their numbers may be those of its own by now."""
        return _identity(self._shared_fd) == self._shared

    def _open_file(self, fd: int) -> None:
        spare = self._spares.get(fd)
        with contextlib.suppress(OSError):
            if spare is not None and _identity(spare) == self._identities[spare]:
                self._dup2(spare, fd)
                return
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                self._dup2(null, fd)
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


def _insist(mend: Callable[[], bool]) -> bool:
    """Whether it succeeds. At the first try, a timer or a signal of the item's may still come to raise."""
    for _ in range(3):
        with contextlib.suppress(BaseException):
            return mend()
    return False


def _is_closed(stream: Any) -> bool:
    return bool(getattr(stream, "closed", False))


def _stream(fd: int) -> io.TextIOWrapper:
    return streams.forgiving(fd)


def _duplicate(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SPARE_FD)
    except OSError:
        return None


def _lowest_free() -> int:
    """The number that the next file will get. Raises OSError if there is none."""
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return fd


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino
