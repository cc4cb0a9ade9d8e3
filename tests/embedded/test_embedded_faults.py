"""Killing the embedded server, its supervisor and its users, at the worst moments."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from pgflow_mp.db.connection import is_connection_lost, retrying
from pgflow_mp.embedded.lease import ServerLease
from pgflow_mp.embedded.server import EmbeddedServer

from .embedded_clients import SCRIPT, Client, is_quiet, postmasters, supervisors, wait_until


def insert(dsn: str, value: int) -> None:
    with retrying(dsn, give_up_after=30) as conn:
        conn.execute("insert into public.kept values (%s)", (value,))


def values(dsn: str) -> list[int]:
    while True:
        try:
            with retrying(dsn, give_up_after=30) as conn:
                return [
                    row[0] for row in conn.execute("select answer from public.kept order by 1").fetchall()
                ]
        except psycopg.Error as error:
            if not is_connection_lost(error):
                raise


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # another one's end took it along
            process.kill()


@pytest.fixture
def client(base: Path) -> Iterator[Client]:
    with Client(base) as client:
        yield client


def test_a_killed_user_counts_as_out_and_what_it_committed_is_there(base: Path, client: Client) -> None:
    home = Path(client.report["home"])
    insert(client.report["dsn"], 43)
    client.kill()
    wait_until(lambda: is_quiet(home))
    with EmbeddedServer(base) as server:
        assert values(server.dsn) == [42, 43]


def test_the_server_outlives_a_killed_starter_while_another_uses_it(base: Path, client: Client) -> None:
    home = Path(client.report["home"])
    with EmbeddedServer(base) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
        assert server.attached
        (before,) = postmasters(home)
        client.kill()
        time.sleep(0.3)
        assert conn.execute("select answer from public.kept").fetchone() == (42,)
        assert postmasters(home) == [before]
    assert postmasters(home) == []


def test_a_killed_server_comes_back_by_itself_with_the_same_connection_string(base: Path) -> None:
    with EmbeddedServer(base) as server:
        insert(server.dsn, 43)
        dsn = server.dsn
        for value in (44, 45):
            (postmaster,) = postmasters(server.data_dir)
            postmaster.kill()
            postmaster.wait()
            insert(dsn, value)
        assert values(server.dsn) == [42, 43, 44, 45]
        assert server.dsn == dsn


def test_a_killed_supervisor_takes_the_server_along_and_both_come_back(base: Path) -> None:
    with EmbeddedServer(base) as server:
        insert(server.dsn, 43)
        dsn = server.dsn
        (supervisor,) = supervisors(server.data_dir)
        (postmaster,) = postmasters(server.data_dir)
        supervisor.kill()
        wait_until(lambda: not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE, 5.0)
        wait_until(lambda: postmasters(server.data_dir))
        assert values(dsn) == [42, 43]
        assert server.dsn == dsn
    wait_until(lambda: is_quiet(server.data_dir))


@pytest.mark.slow
def test_a_stop_while_another_supervisor_takes_over_leaves_no_server(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stopped at this moment waited 90 s for the watcher, and the server stayed."""
    server = EmbeddedServer(base).start()
    (supervisor,) = supervisors(server.data_dir)
    stopper = threading.Thread(target=server.stop, daemon=True)

    def close_late(lease: ServerLease) -> None:
        if not stopper.ident and threading.current_thread() is not threading.main_thread():
            stopper.start()
            wait_until(lambda: server._lease is None)
        close(lease)

    close = ServerLease.close
    monkeypatch.setattr(ServerLease, "close", close_late)
    supervisor.kill()
    wait_until(lambda: stopper.ident is not None)
    stopper.join(20.0)
    if leaked := stopper.is_alive():
        server.stop()
    assert not leaked
    wait_until(lambda: is_quiet(server.data_dir))


@pytest.mark.slow
def test_a_killed_supervisor_without_any_user_leaves_no_server(base: Path, client: Client) -> None:
    home = Path(client.report["home"])
    (supervisor,) = supervisors(home)
    os.kill(client.report["pid"], signal.SIGSTOP)  # so that it cannot call for another one
    supervisor.kill()
    wait_until(lambda: not postmasters(home), 5.0)
    client.kill()


def test_after_kill_9_of_everything_a_start_finds_all_that_was_committed(base: Path, client: Client) -> None:
    home = Path(client.report["home"])
    insert(client.report["dsn"], 43)
    (postmaster,) = postmasters(home)
    backends = postmaster.children(recursive=True)
    kill_all([psutil.Process(client.process.pid), *supervisors(home), postmaster, *backends])
    client.process.communicate()
    assert (home / "data" / "postmaster.pid").exists()
    with EmbeddedServer(base) as server:
        assert values(server.dsn) == [42, 43]
        assert server.dsn == client.report["dsn"]


@pytest.mark.slow
def test_a_stale_pid_file_with_the_number_of_a_stranger_hurts_neither(base: Path, client: Client) -> None:
    home = Path(client.report["home"])
    pid_file = home / "data" / "postmaster.pid"
    kill_all([psutil.Process(client.process.pid), *supervisors(home), *postmasters(home)])
    client.process.communicate()
    wait_until(lambda: is_quiet(home))
    lines = pid_file.read_text().splitlines(keepends=True)
    # Its own user id as well: only then does PostgreSQL itself take the number for a live server.
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text(f"{stranger.pid}\n" + "".join(lines[1:]))
        with EmbeddedServer(base) as server:
            assert values(server.dsn) == [42]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", pytest.param("rubbish\n", marks=pytest.mark.slow), "12"])
def test_a_damaged_pid_file_is_no_obstacle(base: Path, content: str) -> None:
    (base / "postgres-18" / "data" / "postmaster.pid").write_text(content)
    with EmbeddedServer(base) as server:
        assert values(server.dsn) == [42]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.2, 0.05])
def test_a_kill_in_the_middle_of_initdb_leaves_no_half_cluster(tmp_path: Path, delay: float) -> None:
    home = tmp_path / "postgres-18"
    client = Client(tmp_path)
    wait_until(lambda: list(home.glob("initdb-*/data")))
    time.sleep(delay)
    kill_all(supervisors(home))
    client.kill()
    wait_until(lambda: is_quiet(home))
    with EmbeddedServer(tmp_path) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert list(home.glob("initdb-*")) == []


@pytest.mark.slow
def test_what_a_killed_initdb_left_running_is_waited_for(tmp_path: Path) -> None:
    home = tmp_path / "postgres-18"
    client = Client(tmp_path)

    stopped: list[psutil.Process] = []

    def stop_the_writer() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in [child for one in supervisors(home) for child in one.children(recursive=True)]:
                if not stopped and child.name() == "postgres" and "--single" in child.cmdline():
                    child.suspend()
                    stopped.append(child)
        return bool(stopped)

    try:
        wait_until(stop_the_writer)
        kill_all(supervisors(home))
        client.kill()
        left = list(home.glob("initdb-*"))
        with Client(tmp_path) as other:
            wait_until(lambda: supervisors(home))
            time.sleep(0.3)
            assert list(home.glob("initdb-*")) == left
            stopped[0].resume()
            assert "error" not in other.report
            assert list(home.glob("initdb-*")) == []
    finally:  # a test that is interrupted must not leave a stopped process behind
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.slow
def test_a_user_that_ends_while_the_server_starts_leaves_nothing(base: Path) -> None:
    client = Client(base)
    home = base / "postgres-18"
    wait_until(lambda: supervisors(home))
    client.kill()
    wait_until(lambda: is_quiet(home))


@pytest.mark.slow
def test_a_killed_throwaway_server_leaves_no_files() -> None:
    with EmbeddedServer(throwaway=True) as server:
        (supervisor,) = supervisors(server.data_dir)
        supervisor.kill()
        wait_until(lambda: supervisors(server.data_dir) not in ([], [supervisor]))
        with retrying(server.dsn, give_up_after=30) as conn:
            sockets = Path(str(conn.info.host))
    assert not server.data_dir.exists()
    assert not sockets.exists()


def test_the_sockets_of_a_killed_server_whose_data_is_gone_are_swept(base: Path, client: Client) -> None:
    home = Path(client.report["home"])
    sockets = Path(client.report["dsn"].split("host=")[1].split()[0])
    kill_all([psutil.Process(client.process.pid), *supervisors(home), *postmasters(home)])
    client.process.communicate()
    wait_until(lambda: is_quiet(home))
    assert sockets.exists()
    moved = base / "moved" / "postgres-18"
    moved.parent.mkdir()
    home.rename(moved)
    (moved / "server.json").unlink()
    with EmbeddedServer(moved):
        assert not sockets.exists()


def test_ctrl_c_in_the_terminal_reaches_the_user_but_not_the_server(base: Path) -> None:
    with EmbeddedServer(base) as server:
        other = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, f'{{"data_dir": "{base}"}}'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert other.stdout is not None
        other.stdout.readline()
        os.killpg(other.pid, signal.SIGINT)
        other.communicate()
        assert values(server.dsn) == [42]
    wait_until(lambda: is_quiet(server.data_dir))


@pytest.mark.slow
def test_a_server_started_in_a_thread_outlives_the_thread(base: Path) -> None:
    server = EmbeddedServer(base)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    try:
        assert values(server.dsn) == [42]
    finally:
        server.stop()


def test_a_polite_signal_to_the_supervisor_does_not_take_the_server_from_its_users(base: Path) -> None:
    with EmbeddedServer(base) as server:
        (supervisor,) = supervisors(server.data_dir)
        supervisor.send_signal(signal.SIGTERM)
        supervisor.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert supervisors(server.data_dir) == [supervisor]
        assert values(server.dsn) == [42]


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_starts_again_is_started_once_more(base: Path) -> None:
    with EmbeddedServer(base) as server:
        for _ in range(3):
            wait_until(lambda: postmasters(server.data_dir))
            for postmaster in postmasters(server.data_dir):
                postmaster.kill()
        with retrying(server.dsn, give_up_after=30):
            pass
        assert values(server.dsn) == [42]


@pytest.mark.slow
def test_a_server_that_does_not_stay_up_is_started_again_and_the_reason_told(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedServer(base) as server:
        for _ in range(6):
            wait_until(lambda: postmasters(server.data_dir))
            (postmaster,) = postmasters(server.data_dir)
            with retrying(server.dsn, give_up_after=30):
                pass
            postmaster.kill()
            postmaster.wait()
        with retrying(server.dsn, give_up_after=30):
            pass
        assert "is started once more" in caplog.text
        assert "again and again" in caplog.text


@pytest.mark.slow
def test_killing_somebody_at_random_a_hundred_times_loses_nothing(base: Path) -> None:
    import random

    seed = random.randrange(1_000_000)
    chosen = random.Random(seed)
    expected = [42]
    for number in range(100):
        with EmbeddedServer(base) as server:
            insert(server.dsn, number + 100)
            expected.append(number + 100)
            victims = [*supervisors(server.data_dir), *postmasters(server.data_dir)]
            chosen.choice(victims).kill()
            if chosen.random() < 0.5:
                assert values(server.dsn) == expected, f"seed {seed}"
    with EmbeddedServer(base) as server:
        assert values(server.dsn) == expected, f"seed {seed}"
