"""Metrics and health checks over HTTP, on threads of their own: whoever asks costs the work nothing but that.

/metrics            what this worker did
/metrics/database   what is in its database, the same for every worker of it
/livez              200 as long as the main loop comes round
/readyz             200 while it works and its database answers
/healthz            200 while both hold
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.errors import ConfigError
from pgflow_mp.observe import metrics
from pgflow_mp.observe.metrics import Exposed
from pgflow_mp.observe.worker_figures import Health, WorkerFigures

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection

_log: Final = logging.getLogger("pgflow_mp.metrics")
_AT_ONCE: Final = 8
_LONGEST: Final = 10.0  # seconds that a caller may keep a place that others want
_PATIENCE: Final = 5  # seconds for each piece of a request, and for the database
_FRESH: Final = 2.0  # seconds that an answer of the database is told again
_TEXT: Final = "text/plain; charset=utf-8"


def check(address: str, port: int) -> None:
    """Raise ConfigError where metrics cannot be served there."""
    metrics.require()
    try:
        _Server((address, port), BaseHTTPRequestHandler).server_close()
    except (OSError, OverflowError) as error:
        raise _cannot_listen(address, port, error) from None


def _cannot_listen(address: str, port: int, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigError(
        f"Metrics cannot be served at {address}, port {port}: {reason}",
        hint="Give another --metrics-port, 0 for any that is free, or another --metrics-address.",
    )


class DatabaseAsker:
    """Reads the metrics of a database on a connection of its own. Threads: any; they take turns."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._conn: Connection | None = None
        self._last: tuple[float, Exposed] | None = None

    def ask(self) -> Exposed:
        """What it says, or that it cannot be asked."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > _FRESH:
                try:
                    found = metrics.database_metrics(self._open())
                except Exception as error:  # noqa: BLE001 - whatever it is, Prometheus is told that it is down
                    _log.debug("the database could not be asked for metrics: %s", error)
                    self._close()
                    found = metrics.database_down()
                self._last = (time.monotonic(), metrics.expose(found))
            return self._last[1]

    def close(self) -> None:
        """Close the connection, unless somebody is at it."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._close()
            finally:
                self._lock.release()

    def _open(self) -> Connection:
        if self._conn is None or self._conn.closed:
            from pgflow_mp.db import connection, patience, wire

            self._conn = conn = connection.connect(self._dsn)
            wire.adapt(conn)
            patience.limit_statements(conn, _PATIENCE)
        return self._conn

    def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(Exception):
                conn.close()


class MetricsServer:
    """Listens from its making on; raises ConfigError where it cannot. ``serve`` answers requests.

    ``figures`` and ``health`` are called on its threads; ``database`` is the connection string of what
    /metrics/database tells of.
    """

    def __init__(
        self,
        address: str,
        port: int,
        *,
        figures: Callable[[], WorkerFigures],
        health: Callable[[], Health],
        database: str,
    ) -> None:
        metrics.require()
        self._figures, self._health = figures, health
        self._asker = DatabaseAsker(database)
        outer = self

        class Handler(_Handler):
            answers = outer._answers()

        try:
            self._server = _Server((address, port), Handler)
        except (OSError, OverflowError) as error:
            raise _cannot_listen(address, port, error) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="pgflow-metrics",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Where its metrics are."""
        host, port = self._server.server_address[:2]
        name = str(host)
        return f"http://[{name}]:{port}/metrics" if ":" in name else f"http://{name}:{port}/metrics"

    def serve(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Answer nothing more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(2.0)
        self._server.server_close()
        self._asker.close()

    def _answers(self) -> dict[str, Callable[[], tuple[int, Exposed]]]:
        def checked(good: Callable[[Health], bool]) -> Callable[[], tuple[int, Exposed]]:
            def answer() -> tuple[int, Exposed]:
                found = self._health()
                told = {
                    "alive": found.alive,
                    "database": found.connected,
                    "ready": found.ready,
                    "state": found.state,
                }
                body = json.dumps(told).encode() + b"\n"
                return (200 if good(found) else 503), Exposed("application/json", body)

            return answer

        return {
            "/metrics": lambda: (200, metrics.expose(metrics.worker_metrics(self._figures()))),
            "/metrics/database": lambda: (200, self._asker.ask()),
            "/livez": checked(lambda found: found.alive),
            "/readyz": checked(lambda found: found.ready and found.connected),
            "/healthz": checked(lambda found: found.alive and found.connected),
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in place[0]:
            self.address_family = socket.AF_INET6
        self._busy: dict[int, tuple[float, Any]] = {}
        super().__init__(place, handler)

    def server_bind(self) -> None:
        """Without the look-up of our own name that the base class makes."""
        import socketserver

        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, unless there are enough of them; who has kept one for long is sent away."""
        now = time.monotonic()
        if len(self._busy) >= _AT_ONCE:
            for since, other in list(self._busy.values()):
                if now - since > _LONGEST:
                    with contextlib.suppress(OSError):
                        other.shutdown(socket.SHUT_RDWR)
            self.shutdown_request(request)
            return
        self._busy[id(request)] = (now, request)
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._busy.pop(id(request), None)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._busy.pop(id(request), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up; that is nobody's business."""
        _log.debug("a request for metrics failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Callable[[], tuple[int, Exposed]]]
    timeout = _PATIENCE
    server_version = "pgflow_mp"
    sys_version = ""

    def do_GET(self) -> None:
        """One of the pages above."""
        answer = self.answers.get(self.path.partition("?")[0])
        if answer is None:
            self._send(404, Exposed(_TEXT, f"There is {', '.join(self.answers)}\n".encode()))
            return
        try:
            status, exposed = answer()
        except Exception:  # noqa: BLE001 - a scrape that fails harms nobody
            _log.debug("%s failed", self.path, exc_info=True)
            status, exposed = 500, Exposed(_TEXT, b"This could not be told now.\n")
        self._send(status, exposed)

    do_HEAD = do_GET

    def _send(self, status: int, exposed: Exposed) -> None:
        self.send_response(status)
        self.send_header("Content-Type", exposed.content_type)
        self.send_header("Content-Length", str(len(exposed.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(exposed.body)

    def log_message(self, *_arguments: Any) -> None:
        """Scrapes are no news."""
