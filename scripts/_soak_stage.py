"""What the soak is about: one server, some workers, the runs that they share."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import psycopg

from pgflow_mp.client import Client
from pgflow_mp.db import connection, schema
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import PgflowError

FLOW = Path(__file__).with_name("_soak_flow.py")
MARK = "PGFLOW_SOAK_MARK"
DEAD_AFTER = 3  # seconds
DISK = "1500m"
OPTIONS = (
    "--grace",
    "3",
    "--heartbeat-interval",
    "0.5",
    "--dead-after",
    str(DEAD_AFTER),
    "--progress",
    "off",
)


def mounted(place: Path) -> bool:
    """Whether ``place`` has a file system of its own now; only root can have one mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0755", "tmpfs", str(place)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def unmounted(place: Path) -> None:
    """Undo ``mounted``."""
    with contextlib.suppress(OSError):
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


class Stage:
    """Workers, a server, and what happens to them."""

    def __init__(self, arguments: argparse.Namespace, home: Path) -> None:
        self.arguments = arguments
        self.home = home
        self.chance = random.Random(arguments.seed)
        self.mark = uuid.uuid4().hex
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABASE_"))},
            "TMPDIR": str(home / "tmp"),
            "PGFLOW_SOAK_SEED": str(arguments.seed),
            "PGFLOW_SOAK_STORAGE": arguments.storage,
            MARK: self.mark,
        }
        self.restarts = 0
        self.workers: list[subprocess.Popen[bytes]] = []
        self.paused: list[tuple[float, psutil.Process]] = []
        self.runs: list[tuple[str, list[int]]] = []
        self.problems: list[str] = []
        self.full: list[tuple[float, Path]] = []
        (home / "state").mkdir()
        self.disk = home / "state" if mounted(home / "state") else None
        """Where the server's data has a small file system of its own, which may be filled."""
        self.server = EmbeddedServer(home / "state")
        (home / "tmp").mkdir()
        (home / "logs").mkdir()

    def open(self) -> None:
        """Install the schema in the server that has been started."""
        with connection.connect(self.server.dsn) as conn:
            schema.install(conn)
        self.client = Client(self.server.dsn)

    def start_worker(self) -> None:
        """Start a worker as a user does."""
        number = self.restarts + len(self.workers)
        with open(self.home / "logs" / f"worker-{number}.log", "wb") as log:
            command = [
                sys.executable,
                "-m",
                "pgflow_mp",
                str(FLOW),
                "--dsn",
                self.server.dsn,
                "--workers",
                "2",
            ]
            self.workers.append(
                subprocess.Popen(
                    [*command, *OPTIONS], env=self.environment, cwd=self.home, stdout=log, stderr=log
                )
            )

    def tend(self) -> None:
        """What a process manager does: start workers that have ended; and wake those that sleep."""
        for worker in list(self.workers):
            if worker.poll() is not None:
                self.workers.remove(worker)
                self.restarts += 1
        while len(self.workers) < self.arguments.workers:
            self.start_worker()
        now = time.monotonic()
        for due, filler in list(self.full):
            if now >= due:
                self.full.remove((due, filler))
                filler.unlink(missing_ok=True)
        for due, process in list(self.paused):
            if now >= due:
                self.paused.remove((due, process))
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGCONT)

    def start_run(self) -> None:
        """Start a run of random numbers."""
        numbers = [self.chance.randrange(10**6) for _ in range(self.arguments.items)]
        with contextlib.suppress(PgflowError, psycopg.Error):
            run = self.client.start_flow("soak", numbers, str(uuid.uuid4()))
            self.runs.append((run.run_id, numbers))

    def open_runs(self) -> int | None:
        """How many runs have not ended; None if that cannot be told now."""
        try:
            with psycopg.connect(self.server.dsn, autocommit=True, connect_timeout=2) as conn:
                row = conn.execute("select count(*) from pgflow.runs where status = 'started'").fetchone()
                return int(row[0]) if row else 0
        except (psycopg.Error, OSError):
            return None

    def compiled(self) -> bool:
        with psycopg.connect(self.server.dsn) as conn:
            return conn.execute("select 1 from pgflow.flows where flow_slug = 'soak'").fetchone() is not None

    def finish(self) -> None:
        """Leave everyone alone until all runs have ended."""
        deadline = time.monotonic() + self.arguments.patience
        while self.open_runs() != 0:
            if time.monotonic() > deadline:
                self.problems.append(f"runs do not end within {self.arguments.patience:g} s of quiet")
                return
            self.tend()
            time.sleep(0.2)

    def stop_workers(self) -> None:
        """Ask workers to end, as a process manager does."""
        for _, filler in self.full:
            filler.unlink(missing_ok=True)
        for _, process in self.paused:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                self.problems.append(f"worker {worker.pid} does not end within 30 s of SIGTERM")
                worker.kill()
                worker.wait()
