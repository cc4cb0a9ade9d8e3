"""Imported by a lane pool's forkserver before it forks the first lane: loads what all lanes need.

That is our code, and only where it is asked for more: modules by name, or the user's own. Lanes then start
in milliseconds, also after a kill, and share the memory; but they also share what was made at import. A
process that is to be forked must have neither threads nor open files (threads are gone in the child; a
file's position would be shared by all lanes). If loading leaves any behind, or fails, the forkserver starts
itself again without it, and every lane loads everything on its own.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import re
import signal
import sys
from multiprocessing import forkserver
from typing import Final

import msgspec

from pgflow_mp import streams
from pgflow_mp.executors import cpus
from pgflow_mp.executors.lanes import lifeline, preloaded
from pgflow_mp.executors.lanes.preloaded import Preload

_WHY_NOT: Final = "PGFLOW_MP_NOT_PRELOADED"


def _orders() -> Preload | None:
    """What the forkserver's command line points to; None if this is none of ours or cannot be read."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        return None  # a lane
    command = sys.orig_argv[-1] if len(sys.orig_argv) > 1 else ""
    if not (found := re.search(r"forkserver import main; main\(\d+,.*'(/proc/\d+/fd/\d+)'", command)):
        return None
    try:
        with open(found[1], "rb") as file:
            orders = msgspec.msgpack.decode(file.read(), type=Preload)
    except OSError:  # no /proc, or a parent whose files are closed to us: lanes then load by themselves
        return None
    return orders


def _open_files() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own descriptor
            continue
    return found


def _unsafe(before: dict[int, str]) -> str:
    """What makes forking this process unsafe, or nothing."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"importing it starts {threads - 1} thread(s)"
    if opened := [path for fd, path in _open_files().items() if before.get(fd) != path]:
        return f"importing it opens {opened[0]}"
    return ""


def _restart(reason: str) -> None:
    """Become a fresh forkserver; the descriptors it was given are still open."""
    streams.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, _WHY_NOT: reason})  # noqa: S606 - ourselves


def _tie_to_parent(path: str) -> None:
    """End when the parent does."""
    pipe = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    lifeline.signal_at_end(pipe, signal.SIGKILL, group=False)


def _prepare() -> None:
    if (orders := _orders()) is None:
        return
    streams.forgive()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by every lane: the parent decides
    lifeline.own_group()
    lifeline.outlast_sigterm()
    _tie_to_parent(orders.lifeline)
    os.environ.update(cpus.thread_environment(orders.threads))
    from pgflow_mp.executors.lanes import child, listening  # noqa: F401 - every lane needs it

    preloaded.why_not = os.environ.pop(_WHY_NOT, "")
    if preloaded.why_not or not (orders.target or orders.modules) or not os.path.isdir("/proc/self/task"):
        return
    listening.begin()
    before = _open_files()
    sys.argv = orders.argv
    sys.path[:0] = [path for path in orders.sys_path if path not in sys.path]
    try:
        for name in orders.modules:
            importlib.import_module(name)
        if orders.target:
            preloaded.load(orders)
    except BaseException as error:  # noqa: BLE001 - the lane that loads it reports it
        _restart(f"importing it fails with {type(error).__name__}: {error}")
    if reason := _unsafe(before):
        _restart(reason)
    preloaded.before_fork = True
    streams.flush()  # or every lane would print it again
    gc.collect()
    gc.freeze()  # what was loaded stays shared: the collector does not touch it


if hasattr(forkserver, "main"):
    _prepare()
