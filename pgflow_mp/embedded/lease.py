"""A client's side of the talk with the supervisor of an embedded server."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pgflow_mp.embedded.cluster import CONTROL_SOCKET, Plan, read_state
from pgflow_mp.embedded.diagnosis import log_tail
from pgflow_mp.errors import EmbeddedServerError

logger = logging.getLogger(__name__)

SILENCE_LIMIT = 30.0  # seconds; while it works, the supervisor reports every second
_STILL_BIRTHS = 3
BUSY_LIMIT = 90.0  # seconds; longer than a supervisor takes to stop its server

# The supervisor needs five of our modules and nothing of the package's own start-up (which imports
# the driver and more): empty parent packages keep its start near that of a bare interpreter. It
# forks first, so that it is nobody's child and outlives the client that started it.
_BOOT = """\
import os, sys, types
if os.fork():
    os._exit(0)
for name, path in (("pgflow_mp", sys.argv[2]), ("pgflow_mp.embedded", sys.argv[2] + "/embedded")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from pgflow_mp.embedded.supervisor import main
main()
"""

_open_leases: weakref.WeakSet[ServerLease] = weakref.WeakSet()


def _close_after_fork() -> None:
    for lease in list(_open_leases):
        lease.close()


# A forked child must not keep the server running after its parent has gone.
os.register_at_fork(after_in_child=_close_after_fork)


class ServerLease:
    """One connection to a supervisor. The server runs while it is open, or another one is."""

    def __init__(self, connection: socket.socket, home: Path, *, attached: bool) -> None:
        self._connection = connection
        self._home = home
        self._buffer = b""
        self.attached = attached
        self.socket_dir = ""
        self.port = 0
        _open_leases.add(self)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the supervisor's messages until it closes the connection."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                yield json.loads(line)
                continue
            try:
                received = self._connection.recv(65_536)
            except ConnectionError:
                return
            if not received:
                return
            self._buffer += received

    def await_ready(self) -> str:
        """Wait for ``ready``, the server answers; or ``busy``, there is another supervisor; or ``gone``."""
        last = ""
        try:
            for message in self.messages():
                match message["event"]:
                    case "ready":
                        self.socket_dir, self.port = str(message["socket_dir"]), int(message["port"])
                        self._connection.settimeout(None)
                        return "ready"
                    case "error":
                        raise as_error(message, self._home)
                    case "wait" if message["doing"] != last:
                        last = message["doing"]
                        logger.info("embedded PostgreSQL in %s: %s", self._home, last)
                    case "busy" | "stopped" | "left":
                        return "busy"
        except TimeoutError:
            raise EmbeddedServerError(
                f"The supervisor of the embedded PostgreSQL in {self._home} does not answer",
                hint=f"Look into {self._home}/supervisor.log and {self._home}/server.log.",
            ) from None
        return "gone"

    def leave(self) -> None:
        """Ask to be let go; the supervisor answers when that is done and closes the connection."""
        with contextlib.suppress(OSError):
            self._connection.sendall(b"leave\n")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def obtain(plan: Plan) -> ServerLease:
    """Return a lease on a running server: the one there is, or one started for us.

    Raises EmbeddedServerError, or OSError about the data directory.
    """
    home = Path(plan.home)
    deadline = time.monotonic() + BUSY_LIMIT
    still_births = 0
    while True:
        lease = _connect(home) or _spawn(plan, home)
        answer = "gone"
        try:
            answer = lease.await_ready()
        finally:
            if answer != "ready":
                lease.close()
        if answer == "ready":
            return lease
        still_births += answer == "gone" and not lease.attached
        if still_births == _STILL_BIRTHS:
            raise EmbeddedServerError(
                f"The supervisor of the embedded PostgreSQL in {home} ended without giving a reason",
                hint=_log_hint(home),
            )
        if time.monotonic() > deadline:  # usually it is only just starting or just stopping
            raise EmbeddedServerError(
                f"The data directory {home} is in use by a server that cannot be reached from here",
                hint="Stop the program that uses it (in another container?), or choose another --data-dir.",
            )
        time.sleep(0.03)


def _connect(home: Path) -> ServerLease | None:
    socket_dir = read_state(home).get("socket_dir")
    if not isinstance(socket_dir, str):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SILENCE_LIMIT)
    try:
        connection.connect(os.path.join(socket_dir, CONTROL_SOCKET))
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EAGAIN):
            return None
        raise
    return ServerLease(connection, home, attached=True)


def _spawn(plan: Plan, home: Path) -> ServerLease:
    package = str(Path(__file__).resolve().parents[1])
    log = os.open(home / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    ours, theirs = socket.socketpair()
    lease = ServerLease(ours, home, attached=False)
    ours.settimeout(SILENCE_LIMIT)
    command = [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), package, str(home)]
    try:
        launcher = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,  # Ctrl-C in our terminal is not meant for the server
        )
        with launcher, contextlib.suppress(ConnectionError):
            ours.sendall(json.dumps(asdict(plan)).encode() + b"\n")
    except OSError as error:
        lease.close()
        raise EmbeddedServerError(
            f"Cannot start the supervisor with {sys.executable!r}: {error}",
            hint="Run from an ordinary Python interpreter, check limits (ulimit -u), or give --dsn.",
        ) from error
    finally:
        theirs.close()
        os.close(log)
    return lease


def as_error(message: dict[str, Any], home: Path) -> Exception:
    """Return the exception for an ``error`` message of the supervisor."""
    if number := message.get("errno"):
        return OSError(number, os.strerror(number), message["message"])
    return EmbeddedServerError(message["message"], hint=message.get("hint") or _log_hint(home))


def _log_hint(home: Path) -> str:
    return f"look into {home}/supervisor.log; it ends with: {log_tail(home / 'supervisor.log', 3)}"
