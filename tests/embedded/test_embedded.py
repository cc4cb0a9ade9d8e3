"""The embedded PostgreSQL as its callers see it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil
import psycopg
import pytest
from database_server import DatabaseServer

from pgflow_mp.embedded.server import EmbeddedServer, default_data_dir
from pgflow_mp.errors import EmbeddedServerError

from .embedded_clients import Client, is_quiet, postmasters, supervisors, wait_until


def answer(dsn: str) -> object:
    with psycopg.connect(dsn) as conn:
        return conn.execute("select answer from public.kept").fetchone()


def test_a_throwaway_server_answers_and_leaves_nothing() -> None:
    with EmbeddedServer(throwaway=True) as server, psycopg.connect(server.dsn) as conn:
        assert conn.info.dbname == "pgflow"
        assert conn.execute("show fsync").fetchone() == ("off",)
        sockets = conn.info.host
    assert not server.data_dir.exists()
    assert not Path(sockets).exists()
    wait_until(lambda: is_quiet(server.data_dir))


@pytest.mark.slow
def test_two_throwaway_servers_are_strangers() -> None:
    with EmbeddedServer(throwaway=True) as one, EmbeddedServer(throwaway=True) as two:
        assert one.dsn != two.dsn
        assert one.data_dir != two.data_dir


def test_state_outlives_a_stop_and_the_connection_string_stays_the_same(base: Path) -> None:
    with EmbeddedServer(base) as server:
        with psycopg.connect(server.dsn) as conn:
            conn.execute("insert into public.kept values (43)")
        dsn = server.dsn
    wait_until(lambda: is_quiet(server.data_dir))
    with EmbeddedServer(base) as server, psycopg.connect(server.dsn) as conn:
        assert server.dsn == dsn
        assert conn.execute("select answer from public.kept order by 1").fetchall() == [(42,), (43,)]


def test_the_last_one_out_stops_the_server(base: Path) -> None:
    with Client(base) as first:
        home = Path(first.report["home"])
        with Client(base) as second:
            with EmbeddedServer(base) as third:
                assert (first.report["attached"], second.report["attached"], third.attached) == (
                    False,
                    True,
                    True,
                )
                assert first.report["dsn"] == second.report["dsn"] == third.dsn
            first.leave()
            assert answer(second.report["dsn"]) == (42,)
        assert postmasters(home) == []
    wait_until(lambda: is_quiet(home))


@pytest.mark.slow
def test_two_processes_that_start_at_once_on_nothing_share_one_server(tmp_path: Path) -> None:
    clients = [Client(tmp_path / "base") for _ in range(3)]
    reports = [client.report for client in clients]
    assert sorted(report["attached"] for report in reports) == [False, True, True]
    assert len({report["id"] for report in reports}) == 1
    home = Path(reports[0]["home"])
    assert len(supervisors(home)) == len(postmasters(home)) == 1
    for client in clients:
        client.leave()
    wait_until(lambda: is_quiet(home))


@pytest.mark.slow
def test_starting_again_while_it_stops_works_every_time(base: Path) -> None:
    for _ in range(5):
        with EmbeddedServer(base) as server:
            assert answer(server.dsn) == (42,)


def test_start_and_stop_may_be_called_twice(base: Path) -> None:
    server = EmbeddedServer(base)
    server.stop()
    assert server.start().start() is server
    server.stop()
    server.stop()
    with pytest.raises(EmbeddedServerError, match="not started"):
        _ = server.dsn
    with server:
        assert answer(server.dsn) == (42,)


def test_it_listens_on_a_private_socket_and_no_port(base: Path) -> None:
    with EmbeddedServer(base) as server:
        (postmaster,) = postmasters(server.data_dir)
        sockets = postmaster.net_connections("all")
        with psycopg.connect(server.dsn) as conn:
            directory = Path(str(conn.info.host))
    assert {c.family.name for c in sockets} <= {"AF_UNIX"}
    assert [c.laddr for c in sockets if c.laddr] == [str(directory / ".s.PGSQL.5432")]


def test_directories_are_open_to_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    with Client(tmp_path / "a" / "b", umask=0) as client:
        home = Path(client.report["home"])
        sockets = Path(client.report["dsn"].split("host=")[1].split()[0])
        for path in (tmp_path / "a", tmp_path / "a" / "b", home, home / "data", sockets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        for path in home.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_it_is_durable_and_alter_system_outlives_a_restart(base: Path) -> None:
    with EmbeddedServer(base) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert conn.execute(f"show {name}").fetchone() == ("on",)
        assert conn.execute("show wal_level").fetchone() == ("minimal",)
        conn.execute("alter system set work_mem = '7MB'")
    with (
        EmbeddedServer(base, settings={"random_page_cost": "3"}) as server,
        psycopg.connect(server.dsn) as conn,
    ):
        assert conn.execute("show work_mem").fetchone() == ("7MB",)
        assert conn.execute("show random_page_cost").fetchone() == ("3",)


def test_the_version_is_in_the_name_of_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLOW_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path / "postgres-18"
    assert EmbeddedServer().data_dir == tmp_path / "postgres-18"
    assert EmbeddedServer(default_data_dir()).data_dir == tmp_path / "postgres-18"
    assert EmbeddedServer(tmp_path / "other").data_dir == tmp_path / "other" / "postgres-18"
    monkeypatch.delenv("PGFLOW_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_data_dir().is_relative_to(tmp_path)


def test_state_of_another_version_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "postgres-17" / "data").mkdir(parents=True)
    (tmp_path / "postgres-17" / "data" / "PG_VERSION").write_text("17\n")
    assert EmbeddedServer(tmp_path).data_dir == tmp_path / "postgres-18"
    assert f"{tmp_path / 'postgres-17'} holds state of another PostgreSQL version" in caplog.text


def test_a_forked_child_does_not_keep_the_server(base: Path) -> None:
    server = EmbeddedServer(base).start()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        server.stop()
        assert postmasters(server.data_dir) == []
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_it_also_runs_binaries_of_the_machine(system_server: DatabaseServer) -> None:
    with psycopg.connect(system_server.dsn) as conn:
        assert conn.info.server_version >= 150000
        assert conn.execute("show fsync").fetchone() == ("off",)


def test_the_supervisor_is_nobodys_child_and_reads_no_terminal(base: Path) -> None:
    with EmbeddedServer(base) as server:
        (supervisor,) = supervisors(server.data_dir)
        (postmaster,) = postmasters(server.data_dir)
        assert postmaster.ppid() == supervisor.pid
        assert supervisor.pid not in [child.pid for child in psutil.Process().children()]
        assert os.getsid(supervisor.pid) != os.getsid(0)
