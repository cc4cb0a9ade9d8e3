"""``python -m MODULE`` in a process forked from one which has imported what is not ours (warm_server).

An interpreter that was just started takes 0.2 seconds of CPU for that, each time. It is a process as any
other: own streams, directory, environment, exit status. What looks at how an interpreter starts, or is
told about it by the environment, is to be started as usual.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("warm_server.py")
_OF_THE_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "PSYCOPG", "OPENSSL", "SSL")
_lock = threading.Lock()
_endings = contextlib.ExitStack()


@functools.cache
def _server() -> socket.socket:
    """Runs until end() is called."""
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, str(SERVER), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    _endings.callback(server.wait, 10)
    return _endings.enter_context(ours)


def end() -> None:
    """Have the server end, if there is one: tests are over."""
    _endings.close()


def _of_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_OF_THE_START)}


def can_run(env: Mapping[str, str]) -> bool:
    """Whether this environment differs in nothing that an interpreter reads when it starts."""
    return hasattr(socket, "send_fds") and _of_the_start(env) == _of_the_start(os.environ)


def _ask(
    module: str,
    arguments: Sequence[str],
    streams: Sequence[int],
    cwd: Path,
    env: Mapping[str, str],
    in_new_session: bool = False,
) -> socket.socket:
    """Have a process begin; what is returned gives its id and, when it has ended, its status, a line each."""
    ours, theirs = socket.socketpair()
    with theirs, _lock:
        socket.send_fds(_server(), [b"x"], [*streams, theirs.fileno()])
    order = {"module": module, "arguments": [*arguments], "cwd": str(cwd), "env": {**env}}
    ours.sendall(json.dumps({**order, "session": in_new_session}).encode() + b"\n")
    return ours


class Process(subprocess.Popen[str]):
    """As ``subprocess.Popen([python, "-m", module, *arguments], cwd=..., env=..., text=True)``, forked so.

    It is no child of this process: what its start takes is the only difference.
    """

    _answers: socket.socket

    def _execute_child(self, args: Sequence[str], *more: Any) -> None:
        named = inspect.signature(subprocess.Popen._execute_child).bind(self, args, *more).arguments  # type: ignore[attr-defined]
        streams = [named[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self._answers = _ask(
            args[2],
            args[3:],
            [fd if fd >= 0 else number for number, fd in enumerate(streams)],
            named["cwd"] or Path.cwd(),
            named["env"] or os.environ,
            named["start_new_session"],
        )
        self.pid = self._number()
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*[named[name] for name in pipes])  # type: ignore[attr-defined]

    def _number(self) -> int:
        digits = b""
        while (digit := self._answers.recv(1)) not in (b"\n", b""):
            digits += digit
        return int(digits)

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
                    self.returncode = self._number()
                    self._answers.close()
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._internal_poll() is None:
            if (rest := deadline - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            with contextlib.suppress(OSError, ValueError):  # another thread has read the answer
                select.select([self._answers], [], [], min(rest, 0.5))
        return self.returncode


def run(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    input: bytes = b"",
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """As ``subprocess.run([python, "-m", module, *arguments], capture_output=True)``."""
    deadline = time.monotonic() + timeout
    pipes = [os.pipe() for _ in range(3)]
    (stdin, feed), (out, stdout), (err, stderr) = pipes
    with contextlib.ExitStack() as stack:
        for fd in (out, err):
            stack.callback(os.close, fd)
        ours = stack.enter_context(_ask(module, arguments, (stdin, stdout, stderr), cwd, env))
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        answers = stack.enter_context(ours.makefile("rb"))
        pid = int(answers.readline())
        try:
            found = _communicate(feed, input, {out: [], err: []}, deadline)
            ours.settimeout(max(0.1, deadline - time.monotonic()))
            code = int(answers.readline())
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([module, *arguments], timeout) from None
    return subprocess.CompletedProcess([module, *arguments], code, found[out], found[err])


def said(
    module: str, *arguments: str, cwd: Path | None = None, timeout: float = 60.0, **env: str
) -> subprocess.CompletedProcess[str]:
    """The same with nothing to read, the environment of this process and more, and text for an answer."""
    done = run(
        module,
        arguments,
        cwd=cwd or Path.cwd(),
        env={**os.environ, **env},
        timeout=timeout,
    )
    text = (done.stdout.decode(), done.stderr.decode())
    return subprocess.CompletedProcess(done.args, done.returncode, *text)


def _communicate(feed: int, input: bytes, found: dict[int, list[bytes]], deadline: float) -> dict[int, bytes]:
    """Write ``input`` and read until both are at their ends."""
    with selectors.DefaultSelector() as selector:
        for fd in found:
            selector.register(fd, selectors.EVENT_READ)
        os.set_blocking(feed, False)
        selector.register(feed, selectors.EVENT_WRITE)
        rest = memoryview(input)
        while selector.get_map():
            if not (ready := selector.select(deadline - time.monotonic())) and time.monotonic() >= deadline:
                raise TimeoutError
            for key, _ in ready:
                if key.fd == feed:
                    try:
                        rest = rest[os.write(feed, rest[:65536]) :] if rest else rest
                    except BrokenPipeError:
                        rest = rest[:0]
                    if not rest:
                        selector.unregister(feed)
                        os.close(feed)
                elif data := os.read(key.fd, 65536):
                    found[key.fd].append(data)
                else:
                    selector.unregister(key.fd)
    return {fd: b"".join(parts) for fd, parts in found.items()}
