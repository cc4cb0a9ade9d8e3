"""Forks ``python -m MODULE`` for tests (warm_python): what an interpreter takes longest to import is there.

Our own modules are there for our own program only, which spends two thirds of a short command on importing
them. Whether each of them can be imported before all others is for test_layers.py, and what a command imports
for those who start one as usual.
Started with the number of a socket; ends with it. A message is four descriptors: standard input, output and
error of a new process, and a socket from which that process reads what it is to be, and to which its id and
then its exit status are written.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import threading
import types

OURS = "pgflow_mp"
HEAVY = (
    *("argparse", "asyncio", "concurrent.futures.process", "csv", "decimal", "email.message", "gzip"),
    *("hashlib", "inspect", "ipaddress", "json", "logging", "msgspec", "msgspec.json", "msgspec.msgpack"),
    *("msgspec.structs", "multiprocessing.popen_forkserver", "platformdirs", "psutil", "psycopg"),
    *("psycopg.rows", "psycopg.sql", "psycopg.types.json", "ssl", "subprocess", "tomllib"),
    *("urllib.request", "uuid", "zoneinfo"),
)
_ACT_WHEN_IMPORTED = tuple(
    f"{OURS}.{name}" for name in ("__main__", "bench", "executors.engines", "executors.lanes")
)
_READS_THE_ENVIRONMENT = f"{OURS}.loading.reentry"  # when it is imported


def _import_ours() -> None:
    for found in pkgutil.walk_packages(importlib.import_module(OURS).__path__, f"{OURS}."):
        if not found.name.startswith(_ACT_WHEN_IMPORTED):
            with contextlib.suppress(
                ImportError
            ):  # of what is for type checkers only, or comes with an extra
                importlib.import_module(found.name)


def _forget_ours() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == OURS]:
        del sys.modules[name]


def serve(listener: socket.socket) -> list[int]:
    """Fork until the socket ends; returns in each child, with its descriptors."""
    alarm, ring = os.pipe()
    for fd in (alarm, ring):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener.fileno(), alarm], [], [])
        if alarm in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(alarm, 512)
            _reap(waiting)
        if listener.fileno() not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(listener, 1, 4)
        if not message:
            os._exit(0)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (alarm, ring, listener.detach()):
                os.close(fd)
            for other in waiting.values():
                other.close()
            return fds
        for fd in fds[:3]:
            os.close(fd)
        waiting[pid] = socket.socket(fileno=fds[3])
        waiting[pid].sendall(b"%d\n" % pid)


def _reap(waiting: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            asker = waiting.pop(found[0])
            with contextlib.suppress(OSError):
                asker.sendall(b"%d\n" % os.waitstatus_to_exitcode(found[1]))
            asker.close()


def become(fds: list[int]) -> str:
    """Take streams, directory, environment and arguments; the name of the module to run."""
    with socket.socket(fileno=fds[3]) as asker, asker.makefile("rb") as file:
        order = json.loads(file.readline())
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
        os.close(fd)
    if order["session"]:
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["-m", *order["arguments"]]
    sys.orig_argv = [sys.executable, "-m", order["module"], *order["arguments"]]
    sys.path[0] = order["cwd"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    name: str = order["module"]
    if name == OURS:
        importlib.reload(sys.modules[_READS_THE_ENVIRONMENT])
    else:
        _forget_ours()
    return name


def end(status: object) -> None:
    """End as an interpreter does, but for taking apart what is loaded: copying it costs more than the work.

    Returns where that is for the interpreter: a status that is no number, and streams that take nothing.
    """
    if status is not None and not isinstance(status, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            return
    os._exit((status or 0) & 0xFF)


if __name__ == "__main__":
    for heavy in HEAVY:
        importlib.import_module(heavy)
    _import_ours()
    gc.freeze()  # or a child's collector would copy all of it
    run_module = runpy._run_module_as_main  # type: ignore[attr-defined]
    program = become(serve(socket.socket(fileno=int(sys.argv[1]))))
    try:
        run_module(program)
    except SystemExit as ending:
        end(ending.code)
        raise
