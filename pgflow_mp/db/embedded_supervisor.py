"""The process that owns an embedded PostgreSQL, so that no client has to.

One supervisor per data directory, single-threaded, standard library only::

    client A --lease--+
    client B --lease--+-- supervisor (lock on supervisor.lock) -- postgres (lock on server.lock)

* A lease is one connection to the supervisor's private unix socket. The kernel closes it when its
  client dies, however it dies. When the last lease is gone the server is stopped.
* The server is a direct child with PDEATHSIG: a killed supervisor takes it along.
* Every process of the server inherits ``server.lock``, so the next start waits until the last of
  them is really gone; no process is ever judged, or killed, by a number in a file.
* A server that dies while leases exist is started again, on the same socket path.

Messages are JSON lines. To the client: ``wait``, ``ready``, ``busy``, ``error``, ``stopped`` and
``left``; from it: the plan first (only from the client that started us), ``leave`` at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from pathlib import Path

from pgflow_mp.db import embedded_cluster as cluster
from pgflow_mp.db.embedded_cluster import Plan, StartFailure
from pgflow_mp.db.embedded_diagnosis import diagnose, log_tail
from pgflow_mp.db.embedded_identity import become_unprivileged

CONTROL_SOCKET = "control"
SILENCE_LIMIT = 60.0  # seconds without any answer of a starting server
STOP_LIMIT = 60.0  # seconds for a fast shutdown, which writes a checkpoint
RESTARTS, RESTART_WINDOW = 5, 60.0
_LOG_LIMIT = 10_000_000


def send(client: socket.socket, event: str, **values: object) -> bool:
    """Send one message; False if the other side is gone."""
    try:
        client.sendall(json.dumps({"event": event, **values}).encode() + b"\n")
    except OSError:
        return False
    return True


def note(text: str) -> None:
    """Write a line to supervisor.log, if its disk lets us."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor {os.getpid()}: {text}", flush=True)


class NoClientLeft(Exception):
    """The last lease is gone."""


class Supervisor:
    """Runs one server for as long as somebody holds a lease on it."""

    def __init__(self, plan: Plan, first: socket.socket) -> None:
        self.plan = plan
        self.home = Path(plan.home)
        self.leases: set[socket.socket] = {first}
        self.leaving: list[socket.socket] = []
        self.ready = False
        self.quit = False
        self.listener: socket.socket | None = None
        self.socket_dir: Path | None = None
        self.server: subprocess.Popen[bytes] | None = None
        self.restarts: deque[float] = deque(maxlen=RESTARTS)
        self._noted = 0.0
        self._log_start = 0

    # -- clients ---------------------------------------------------------------------------------

    def pump(self, timeout: float, doing: str = "") -> None:
        """Serve the clients for at most ``timeout`` seconds; NoClientLeft when there is none."""
        waiting: list[socket.socket] = [self.wakeup, *self.leases]
        if self.listener is not None:
            waiting.append(self.listener)
        for readable in select.select(waiting, [], [], timeout)[0]:
            if readable is self.wakeup:
                with contextlib.suppress(BlockingIOError):
                    self.wakeup.recv(4096)
            elif readable is self.listener:
                self._accept()
            else:
                self._hear(readable)
        if doing and time.monotonic() - self._noted > 1.0:
            self._noted = time.monotonic()
            for lease in list(self.leases):
                send(lease, "wait", doing=doing)
        if not self.leases or self.quit:
            raise NoClientLeft
        while self.leaving:  # somebody came in the same moment
            client = self.leaving.pop()
            send(client, "left", others=len(self.leases))
            client.close()

    def _accept(self) -> None:
        assert self.listener is not None  # noqa: S101 - only a listening supervisor gets here
        with contextlib.suppress(OSError):
            client, _ = self.listener.accept()
            self.leases.add(client)
            if self.ready:
                self._announce(client)

    def _hear(self, client: socket.socket) -> None:
        try:
            said = client.recv(1024)
        except OSError:
            said = b""
        self.leases.discard(client)
        if not said:
            client.close()
        elif self.leases:
            send(client, "left", others=len(self.leases))
            client.close()
        else:
            self.leaving.append(client)

    def _announce(self, client: socket.socket) -> None:
        send(client, "ready", socket_dir=str(self.socket_dir), port=self.plan.port)

    def tell(self, event: str, **values: object) -> None:
        """Send a message to every client, also to those that are leaving."""
        for client in [*self.leases, *self.leaving]:
            send(client, event, **values)

    # -- the life of the server ------------------------------------------------------------------

    def run(self) -> None:
        """Start the server, keep it while there are leases, stop it."""
        note(become_unprivileged(self.home, Path(self.plan.bin_dir)))
        own_lock = cluster.lock(self.home / "supervisor.lock")
        if own_lock is None:
            self.tell("busy")
            return
        self._watch_signals()
        try:
            self._open()
            self._initialise()
            self._start()
            while True:
                self.pump(3600.0)
                if self.server is not None and self.server.poll() is not None:
                    self._restart()
        except NoClientLeft:
            pass
        finally:
            self._close_door()
            try:
                self._stop()
            finally:
                self._clean_up()
        os.close(own_lock)
        self.tell("stopped")

    def _watch_signals(self) -> None:
        self.wakeup, writer = socket.socketpair()
        self.wakeup.setblocking(False)
        writer.setblocking(False)
        self._wakeup_writer = writer
        signal.set_wakeup_fd(writer.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGQUIT, self._on_quit)
        # A shutdown of the machine asks every process to end at once, but our clients still need the
        # server to settle what they have; we end when they have ended.
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)

    def _on_quit(self, *_: object) -> None:
        self.quit = True

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            if self.plan.log.stat().st_size > _LOG_LIMIT:
                self.plan.log.replace(self.plan.log.with_name("server.log.1"))
        self.socket_dir = cluster.make_socket_dir(self.plan)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.socket_dir / CONTROL_SOCKET))
        listener.listen(64)
        self.listener = listener
        state = {"socket_dir": str(self.socket_dir), "port": self.plan.port, "version": self.plan.version}
        cluster.write_atomically(self.home / "server.json", json.dumps(state) + "\n")

    def _initialise(self) -> None:
        cluster.sweep_unfinished(self.home)
        if not self.plan.data.exists():
            unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
            output = tempfile.TemporaryFile(dir=self.socket_dir)  # noqa: SIM115 - not on a disk that may be full
            initdb = cluster.popen(
                self.plan,
                cluster.initdb_command(self.plan, unfinished / "data"),
                output,
                death=signal.SIGKILL,
            )
            try:
                while initdb.poll() is None:
                    self.pump(1.0, "creating the data directory")
            finally:
                if initdb.poll() is None:
                    initdb.kill()
                    initdb.wait()
            output.seek(0)
            said = output.read().decode("utf-8", "replace")
            output.close()
            if initdb.returncode != 0:
                note(said)
                failure = diagnose(
                    self.plan, f"creating the cluster {self.plan.data}", initdb.returncode, said
                )
                shutil.rmtree(unfinished, ignore_errors=True)
                raise failure
            (unfinished / "data").rename(self.plan.data)
            unfinished.rmdir()
        cluster.check_cluster(self.plan)

    def _start(self) -> None:
        assert self.socket_dir is not None  # noqa: S101 - set by _open
        deadline = time.monotonic() + SILENCE_LIMIT
        # The processes of a killed predecessor hold this lock until the last of them is gone.
        while (server_lock := cluster.lock(self.home / "server.lock")) is None:
            self.pump(0.02, "waiting for the old server to end")
            if time.monotonic() > deadline:
                raise StartFailure(
                    f"processes of an earlier server still use {self.plan.data}",
                    "end the postgres processes that work on this directory (ps -ef | grep postgres)",
                )
        try:
            os.set_inheritable(server_lock, True)
            cluster.disarm_stale_pid(self.plan)
            cluster.write_configuration(self.plan)
            with self.plan.log.open("ab") as log:
                self._log_start = log.tell()
                self.server = cluster.popen(
                    self.plan,
                    cluster.server_command(self.plan, self.socket_dir),
                    log,
                    death=signal.SIGQUIT if self.plan.throwaway else signal.SIGINT,
                    pass_fds=(server_lock,),
                )
        finally:
            os.close(server_lock)
        while (answer := cluster.ping(self.socket_dir, self.plan.port)) != "ready":
            if self.server.poll() is not None:
                raise self._server_failure(self.server.returncode)
            if answer == "starting":  # replaying its log after a crash may take minutes
                deadline = time.monotonic() + SILENCE_LIMIT
            elif time.monotonic() > deadline:
                raise self._server_failure(None)
            self.pump(0.01, "starting the server")
        self.ready = True
        for lease in self.leases:
            self._announce(lease)

    def _restart(self) -> None:
        assert self.server is not None  # noqa: S101 - only a started server can end
        now = time.monotonic()
        note(f"the server ended with {self.server.returncode}")
        if len(self.restarts) == RESTARTS and now - self.restarts[0] < RESTART_WINDOW:
            raise self._server_failure(self.server.returncode, "again and again: ")
        self.restarts.append(now)
        self.ready = False
        self._start()

    def _server_failure(self, code: int | None, how: str = "") -> StartFailure:
        said = log_tail(self.plan.log, since=self._log_start)
        return diagnose(self.plan, f"{how}the embedded PostgreSQL (log: {self.plan.log})", code, said)

    def _close_door(self) -> None:
        if self.listener is not None:
            with contextlib.suppress(OSError):
                Path(self.listener.getsockname()).unlink()
            self.listener.close()
            self.listener = None

    def _stop(self) -> None:
        server = self.server
        if server is None or server.poll() is not None:
            return
        signals = [(signal.SIGINT, STOP_LIMIT), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)]
        for sig, limit in signals[1:] if self.plan.throwaway else signals:
            deadline = time.monotonic() + limit
            while time.monotonic() < deadline:
                server.send_signal(sig)  # again and again: one that comes too early may be lost
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(1.0)
                    return

    def _clean_up(self) -> None:
        if self.plan.throwaway:
            lock = cluster.lock(self.home / "server.lock", timeout=10.0)
            shutil.rmtree(self.home, ignore_errors=True)
            if lock is not None:
                os.close(lock)
        if self.socket_dir is not None:
            shutil.rmtree(self.socket_dir, ignore_errors=True)


def main() -> None:
    """Entry point: ``argv[1]`` is the descriptor of the first client's lease."""
    first = socket.socket(fileno=int(sys.argv[1]))
    first.set_inheritable(False)
    with first.makefile("r", encoding="utf-8") as lines:
        plan = Plan(**json.loads(lines.readline() or "{}"))
    os.umask(0o077)
    supervisor = Supervisor(plan, first)
    try:
        supervisor.run()
    except StartFailure as failure:
        supervisor.tell("error", message=str(failure), hint=failure.hint)
    except OSError as error:
        supervisor.tell("error", message=f"{plan.home}: {error}", errno=error.errno)
        note(traceback.format_exc())
    except Exception as error:
        supervisor.tell("error", message=f"the supervisor of {plan.home} failed: {error!r}")
        note(traceback.format_exc())
        raise
