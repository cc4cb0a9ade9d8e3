"""Trouble with the database: the worker waits, says so, and records what it had finished, once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from open_folders import open_to_others
from psycopg.conninfo import make_conninfo
from tcp_proxy import TcpProxy
from worker_harness import eventually, output, settings, start, threaded

from pgflow_mp.db import connection, schema, session
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.observe.observer import FailedAttempt, Level, ProgressSnapshot
from pgflow_mp.testing import audit_run
from pgflow_mp.worker.stats import Ending
from pgflow_mp.worker.worker import Worker

# Longer than any outage here, so that no worker is taken for dead during one and nothing runs twice.
QUICK = {"heartbeat_interval": 0.2, "dead_after": 15.0}


class Listener:
    """Keeps what a worker says."""

    def __init__(self) -> None:
        self.said: list[tuple[Level, str]] = []

    def on_state(self, state: str) -> None: ...

    def on_progress(self, snapshot: ProgressSnapshot) -> None: ...

    def on_message(self, level: Level, text: str) -> None:
        self.said.append((level, text))

    def on_failure(self, failure: FailedAttempt) -> None: ...

    @property
    def waited(self) -> list[str]:
        return [text for level, text in self.said if level == "warn" and "waiting for the database" in text]


def ends(log: Path) -> Counter[str]:
    return Counter(line for line in log.read_text().splitlines() if line.startswith("end"))


def check(dsn: str, run_id: str, items: int, log: Path, *, twice: int = 0) -> None:
    """The run ended right; at most ``twice`` items were executed a second time, none was recorded so."""
    assert output(dsn, run_id) == {"count": items}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
    counts = ends(log)
    assert len(counts) == items
    assert sum(counts.values()) - items <= twice, counts.most_common(3)


@pytest.mark.slow
def test_reset_tcp_connections_cost_nothing(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.01] * 300)
    listener = Listener()
    with TcpProxy(dsn) as proxy:
        worker = Worker(settings(proxy.dsn, "naps", **QUICK), observer=listener)
        with threaded(worker, run_id=run_id) as running:
            cuts = 0
            while running.report is None and running.error is None and cuts < 60:
                time.sleep(0.25)
                proxy.cut()
                cuts += 1
            running.join()
        assert proxy.connections >= 8
    check(dsn, run_id, 300, log)


def test_answers_that_get_lost_after_the_commit_lead_to_no_second_record(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.01] * 200)
    with TcpProxy(dsn) as proxy:
        worker = Worker(settings(proxy.dsn, "naps", **QUICK))
        with threaded(worker, run_id=run_id) as running:
            for lost in (1, 2, 3):
                proxy.mode = "lose answers"
                eventually(lambda: proxy.lost_answers >= lost or running.report or running.error)  # noqa: B023
                proxy.mode = "pass"
                time.sleep(0.2)
            running.join()
        assert proxy.lost_answers >= 1
    # On a busy machine a heartbeat may be late by then, too: such items run again, and count once.
    check(dsn, run_id, 200, log, twice=200)


def test_a_worker_that_hears_no_announcement_ends_only_when_nothing_is_left(dsn: str) -> None:
    run_id = start(dsn, "chain", [1, 2])
    with TcpProxy(dsn) as proxy:
        proxy.mode = "lose announcements"
        worker = Worker(settings(proxy.dsn, "chain"))
        assert worker.run(idle_exit=True).ending is Ending.IDLE
        assert proxy.lost_announcements
    assert output(dsn, run_id) == {"joined": "#2 #4"}


@pytest.mark.slow
def test_a_database_out_of_reach_is_waited_for_and_said(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.02] * 100)
    listener = Listener()
    with TcpProxy(dsn) as proxy:
        worker = Worker(settings(proxy.dsn, "naps", **QUICK), observer=listener)
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.done >= 10)
            proxy.mode = "refuse"
            proxy.cut()
            eventually(lambda: listener.waited)
            time.sleep(1.0)
            proxy.mode = "pass"
            running.join()
    check(dsn, run_id, 100, log, twice=100)  # away for longer than dead_after, on a busy machine
    assert len(listener.waited) < 10  # said, not repeated at every try


def set_for_all(dsn: str, setting: str) -> None:
    """Change a setting of the database and cut everyone off, as a failover does."""
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set default_transaction_read_only = off")
        conn.execute(f'alter database "{name}" {setting}')
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )


@pytest.mark.slow
def test_a_read_only_server_is_waited_for(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.02] * 100)
    listener = Listener()
    worker = Worker(settings(dsn, "naps", **QUICK), observer=listener)
    with threaded(worker, run_id=run_id) as running:
        eventually(lambda: worker.stats.done >= 10)
        set_for_all(dsn, "set default_transaction_read_only = on")
        eventually(lambda: listener.waited)
        time.sleep(1.0)
        with psycopg.connect(dsn, autocommit=True) as conn:  # the sessions stay: only new ones may write
            conn.execute("set default_transaction_read_only = off")
            name = conn.info.dbname
            conn.execute(f'alter database "{name}" reset default_transaction_read_only')
        running.join()
    check(dsn, run_id, 100, log)
    assert any("read-only" in text for text in listener.waited)


@pytest.mark.slow
def test_two_workers_on_a_serializable_database_lose_nothing(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.005] * 200)
    set_for_all(dsn, "set default_transaction_isolation = 'serializable'")
    with (
        threaded(Worker(settings(dsn, "naps", **QUICK)), run_id=run_id) as one,
        threaded(Worker(settings(dsn, "naps", **QUICK)), run_id=run_id) as two,
    ):
        reports = [one.join(60), two.join(60)]
    check(dsn, run_id, 200, log)
    assert sum(report.stats.late for report in reports) == 0


@pytest.mark.slow
def test_a_statement_timeout_that_passes_fails_no_item(
    dsn: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SESSION", {})  # as behind a pooler, where it would reach strangers
    run_id = start(dsn, "naps", [0.02] * 150)
    listener = Listener()
    worker = Worker(settings(dsn, "naps", **QUICK), observer=listener)
    with threaded(worker, run_id=run_id) as running:
        eventually(lambda: worker.stats.done >= 10)
        set_for_all(dsn, "set statement_timeout = '200ms'")
        with psycopg.connect(dsn) as conn:
            conn.execute("set statement_timeout = 0")
            conn.execute("select 1 from pgflow.runs for update")  # who writes to the run waits for us
            eventually(lambda: listener.waited)
            time.sleep(1.5)
        running.join()
    check(dsn, run_id, 150, log)


def postmaster(server: EmbeddedServer) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "data" / "postmaster.pid").read_text().split()[0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="fast", marks=pytest.mark.slow),
        pytest.param(signal.SIGQUIT, id="immediate"),
    ],
)
def test_a_restart_of_the_server_costs_no_result(number: signal.Signals, tmp_path: Path, log: Path) -> None:
    with EmbeddedServer(tmp_path / "state") as server:
        with connection.connect(server.dsn) as conn:
            schema.install(conn)
        run_id = start(server.dsn, "naps", [0.02] * 200)
        worker = Worker(settings(server.dsn, "naps"))
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.done >= 40)
            postmaster(server).send_signal(number)
            report = running.join(60)
        check(server.dsn, run_id, 200, log)
        assert report.unsettled == 0


@pytest.mark.slow
def test_a_server_without_free_connections_is_waited_for(log: Path) -> None:
    options = {"max_connections": "12", "superuser_reserved_connections": "0", "reserved_connections": "0"}
    with EmbeddedServer(throwaway=True, settings=options) as server:
        with connection.connect(server.dsn) as conn:
            schema.install(conn)
        run_id = start(server.dsn, "naps", [0.02] * 150)
        listener = Listener()
        worker = Worker(settings(server.dsn, "naps", **QUICK), observer=listener)
        hogs: list[psycopg.Connection[tuple[object, ...]]] = []
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.done >= 20)
            with psycopg.connect(server.dsn, autocommit=True) as conn:
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where backend_type = 'client backend' and pid <> pg_backend_pid()"
                )
                deadline = time.monotonic() + 2
                while time.monotonic() < deadline:
                    try:
                        hogs.append(psycopg.connect(server.dsn))
                    except psycopg.OperationalError:
                        time.sleep(0.02)
            eventually(lambda: listener.waited)
            for hog in hogs:
                hog.close()
            running.join(60)
        check(server.dsn, run_id, 150, log)


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    if not done:
        pytest.skip("a file system can only be mounted by root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, ballast: Path) -> None:
    """Leave no byte free."""
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    with mounted(tmp_path / "small", "64m") as place:
        yield place


@pytest.mark.slow
def test_a_full_disk_is_waited_for(small_disk: Path, log: Path) -> None:
    with EmbeddedServer(throwaway=True) as server:
        owner = (server.data_dir / "data").stat()
        space = small_disk / "space"
        space.mkdir()
        os.chown(space, owner.st_uid, owner.st_gid)
        open_to_others(small_disk.parent)
        with connection.connect(server.dsn) as conn:
            conn.execute(f"create tablespace small location '{space}'")
            conn.execute("create database full_up tablespace small")
        dsn = make_conninfo(server.dsn, dbname="full_up")
        with connection.connect(dsn) as conn:
            schema.install(conn)
        run_id = start(dsn, "mischief", [["echo", "x" * 3000]] * 1200)
        listener = Listener()
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            file.write(b"\0" * max(0, free - 400_000))
        worker = Worker(settings(dsn, "mischief", **QUICK), observer=listener)
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: any("No space left" in text for text in listener.waited), 30)
            time.sleep(1.0)
            assert running.error is None
            ballast.unlink()
            running.join(60)
        with psycopg.connect(dsn) as conn:
            assert audit_run(conn, run_id) == []


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 260 MB, which holds a cluster and little else."""
    with mounted(tmp_path / "disk", "260m") as place:
        yield place


@pytest.mark.slow
def test_a_disk_so_full_that_the_server_cannot_recover_is_waited_for(
    own_disk: Path, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings_of_server = {"max_wal_size": "32MB", "min_wal_size": "32MB", "checkpoint_timeout": "30s"}
    with EmbeddedServer(own_disk, settings=settings_of_server) as server:
        with connection.connect(server.dsn) as conn:
            schema.install(conn)
        run_id = start(server.dsn, "mischief", [["echo", "x" * 3000], ["sleep", 0.01]] * 1200)
        ballast, worker = own_disk / "ballast", Worker(settings(server.dsn, "mischief", **QUICK))
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.settled >= 20, 30)
            fill(own_disk, ballast)
            server_pid = (server.data_dir / "data" / "postmaster.pid").read_text().split()[0]
            for process in psutil.Process(int(server_pid)).children():
                with contextlib.suppress(psutil.NoSuchProcess):  # backends come and go
                    if "checkpointer" in " ".join(process.cmdline()):
                        process.kill()  # it crashes, and cannot recover
            said = "the embedded PostgreSQL is down, it is tried again"

            def is_down() -> bool:
                fill(own_disk, ballast)
                return said in caplog.text

            eventually(is_down, 60)
            assert "no space left on the disk" in caplog.text
            time.sleep(3.0)
            assert running.error is None
            assert running.report is None
            ballast.unlink()
            running.join(90)
        with psycopg.connect(server.dsn) as conn:
            assert audit_run(conn, run_id) == []
    assert max(Counter(line for line in log.read_text().splitlines()).values()) == 1
