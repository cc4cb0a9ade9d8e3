"""A process of somebody else's pool ends with the one that started it, and ends what it started itself.

Otherwise it would run the rest of its chunk for nobody, and then wait for calls for ever: the processes of
a ProcessPoolExecutor hold both ends of the pipe that they read, so they never see that their parent is gone.

A thread watches, not the kernel as in lanes: these processes lead no group, and what they started would
stay. So one in C code that does not release the GIL ends after that.

Threads: any.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final

import psutil

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

_LOOK: Final = 2.0  # seconds
_owner = 0
_tied = 0


def own_process() -> None:
    """This process has executors of its own: it is nobody's place, even where another one started it."""
    global _owner
    _owner = os.getpid()


def end_with_parent() -> None:
    """See to it that this process ends with its parent, if it is a place. May be called often."""
    global _tied
    parent, here = parent_process(), os.getpid()
    if parent is None or here in (_tied, _owner):
        return
    _tied = here
    what = (parent.sentinel, _identity(parent.sentinel), os.getppid())
    threading.Thread(target=_watch, args=what, name="pgflow_mp parent", daemon=True).start()


def tie(pool: ProcessPoolExecutor) -> None:
    """Have the processes of this pool end with this one, also those that never get anything to run.

    Where it has started none yet; others are tied by what they run.
    """
    if not pool._processes:
        begin: Any = (pool._initializer, pool._initargs)
        pool._initializer, pool._initargs = _begin, begin


def _begin(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if initializer is not None:
        initializer(*arguments)


def _identity(fd: int) -> object:
    with contextlib.suppress(OSError):
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    return None


def _watch(sentinel: int, identity: object, above: int) -> None:
    """Wait for the end of the pipe that the parent holds, which a handler may close, or another parent."""
    while os.getppid() == above:
        if _identity(sentinel) != identity:
            threading.Event().wait(_LOOK)
        elif wait([sentinel], _LOOK) and _identity(sentinel) == identity:
            break
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    os._exit(1)
