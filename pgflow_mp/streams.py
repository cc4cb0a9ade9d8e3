"""Standard streams that never decide about the work: closed, full or broken ones lose text, nothing else.

A process may be started without them (``>&-``): files and sockets would then get the numbers 0 to 2, and
whatever prints would write into them. Or they lead to a full disk, or to a reader that has gone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, Final

__all__ = ["failure", "flush", "forgive", "forgiving", "guard", "was_closed"]

_NAMES: Final = {1: "stdout", 2: "stderr"}
_PATIENCE: Final = 5000  # milliseconds, for one that does not block

_closed: set[int] = set()
_failures: dict[int, OSError] = {}


def guard() -> None:
    """Have 0 to 2 lead to /dev/null where they lead nowhere, before anything else gets these numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(number)
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


def forgive() -> None:
    """Have Python's standard output and error lose what cannot be written. Others' replacements stay."""
    guard()
    for number, name in _NAMES.items():
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or isinstance(stream, _Forgiving):
            continue
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        new = forgiving(
            number,
            encoding=getattr(stream, "encoding", None) or "utf-8",
            line_buffering=number == 2 or bool(getattr(stream, "line_buffering", False)),
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def forgiving(
    descriptor: int, *, encoding: str = "utf-8", line_buffering: bool = True, reports: int | None = None
) -> io.TextIOWrapper:
    """A text stream to a descriptor, which stays open, that never raises an error of the system.

    What goes wrong is found by :func:`failure` under the number ``reports``, else the descriptor's own.
    """
    sink = io.BufferedWriter(_Sink(descriptor, descriptor if reports is None else reports))
    return _Forgiving(sink, encoding=encoding, errors="backslashreplace", line_buffering=line_buffering)


def failure(number: int) -> OSError | None:
    """What kept something from being written to standard output (1) or error (2), if anything did."""
    return _failures.get(number)


def was_closed(number: int) -> bool:
    """Whether this process was started without it."""
    return number in _closed


def flush() -> None:
    """Write out what Python's standard streams hold, as far as it goes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


class _Forgiving(io.TextIOWrapper):
    """Known by its class."""


class _Sink(io.RawIOBase):
    """Takes all that is written, whatever becomes of it."""

    def __init__(self, descriptor: int, number: int) -> None:
        super().__init__()
        self._descriptor, self._number = descriptor, number
        self.name = f"<{_NAMES.get(number, descriptor)}>"
        self.mode = "wb"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        if self._number in _closed:
            _failures[self._number] = OSError(errno.EBADF, "it is closed")
            return size
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError as error:
                if not _is_ready(self._descriptor):
                    _failures[self._number] = error
                    break
            except OSError as error:
                _failures[self._number] = error
                break
        return size


def _is_ready(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(_PATIENCE))
