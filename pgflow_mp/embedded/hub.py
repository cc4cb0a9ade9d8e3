"""The supervisor's side of the talk with its clients: one lease each. Standard library only."""

from __future__ import annotations

import contextlib
import json
import math
import select
import signal
import socket
import time
from pathlib import Path

from pgflow_mp.embedded.cluster import CONTROL_SOCKET


class NoClientLeft(Exception):
    """The last lease is gone."""


def send(client: socket.socket, event: str, **values: object) -> None:
    """Send one message; a client that is gone, or does not read, misses it."""
    with contextlib.suppress(OSError):
        client.sendall(json.dumps({"event": event, **values}).encode() + b"\n")


class ClientHub:
    """All leases on a server, and the door by which new ones come."""

    def __init__(self, first: socket.socket) -> None:
        first.setblocking(False)
        self._leases: set[socket.socket] = {first}
        self._leaving: list[socket.socket] = []
        self._ready: dict[str, object] | None = None
        self._quit = False
        self._listener: socket.socket | None = None
        self._wakeup, self._wakeup_writer = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_writer.setblocking(False)
        self._noted = 0.0

    def watch_signals(self) -> None:
        """Let the end of a child, or SIGQUIT, interrupt :meth:`pump`; be deaf to all other signals.

        A shutdown of the machine asks every process to end at once, but the clients still need the
        server to settle what they have; the supervisor ends when they have ended.
        """
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGQUIT, self._on_quit)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)

    def _on_quit(self, *_: object) -> None:
        self._quit = True

    def open(self, directory: Path) -> None:
        """Accept clients on a socket in ``directory``."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(directory / CONTROL_SOCKET))
        listener.listen(64)
        self._listener = listener

    def close(self) -> None:
        """Accept nobody any more; who is about to come is reset, and tries again elsewhere."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                Path(self._listener.getsockname()).unlink()
            self._listener.close()
            self._listener = None

    def announce(self, ready: dict[str, object] | None) -> None:
        """Tell the present clients, and each coming one, how to connect; None: nobody can just now."""
        self._ready = ready
        if ready is not None:
            for lease in self._leases:
                send(lease, "ready", **ready)

    def tell(self, event: str, **values: object) -> None:
        """Send a message to every client, also to those that are leaving."""
        for client in [*self._leases, *self._leaving]:
            send(client, event, **values)

    def pump(self, timeout: float, doing: str = "") -> None:
        """Serve the clients for at most ``timeout`` seconds; NoClientLeft when there is none.

        With ``doing``, tell them every second what they are waiting for.
        """
        waiting = [self._wakeup, *self._leases]
        if self._listener is not None:
            waiting.append(self._listener)
        poll = select.poll()  # any number of clients: select() ends at descriptor 1023
        for waited_for in waiting:
            poll.register(waited_for, select.POLLIN)
        by_number = {waited_for.fileno(): waited_for for waited_for in waiting}
        for number, _ in poll.poll(math.ceil(1000 * timeout)):
            readable = by_number[number]
            if readable is self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup.recv(4096)
            elif readable is self._listener:
                self._accept(readable)
            else:
                self._hear(readable)
        if doing and time.monotonic() - self._noted > 1.0:
            self._noted = time.monotonic()
            self.tell("wait", doing=doing)
        if not self._leases or self._quit:
            raise NoClientLeft
        while self._leaving:  # somebody came in the same moment
            self._let_go(self._leaving.pop())

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            client.setblocking(False)
            self._leases.add(client)
            if self._ready is not None:
                send(client, "ready", **self._ready)

    def _hear(self, client: socket.socket) -> None:
        try:
            said = client.recv(1024)
        except OSError:
            said = b""
        self._leases.discard(client)
        if not said:
            client.close()
        elif self._leases:
            self._let_go(client)
        else:
            self._leaving.append(client)

    def _let_go(self, client: socket.socket) -> None:
        send(client, "left", others=len(self._leases))
        client.close()
