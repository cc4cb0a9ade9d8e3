"""``python -m MODULE`` in a process forked from one which has imported what is not ours (warm_server).

An interpreter that was just started takes 0.2 seconds of CPU for that, each time. It is a process as any
other: own streams, directory, environment, exit status. What looks at how an interpreter starts, or is
told about it by the environment, is to be started as usual.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.ExitStack() as stack:
        for fd in (out, err):
            stack.callback(os.close, fd)
        with _lock:
            socket.send_fds(_server(), [b"x"], [stdin, stdout, stderr, theirs.fileno()])
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        theirs.close()
        order = {"module": module, "arguments": [*arguments], "cwd": str(cwd), "env": {**env}}
        ours.sendall(json.dumps(order).encode() + b"\n")
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
