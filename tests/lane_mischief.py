"""A flow whose items change what they share with the next items of their process; run by lanes in tests."""

from __future__ import annotations

import asyncio
import ctypes
import decimal
import fcntl
import gc
import io
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from pgflow_mp.flows.flow import Flow

flow = Flow("mischief")
variable: ContextVar[int] = ContextVar("variable", default=0)
_WHERE = os.getcwd()


def _limit(which: int, soft: int) -> None:
    resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))


def _limit_of(which: int) -> tuple[int, int]:
    return resource.getrlimit(which)


def _stdout() -> None:
    sys.stdout = io.StringIO()


def _excepthook() -> None:
    sys.excepthook = threading.excepthook = print


def _arguments() -> None:
    sys.argv = ["tool", "--quiet"]


def _display() -> None:
    sys.displayhook, sys.dont_write_bytecode = print, not sys.dont_write_bytecode


def _redirect() -> None:
    fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, 1)
    os.close(fd)


def _decimals() -> None:
    decimal.getcontext().prec = 3
    decimal.getcontext().traps[decimal.Inexact] = True


def _environment() -> None:
    os.environ.update(MISCHIEF="1", TZ="Asia/Tokyo")
    os.environ.pop("PATH")
    time.tzset()


def _warnings() -> None:
    warnings.simplefilter("error")
    warnings.showwarning = print  # type: ignore[assignment]


def _logging() -> None:
    logging.disable(logging.CRITICAL)
    logging.getLogger().setLevel(1)
    logging.getLogger().addHandler(logging.NullHandler())


def _tempdir() -> None:
    tempfile.tempdir = "/nowhere"


def _handlers() -> None:
    for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if number != signal.SIGINT else signal.SIG_DFL)


def _path() -> None:
    sys.path.insert(0, "/nowhere")


def _forget_path() -> None:
    sys.path = []


def _collector() -> None:
    gc.disable()
    gc.set_threshold(1, 2, 3)


def _prctl(option: int, value: int) -> None:
    """No call that anybody listens to: it is noticed after items that take longer than this."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    time.sleep(0.011)


def _limit_for_good() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    os.setuid(65534)


MISCHIEF: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "recursion limit": (lambda: sys.setrecursionlimit(120), sys.getrecursionlimit),
    "files": (lambda: _limit(resource.RLIMIT_NOFILE, 12), lambda: resource.getrlimit(resource.RLIMIT_NOFILE)),
    "file size": (
        lambda: _limit(resource.RLIMIT_FSIZE, 10),
        lambda: resource.getrlimit(resource.RLIMIT_FSIZE),
    ),
    "memory": (lambda: _limit(resource.RLIMIT_AS, 1 << 20), lambda: resource.getrlimit(resource.RLIMIT_AS)),
    "cpu": (lambda: _limit(resource.RLIMIT_CPU, 1000), lambda: resource.getrlimit(resource.RLIMIT_CPU)),
    "real timer": (lambda: signal.setitimer(signal.ITIMER_REAL, 0.4), lambda: signal.getitimer(0)[0]),
    "alarm": (lambda: signal.alarm(1), lambda: signal.getitimer(signal.ITIMER_REAL)[0]),
    "virtual timer": (lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.4), lambda: signal.getitimer(1)[0]),
    "profile timer": (lambda: signal.setitimer(signal.ITIMER_PROF, 0.4), lambda: signal.getitimer(2)[0]),
    "handlers": (_handlers, lambda: [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())]),
    "mask": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}),
        lambda: len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    ),
    "umask": (lambda: os.umask(0o777), lambda: os.umask(os.umask(0o22))),
    "directory": (lambda: os.chdir("/"), os.getcwd),
    "directory through a descriptor": (lambda: os.fchdir(os.open("/", os.O_RDONLY)), os.getcwd),
    "environment": (_environment, lambda: [sorted(os.environ.items()), time.tzname]),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), lambda: locale.setlocale(locale.LC_ALL)),
    "decimals": (_decimals, lambda: repr(decimal.getcontext())),
    "another decimal context": (
        lambda: decimal.setcontext(decimal.Context(prec=3)),
        lambda: decimal.getcontext().prec,
    ),
    "warnings": (_warnings, lambda: [repr(warnings.filters), repr(warnings.showwarning)]),
    "path": (_path, lambda: sys.path),
    "another path": (_forget_path, lambda: sys.path),
    "stdout": (_stdout, lambda: sys.stdout.fileno()),  # noqa: PLW0108
    "redirected": (_redirect, lambda: list(os.fstat(1))[:3]),
    "hooks": (_excepthook, lambda: [repr(sys.excepthook), repr(threading.excepthook)]),
    "logging": (
        _logging,
        lambda: [logging.root.manager.disable, logging.root.level, len(logging.root.handlers)],
    ),
    "collector": (_collector, lambda: [gc.isenabled(), gc.get_threshold()]),
    "trace": (lambda: sys.settrace(lambda *_: None), lambda: repr(sys.gettrace())),
    "profile": (lambda: sys.setprofile(lambda *_: None), lambda: repr(sys.getprofile())),
    "affinity": (
        lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]),
        lambda: sorted(os.sched_getaffinity(0)),
    ),
    "nice": (lambda: os.nice(1), lambda: os.nice(0)),
    "socket timeout": (lambda: socket.setdefaulttimeout(0.001), socket.getdefaulttimeout),
    "tempdir": (_tempdir, tempfile.gettempdir),
    "switch interval": (lambda: sys.setswitchinterval(3), sys.getswitchinterval),
    "digits": (lambda: sys.set_int_max_str_digits(700), sys.get_int_max_str_digits),
    "arguments": (lambda: sys.argv.append("--loud"), lambda: sys.argv),
    "other arguments": (_arguments, lambda: sys.argv),
    "display hook": (_display, lambda: [repr(sys.displayhook), sys.dont_write_bytecode]),
    "stack of threads": (lambda: threading.stack_size(1 << 20), threading.stack_size),
    "form of stdout": (
        lambda: sys.stdout.reconfigure(encoding="ascii", errors="strict"),  # type: ignore[union-attr]
        lambda: [sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering],
    ),
    "form of stderr": (
        lambda: sys.stderr.reconfigure(line_buffering=False),  # type: ignore[union-attr]
        lambda: sys.stderr.line_buffering,
    ),
    "start method": (
        lambda: multiprocessing.set_start_method("spawn", force=True),
        multiprocessing.get_start_method,
    ),
    "context variable": (lambda: variable.set(1), variable.get),
    "wakeup": (lambda: signal.set_wakeup_fd(_pipe()), lambda: signal.set_wakeup_fd(-1)),
    "death signal": (lambda: _prctl(1, 0), lambda: _death_signal()),  # noqa: PLW0108
    "event loop": (lambda: asyncio.run(asyncio.sleep(0)), sys.get_asyncgen_hooks),
}
CANNOT = {
    "hard limit": (_limit_for_good, os.getpid),
    "user": (lambda: os.setuid(65534), os.getuid),
    "group": (lambda: os.setgid(65534), os.getgid),
    "open files": (lambda: _open_files(), os.getpid),  # noqa: PLW0108
    "no new privileges": (lambda: _prctl(38, 1), os.getpid),
}


def _open_files() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for _ in range(limit // 2 if limit < 100_000 else 0):
        os.dup(0)
    if limit >= 100_000:
        fcntl.fcntl(0, fcntl.F_DUPFD, limit // 2 + 100)
    time.sleep(0.011)


def _pipe() -> int:
    write = os.pipe()[1]
    os.set_blocking(write, False)
    return write


def _death_signal() -> int:
    number = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
    return number.value


@flow.map
def act(order: list[str]) -> str:
    what, how = order
    if how == "seed":
        random.seed(7)
    if how in ("seed", "draw"):
        return str(random.random())
    do, look = {**MISCHIEF, **CANNOT}[what]
    if how == "do":
        do()
        return ""
    return repr(look())
