"""A TCP proxy in front of a server, for cutting connections in every way there is."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Mode = Literal["pass", "lose answers", "lose announcements", "refuse", "swallow"]


class TcpProxy:
    """Forwards 127.0.0.1:port to the server of ``dsn``; ``dsn`` of the proxy leads through it.

    ``cut()`` resets all connections. In the mode "lose answers" requests arrive, but of the answer to the
    next one nothing comes back: the connection is reset instead. "lose announcements": what LISTEN would
    hear is left out, as poolers leave it out. "refuse": new connections are reset.
    "swallow": connections stay, new ones are accepted, and what is sent either way disappears. Connections
    that lost something stay silent afterwards, too; others go on. ``lead_to`` has new connections go to
    another server, as an address does that moves in a failover.
    """

    def __init__(self, dsn: str) -> None:
        self.lead_to(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.dsn = make_conninfo(
            dsn, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable"
        )
        self.mode: Mode = "pass"
        self.delay = 0.0
        """Seconds for which everything is held up on its way."""
        self.connections = 0
        self.answered = 0
        """Bytes that came from the server."""
        self.lost_answers = 0
        self.lost_announcements = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._thread.join(5)
        self.cut()
        self._listener.close()
        self._selector.close()

    def lead_to(self, dsn: str) -> None:
        """Connect new clients to this server."""
        parameters = conninfo_to_dict(dsn)
        self._host, self._port = str(parameters["host"]), int(parameters.get("port") or 5432)

    def _upstream(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._port), timeout=5)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
        except OSError:
            server.close()
            raise
        return server

    def cut(self) -> int:
        """Reset all connections; how many."""
        with self._lock:
            clients = list(self._clients)
            for client in clients:
                self._drop(client)
        return len(clients)

    def _serve(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._closing:
            for key, _ in self._selector.select(0.05):
                with self._lock, contextlib.suppress(OSError, KeyError):
                    end = key.fileobj
                    if end is self._listener:
                        self._accept()
                    elif isinstance(end, socket.socket) and end in self._pairs:
                        self._forward(end)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.mode == "refuse":
            _reset(client)
            return
        try:
            server = self._upstream()
        except OSError:
            _reset(client)
            return
        self.connections += 1
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, end: socket.socket) -> None:
        other = self._pairs[end]
        try:
            data = end.recv(1 << 16)
        except OSError:
            data = b""
        time.sleep(self.delay)
        client = end if end in self._clients else other
        self.answered += len(data) if end is not client else 0
        if not data:
            self._drop(client)
        elif self.mode == "swallow" or client in self._silent:
            self._silent.add(client)
        elif self.mode == "lose answers" and end is client and b"complete_tasks" in data:
            other.sendall(data)
            time.sleep(0.15)  # long enough for it to be carried out
            self.lost_answers += 1
            self._drop(client)
        elif self.mode == "lose announcements" and end is not client:
            while data.startswith(b"A"):  # a NotificationResponse, outside of any answer
                data = data[1 + int.from_bytes(data[1:5], "big") :]
                self.lost_announcements += 1
            other.sendall(data)
        else:
            other.sendall(data)

    def _drop(self, client: socket.socket) -> None:
        server = self._pairs.pop(client)
        self._pairs.pop(server, None)
        self._clients.discard(client)
        self._silent.discard(client)
        for end in (client, server):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
        _reset(client)
        server.close()


def _reset(end: socket.socket) -> None:
    """Close so that the other side gets a reset instead of an orderly end."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
