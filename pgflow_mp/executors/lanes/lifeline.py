"""Children end with their parent, whatever they are doing; kernel mechanisms, so C loops cannot hold them.

1. The read end of a pipe whose only writer is the parent is set to signal SIGKILL to the child's whole
   process group the moment the writer is gone (F_SETSIG, O_ASYNC): Linux.
2. PR_SET_PDEATHSIG for the forkserver's death, which follows the parent's: Linux.
3. A thread that waits for the pipe's end, elsewhere.

Threads: that one only waits and ends the process; whatever else is here is for the thread that it concerns.

And they end only then, or when the parent ends them: process managers send SIGTERM to all processes of a
service at once, and the parent, which gets it too, lets running items finish first.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final

_PR_SET_PDEATHSIG = 1

TERMINATE: Final[int] = getattr(signal, "SIGRTMAX", signal.SIGUSR2 + 1) - 1
"""How the parent terminates a lane: a signal that nobody else sends. It ends a process by default."""

_outlasting = False


class _Mask(threading.local):
    """The signals that this thread had blocked before it began to fork."""

    before: set[Any] | None = None


_mask: Final = _Mask()


def outlast_sigterm() -> None:
    """Take no notice of SIGTERM here. What is forked or executed from here ends by it as usual."""
    global _outlasting
    signal.signal(signal.SIGTERM, _pass_over)
    if not _outlasting:
        _outlasting = True
        os.register_at_fork(
            before=_hold_sigterm, after_in_parent=_let_sigterm_in, after_in_child=_heed_sigterm
        )


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    """A handler rather than SIG_IGN, which programs started from here would inherit."""


def _hold_sigterm() -> None:
    """A child is not to hear it before it heeds it: it would pass over what ends it."""
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_sigterm_in() -> None:
    before, _mask.before = _mask.before, None
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_sigterm() -> None:
    if signal.getsignal(signal.SIGTERM) is _pass_over:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_sigterm_in()


def own_group() -> bool:
    """Lead a process group of our own, so that a terminal's signals reach the worker alone."""
    try:
        os.setpgid(0, 0)
    except OSError:  # a session leader already
        return os.getpgrp() == os.getpid()
    return True


def signal_at_end(fd: int, number: signal.Signals, *, group: bool) -> bool:
    """Have the kernel signal us (our group) once pipe ``fd`` has no writer left; False if it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp() if group else os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False
    if wait([fd], timeout=0):  # it was already gone: no signal will come
        os._exit(1)
    return True


def die_with_forkserver() -> None:
    """Have the kernel kill us when the process that forked us dies, and let it die with the parent."""
    server: Any = forkserver._forkserver
    alive, server._forkserver_alive_fd = server._forkserver_alive_fd, None
    if alive is not None:  # every child holds the server's "alive" pipe open, which would keep it alive
        with contextlib.suppress(OSError):
            os.close(alive)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def arm() -> None:
    """Called first thing in a lane's process: from here on it cannot outlive its parent."""
    grouped = own_group()
    parent = parent_process()
    if parent is None:
        return
    if os.getppid() != parent.pid:
        die_with_forkserver()
    sentinel: Any = parent.sentinel
    if not signal_at_end(sentinel, signal.SIGKILL, group=grouped):
        threading.Thread(target=_watch, args=(sentinel,), name="pgflow-lifeline", daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
