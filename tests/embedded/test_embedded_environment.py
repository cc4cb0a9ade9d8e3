"""The embedded server under odd users, paths, masks, locales and variables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from pgflow_mp.db import connection
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.flows.context import Runtime

from .embedded_clients import Client, is_quiet, postmasters, supervisors, wait_until

ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not ROOT, reason="needs to be root to become somebody else")
LONG, ODD = "x" * 100 + "/" + "y" * 100, "with space 'and' \"quotes\" $HOME ü"
ORDINARY, UNLISTED = 1, 54321  # "daemon" is in every passwd file, the other in none


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that other users can reach too, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="pgflow-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def as_user(uid: int) -> Sequence[str]:
    """A command prefix that becomes another user for good.

    It keeps one right of root's, to look into directories: this Python may be installed below /root.
    """
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    prefix += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], check=False).returncode != 0:
        pytest.skip("no setpriv here, or root may not become another user")
    return prefix


@pytest.mark.parametrize("name", [LONG, ODD])
def test_any_path_will_do(base: Path, name: str) -> None:
    target = base.parent / name
    target.parent.mkdir(exist_ok=True)
    base.rename(target)
    with EmbeddedServer(target) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select answer from public.kept").fetchone() == (42,)


@pytest.mark.slow
def test_a_new_cluster_can_be_made_at_any_path(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / ODD / LONG) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)


def test_nothing_in_the_environment_leads_it_astray(tmp_path: Path) -> None:
    long_temp = tmp_path / ("t" * 120)
    long_temp.mkdir()
    odd = {
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "xx_XX.nonsense",
        "LANGUAGE": "de",
        "TZ": "Mars/Olympus",
        "TMPDIR": str(long_temp),
        "PGHOST": "/nonexistent",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "nobody-here",
        "PGDATABASE": "nothing",
        "PGDATA": "/nonexistent",
        "PGOPTIONS": "-c nonsense=1",
        "PGSSLMODE": "verify-full",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGREQUIREPEER": "nobody-here",
        "PGTARGETSESSIONATTRS": "standby",
        "PGPASSWORD": "secret",
        "PYTHONPATH": str(tmp_path),
        "PYTHONSAFEPATH": "1",
        "PATH": "/nonexistent",
    }
    (tmp_path / "socket.py").write_text("raise SystemExit('a module of the user was imported')")
    odd.pop("PYTHONPATH")
    with Client(tmp_path / "base", env=odd, umask=0o077) as client:
        assert "dsn" in client.report, client.report
        assert "/nonexistent" not in client.report["dsn"]


@pytest.mark.slow
def test_modules_of_the_user_are_not_imported_by_the_supervisor(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("socket", "json", "pwd", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with EmbeddedServer(base) as server:
        assert supervisors(server.data_dir)


@pytest.mark.slow
@root_only
def test_an_ordinary_user_has_an_ordinary_server(open_dir: Path) -> None:
    os.chown(open_dir, ORDINARY, ORDINARY)
    with Client(open_dir / "base", prefix=as_user(ORDINARY), env={"HOME": str(open_dir)}) as client:
        home = Path(client.report["home"])
        (postmaster,) = postmasters(home)
        assert postmaster.uids().effective == ORDINARY
        assert (home / "data").stat().st_uid == ORDINARY
    wait_until(lambda: is_quiet(home))
    # Root may use it too; it stays the user's.
    with EmbeddedServer(open_dir / "base") as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)
        assert {process.uids().effective for process in postmasters(home)} == {ORDINARY}
    assert {path.stat().st_uid for path in home.rglob("*")} == {ORDINARY}


@root_only
def test_an_ordinary_user_is_told_that_the_directory_belongs_to_somebody_else(open_dir: Path) -> None:
    with Client(open_dir / "base", prefix=as_user(ORDINARY)) as client:
        assert (
            f"Cannot use the data directory {open_dir}/base/postgres-18: permission denied"
            in client.report["error"]
        )
        assert "owner and mode" in client.report["hint"]


@pytest.mark.slow
@root_only
def test_a_user_without_an_entry_in_the_user_database_has_a_server_or_a_reason(open_dir: Path) -> None:
    os.chown(open_dir, UNLISTED, UNLISTED)
    with Client(open_dir / "base", prefix=as_user(UNLISTED), env={"HOME": str(open_dir)}) as client:
        if "error" in client.report:
            assert "has no entry in the user database" in client.report["error"]
            assert "/etc/passwd" in client.report["hint"]
        else:
            assert {process.uids().effective for process in postmasters(Path(client.report["home"]))} == {
                UNLISTED
            }


WITHOUT_USER_NAMESPACES = """
import ctypes, os, sys
begin, done = os.pipe(), os.pipe()
helper = os.fork()
if helper == 0:  # stays outside, where it may map all users to themselves
    os.read(begin[0], 1)
    for name in ("uid_map", "gid_map"):
        open(f"/proc/{os.getppid()}/{name}", "w").write("0 0 65536")
    os.write(done[1], b"x")
    os._exit(0)
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit("unshare")
os.write(begin[1], b"x")
os.waitpid(helper, 0)
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""


def without_user_namespaces() -> Sequence[str]:
    """A command prefix: root, in a place where nobody may make another user namespace."""
    prefix = [sys.executable, "-c", WITHOUT_USER_NAMESPACES]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("user namespaces cannot be switched off here")
    return prefix


@root_only
@pytest.mark.slow
@pytest.mark.parametrize("private", [False, True])
def test_root_without_user_namespaces_becomes_another_user(open_dir: Path, private: bool) -> None:
    prefix = without_user_namespaces()
    if private:
        open_dir.chmod(0o700)  # as /root is: only root gets through
    with Client(open_dir / "base", prefix=prefix) as client:
        assert "dsn" in client.report, client.report
        home = Path(client.report["home"])
        (postmaster,) = postmasters(home)
        assert postmaster.uids().effective != 0
        (supervisor,) = supervisors(home)
        supervisor.kill()
        wait_until(lambda: not postmaster.is_running() or postmaster not in postmasters(home))
        wait_until(lambda: postmasters(home))
    wait_until(lambda: is_quiet(home))
    with Client(open_dir / "base", prefix=prefix) as again:
        assert "dsn" in again.report, again.report
    with EmbeddedServer(open_dir / "base") as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("select 1").fetchone() == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o777, 0o077])
def test_a_throwaway_server_works_under_any_umask(umask: int) -> None:
    with Client(throwaway=True, umask=umask) as client:
        assert "dsn" in client.report, client.report


def test_no_variable_of_libpq_keeps_us_or_a_handler_from_the_embedded_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar]
    for name in ("PGTZ", "PGDATESTYLE", "PGSERVICE", "PGCONNECT_TIMEOUT"):  # it starts with them
        monkeypatch.setenv(name, "nonsense")
    with EmbeddedServer(throwaway=True) as server:
        for name in [*names, "PGTZ", "PGDATESTYLE", "PGGEQO", "PGSERVICEFILE", "PGREQUIRESSL"]:
            value = "require" if name.endswith("MODE") else "nowhere"
            with monkeypatch.context() as context:
                context.setenv(name, value)
                with connection.connect(server.dsn) as conn:
                    assert conn.execute("select 1").fetchone() == (1,), name
                runtime = Runtime(dsn=server.dsn)
                assert runtime.connect().execute("select 1").fetchone() == (1,), name
                runtime.close()
                assert os.environ[name] == value  # a handler may want it for another server
