"""The process that owns an embedded PostgreSQL, so that no client has to.

One supervisor per data directory, single-threaded, standard library only::

    client A --lease--+
    client B --lease--+-- supervisor (lock on supervisor.lock) -- postgres (lock on server.lock)

* A lease is one connection to the supervisor's private unix socket. The kernel closes it when its
  client dies, however it dies. When the last lease is gone the server is stopped.
* The server is a direct child with PDEATHSIG: a killed supervisor takes it along.
* Every process of the server, and of ``initdb``, inherits ``server.lock``, so the next start waits
  until the last of them is really gone; none is ever judged, or killed, by a number in a file.
* A server that dies while leases exist is started again, on the same socket path.

Messages are JSON lines. To the client: ``wait``, ``ready``, ``busy``, ``error``, ``stopped`` and
``left``; from it: the plan first (only from the client that started us), ``leave`` at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
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

from pgflow_mp.embedded import cluster
from pgflow_mp.embedded.cluster import Plan, StartFailure
from pgflow_mp.embedded.diagnosis import diagnose, log_tail
from pgflow_mp.embedded.hub import ClientHub, NoClientLeft
from pgflow_mp.embedded.identity import become_unprivileged

SILENCE_LIMIT = 60.0  # seconds without any answer of a starting server
STOP_LIMIT = 60.0  # seconds for a fast shutdown, which writes a checkpoint
RESTARTS, RESTART_WINDOW = 5, 60.0
RESTART_PAUSE = 0.5  # seconds from a start that failed to the next
_LOG_LIMIT = 10_000_000


def note(text: str) -> None:
    """Write a line to supervisor.log, if its disk lets us."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor {os.getpid()}: {text}", flush=True)


class Supervisor:
    """Runs one server for as long as somebody holds a lease on it."""

    def __init__(self, plan: Plan, first: socket.socket) -> None:
        self.plan = plan
        self.home = Path(plan.home)
        self.hub = ClientHub(first)
        self.socket_dir = Path()
        self.server: subprocess.Popen[bytes] | None = None
        self.restarts: deque[float] = deque(maxlen=RESTARTS)
        self._log_start = 0

    def run(self) -> None:
        """Start the server, keep it while there are leases, stop it."""
        note(become_unprivileged(self.home, Path(self.plan.bin_dir)))
        own_lock = cluster.lock(self.home / "supervisor.lock")
        if own_lock is None:
            self.hub.tell("busy")
            return
        self.hub.watch_signals()
        try:
            self._open()
            self._initialise()
            self._start()
            while True:
                self.hub.pump(3600.0)
                if self.server is not None and self.server.poll() is not None:
                    self._restart()
        except NoClientLeft:
            pass
        finally:
            self.hub.close()
            try:
                self._stop()
            finally:
                self._clean_up()
        os.close(own_lock)
        self.hub.tell("stopped")

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            if self.plan.log.stat().st_size > _LOG_LIMIT:
                self.plan.log.replace(self.plan.log.with_name("server.log.1"))
        self.socket_dir = cluster.make_socket_dir(self.plan)
        self.hub.open(self.socket_dir)
        state = {"socket_dir": str(self.socket_dir), "port": self.plan.port, "version": self.plan.version}
        cluster.replace_text(self.home / "server.json", json.dumps(state) + "\n")

    def _lock_server(self) -> int:
        """Wait until every process of a killed predecessor is gone; the lock's descriptor, inheritable."""
        deadline = time.monotonic() + SILENCE_LIMIT
        while (server_lock := cluster.lock(self.home / "server.lock")) is None:
            self.hub.pump(0.02, "waiting for the old server to end")
            if time.monotonic() > deadline:
                raise StartFailure(
                    f"processes of an earlier server still use {self.plan.data}",
                    "end the postgres processes that work on this directory (ps -ef | grep postgres)",
                )
        os.set_inheritable(server_lock, True)
        return server_lock

    def _initialise(self) -> None:
        server_lock = self._lock_server()
        try:
            self._create_cluster(server_lock)
        finally:
            os.close(server_lock)
        cluster.check_cluster(self.plan)

    def _create_cluster(self, server_lock: int) -> None:
        cluster.sweep_unfinished(self.home)
        if not self.plan.data.exists():
            unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
            output = tempfile.TemporaryFile(dir=self.socket_dir)  # noqa: SIM115 - not on a disk that may be full
            initdb = cluster.popen(
                self.plan,
                cluster.initdb_command(self.plan, unfinished / "data"),
                output,
                death=signal.SIGKILL,
                pass_fds=(server_lock,),
            )
            try:
                while initdb.poll() is None:
                    self.hub.pump(1.0, "creating the data directory")
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

    def _start(self) -> None:
        server_lock = self._lock_server()
        try:
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
        deadline = time.monotonic() + SILENCE_LIMIT
        while (answer := cluster.ping(self.socket_dir, self.plan.port)) != "ready":
            if self.server.poll() is not None:
                raise self._server_failure(self.server.returncode)
            if answer == "starting":  # replaying its log after a crash may take minutes
                deadline = time.monotonic() + SILENCE_LIMIT
            elif time.monotonic() > deadline:
                raise self._server_failure(None)
            self.hub.pump(0.01, "starting the server")
        self.hub.announce({"socket_dir": str(self.socket_dir), "port": self.plan.port})

    def _restart(self) -> None:
        """Start the ended server again, also when it ends while it starts, within limits."""
        assert self.server is not None  # noqa: S101 - only a started server can end
        self.hub.announce(None)
        while True:
            now = time.monotonic()
            note(f"the server ended with {self.server.returncode}")
            if len(self.restarts) == RESTARTS and now - self.restarts[0] < RESTART_WINDOW:
                raise self._server_failure(self.server.returncode, "again and again: ")
            self.restarts.append(now)
            ended = self.server
            try:
                self._start()
            except StartFailure:
                if self.server is ended or self.server.poll() is None:
                    raise
                while time.monotonic() < now + RESTART_PAUSE:
                    self.hub.pump(RESTART_PAUSE, "starting the server again")
            else:
                return

    def _server_failure(self, code: int | None, how: str = "") -> StartFailure:
        said = log_tail(self.plan.log, since=self._log_start)
        return diagnose(self.plan, f"{how}the embedded PostgreSQL (log: {self.plan.log})", code, said)

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
        if self.socket_dir != Path():
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
        supervisor.hub.tell("error", message=str(failure), hint=failure.hint)
    except OSError as error:
        supervisor.hub.tell("error", message=f"{plan.home}: {error}", errno=error.errno)
        note(traceback.format_exc())
    except Exception as error:
        supervisor.hub.tell("error", message=f"the supervisor of {plan.home} failed: {error!r}")
        note(traceback.format_exc())
        raise
