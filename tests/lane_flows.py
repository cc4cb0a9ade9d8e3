"""A flow whose handlers misbehave on request; run by lanes in the tests."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import json
import multiprocessing
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pgflow_mp.flows.context import Context
from pgflow_mp.flows.failures import Failed
from pgflow_mp.flows.flow import Flow

flow = Flow("misbehave")
tiny = Flow("tiny")
batched = Flow("batched")


@tiny.map
def noop(x: int) -> int:
    return x


def _overflow(depth: int) -> int:
    """Recursion in C frames until the stack ends; a small one, to end before Python steps in."""
    sys.setrecursionlimit(10**6)
    resource.setrlimit(resource.RLIMIT_STACK, (256 * 1024, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    return depth + len(repr(sorted([depth], key=_overflow)))


def spin(_: Any) -> None:
    while True:
        pass


def spin_in_c(_: Any) -> None:
    """One C call that takes hours and never lets go of the interpreter."""
    sum(range(10**12))


def ignore_sigterm(_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def fork_and_return(_: Any) -> str:
    pid = os.fork()
    if pid == 0:
        return "the copy came back"
    os.waitpid(pid, 0)
    return "the lane came back"


def fork_a_sleeper(seconds: float) -> int:
    child = subprocess.Popen(["sleep", str(seconds)])
    return child.pid


def run_a_sleeper(seconds: float) -> int:
    return subprocess.run(["sleep", str(seconds)], check=False).returncode


def spin_with_children(path: str) -> None:
    here = subprocess.Popen(["sleep", "100"])
    away = subprocess.Popen(["sleep", "100"], start_new_session=True)
    with open(path, "w") as file:
        file.write(f"{here.pid} {away.pid}")
    spin(None)


def end_by_sigterm(_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def block_all_signals(_: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(1)


def fork_a_sleeping_copy(seconds: float) -> int:
    """How the copy ended, as subprocess would say it."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def square(number: int) -> int:
    return number * number


def use_a_pool(items: int) -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:  # its end is a SIGTERM to its processes
        return pool.map(square, range(items))


def start_a_thread(_: Any) -> str:
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "started"


def close_standard_files(_: Any) -> str:
    for fd in (0, 1, 2):
        os.close(fd)
    time.sleep(0.001)
    return "closed"


def close_streams(_: Any) -> str:
    sys.stdout.close()
    sys.stderr.close()
    return "closed"


def replace_and_close_stream(_: Any) -> str:
    sys.stdout = sys.stderr = io.StringIO()
    sys.stdout.close()
    return "closed"


def say(word: str) -> None:
    print(word)
    print(word, file=sys.stderr)
    subprocess.run(["true"], check=True)


def close_and_reopen(directory: str) -> int:
    """Take every number below 64 for files of one's own."""
    os.closerange(3, 4096)
    for number in range(3, 64):
        fd = os.open(f"{directory}/{number}", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"mine")
        os.lseek(fd, 0, os.SEEK_SET)
    time.sleep(0.001)
    return 64


def close_reopen_and_return(order: list[Any]) -> str:
    directory, size = order
    close_and_reopen(directory)
    return "x" * int(size)


def block_signals_and_return(seconds: float) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD})
    time.sleep(seconds)


def default_signals(seconds: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    time.sleep(seconds)


_monotonic = time.monotonic


def stop_the_clock(_: Any) -> None:
    """As libraries do that freeze time in tests, and forget to let it go."""
    vars(time)["monotonic_ns"] = lambda: 0
    vars(time)["monotonic"] = vars(time)["perf_counter"] = lambda: 0.0
    vars(json)["dumps"] = vars(json)["loads"] = None


def spin_for(seconds: float) -> None:
    until = _monotonic() + seconds
    while _monotonic() < until:
        pass


def exit_in_a_thread(_: Any) -> None:
    thread = threading.Thread(target=sys.exit, args=(3,))
    thread.start()
    thread.join()


class _Bottomless:
    def __del__(self) -> None:
        self.__del__()


def raise_in_del(_: Any) -> None:
    _Bottomless()


def leave_the_group(_: Any) -> None:
    if os.getpgrp() == os.getpid():
        os.setpgid(0, os.getpgid(os.getppid()))
    os.setsid()


def daemonize(_: Any) -> int:
    """Fork twice and leave a process in a session of its own; its pid."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            os.close(writer)
            time.sleep(20)
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as pipe:
        return int(pipe.read())


def change_mask_and_limits(_: Any) -> None:
    os.umask(0o777)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def close_everything(_: Any) -> str:
    os.closerange(0, 4096)
    return "closed"


def change_directory(path: str) -> str:
    os.chdir(path)
    return os.getcwd()


def flood(megabytes: int) -> int:
    for _ in range(megabytes):
        sys.stdout.write("x" * 2**20)
    return megabytes


def allocate(megabytes: int) -> int:
    block = bytearray(megabytes * 2**20)
    for at in range(0, len(block), 4096):
        block[at] = 1
    time.sleep(5)
    return len(block)


_kept: list[bytearray] = []


def keep(megabytes: int) -> int:
    _kept.append(bytearray(os.urandom(1024)) * (megabytes * 1024))
    return len(_kept)


def take_sigurg(seconds: float) -> None:
    signal.signal(signal.SIGURG, lambda *_: None)
    time.sleep(seconds)


def block_sigurg(seconds: float) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    time.sleep(seconds)


def use_faulthandler(path: str) -> None:
    """All of it."""
    with open(path, "w") as file:
        faulthandler.disable()
        faulthandler.enable(file)
        faulthandler.register(signal.SIGUSR1, file, chain=True)
        faulthandler.dump_traceback_later(0.05, repeat=True, file=file)
        time.sleep(0.5)
        faulthandler.cancel_dump_traceback_later()


def dive(depth: int) -> None:
    if depth:
        dive(depth - 1)
    time.sleep(60)


def wait_in_many_ways(_: Any) -> list[float]:
    """Half a second each: asleep, for a file, for a lock, for an answer, for a program; how long it was."""
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    ours.settimeout(0.5)
    times = []
    for wait in (
        lambda: time.sleep(0.5),
        lambda: select.select([reader], [], [], 0.5),
        lambda: threading.Event().wait(0.5),
        lambda: ours.recv(1),
        lambda: subprocess.run(["sleep", "0.5"], check=True),
    ):
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            wait()
        times.append(time.monotonic() - began)
    for fd in (reader, writer):
        os.close(fd)
    ours.close()
    theirs.close()
    return times


def raise_interrupt(_: Any) -> None:
    raise KeyboardInterrupt


ACTIONS: dict[str, Callable[[Any], Any]] = {
    "echo": lambda value: value,
    "sleep": time.sleep,
    "segfault": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "os_exit": os._exit,
    "sys_exit": sys.exit,
    "kill_self": lambda number: os.kill(os.getpid(), number),
    "overflow": _overflow,
    "interrupt": raise_interrupt,
    "take_sigurg": take_sigurg,
    "block_sigurg": block_sigurg,
    "use_faulthandler": use_faulthandler,
    "dive": dive,
    "wait_in_many_ways": wait_in_many_ways,
    "spin": spin,
    "spin_in_c": spin_in_c,
    "ignore_sigterm": ignore_sigterm,
    "fork_and_return": fork_and_return,
    "fork_a_sleeper": fork_a_sleeper,
    "run_a_sleeper": run_a_sleeper,
    "spin_with_children": spin_with_children,
    "close_streams": close_streams,
    "replace_and_close_stream": replace_and_close_stream,
    "say": say,
    "close_and_reopen": close_and_reopen,
    "close_reopen_and_return": close_reopen_and_return,
    "set_alarm": lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds),
    "block_signals_and_return": block_signals_and_return,
    "blocked_signals": lambda _: len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "default_signals": default_signals,
    "stop_the_clock": stop_the_clock,
    "spin_for": spin_for,
    "exit_in_a_thread": exit_in_a_thread,
    "raise_in_del": raise_in_del,
    "leave_the_group": leave_the_group,
    "daemonize": daemonize,
    "change_mask_and_limits": change_mask_and_limits,
    "end_by_sigterm": end_by_sigterm,
    "block_all_signals": block_all_signals,
    "fork_a_sleeping_copy": fork_a_sleeping_copy,
    "use_a_pool": use_a_pool,
    "start_a_thread": start_a_thread,
    "close_standard_files": close_standard_files,
    "close_everything": close_everything,
    "change_directory": change_directory,
    "getcwd": lambda _: os.getcwd(),
    "flood": flood,
    "allocate": allocate,
    "keep": keep,
    "big": lambda size: "x" * size,
    "pid": lambda _: os.getpid(),
    "environ": os.environ.get,
    "modules": lambda name: name in sys.modules,
}


@flow.map
def act(order: list[Any]) -> Any:
    """``order`` is [name of an action, its argument]."""
    name, argument = order
    return ACTIONS[name](argument)


@flow.map
def wait_for_shutdown(seconds: float, ctx: Context) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ctx.shutdown.is_set():
        time.sleep(0.005)
    return ctx.shutdown.is_set()


@flow.map
def describe(word: str, ctx: Context) -> list[Any]:
    return [word, ctx.run_id, ctx.step_slug, ctx.task_index, ctx.attempt, ctx.msg_id, ctx.raw_input.decode()]


@batched.map(batch=4)
def act_all(orders: list[list[Any]]) -> list[Any]:
    """Each order as with ``act``; what raises is answered if it is an item's, and raised if it is "raise"."""
    answers: list[Any] = []
    for name, argument in orders:
        if name == "raise":
            raise LookupError(argument)
        answers.append(Failed(argument) if name == "fail" else ACTIONS[name](argument))
    return answers


@batched.map(batch=4)
def sizes(items: list[int], ctx: Context) -> list[Any]:
    return [[len(items), ctx.task_index, ctx.raw_input.decode()] for _ in items]
