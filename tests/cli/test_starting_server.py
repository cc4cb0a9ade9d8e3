"""Commands that find their server starting, recovering from a crash, or not there at all."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from cli_harness import FLOWS, Cli, finish
from psycopg.conninfo import make_conninfo

from pgflow_mp.db import connection, schema
from pgflow_mp.db.connection_errors import ServerStarting
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import DatabaseError, DatabaseUnavailable


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a durable server that tests may crash."""
    with EmbeddedServer(tmp_path_factory.mktemp("state") / "server") as server:
        with connection.connect(server.dsn) as conn:
            schema.install(conn)
        yield server.dsn


@contextlib.contextmanager
def crash_recovery(dsn: str) -> Iterator[psutil.Process]:
    """Keep the server in crash recovery: one of its processes was killed, and a stopped one does not leave.

    The server waits 5 s for that one; SIGCONT lets it go earlier.
    """
    with (
        contextlib.closing(psycopg.connect(dsn)) as idle,
        contextlib.closing(psycopg.connect(dsn)) as victim,
    ):
        stopped = psutil.Process(idle.info.backend_pid)
        stopped.suspend()
        psutil.Process(victim.info.backend_pid).kill()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                psycopg.connect(dsn).close()
            except psycopg.OperationalError as error:
                if "the database system is" in str(error):
                    break
            time.sleep(0.02)
        else:
            pytest.fail("the server does not recover")
        try:
            yield stopped
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                stopped.resume()
    connection.retrying(dsn, give_up_after=20).close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("verb", [pytest.param("worker", marks=pytest.mark.slow), "run"])
def test_a_server_in_recovery_is_waited_for_and_said(own_server: str, tmp_path: Path, verb: str) -> None:
    cli = Cli(tmp_path, own_server)
    target = f"{FLOWS}:square"
    try:
        with crash_recovery(own_server) as stopped:
            if verb == "run":
                process = cli.start("run", target, "--input", "[1, 2]", "--output", "-", "--workers", "1")
            else:
                process = cli.start(target, "--workers", "1")
            line = said(process)
            assert "waiting for the database, up to 60 s" in line
            assert "the server is starting or shutting down" in line
            assert process.poll() is None
            stopped.resume()
        if verb == "run":
            done = finish(process)
            assert (done.code, done.out.strip()) == (0, '{"times": [1, 4]}'), done
        else:
            while (line := said(process)) and "Ctrl-C stops" not in line:
                pass
            assert line
            process.send_signal(signal.SIGTERM)
            assert finish(process).code in (0, -signal.SIGTERM)  # the latter before it has begun
    finally:
        cli.kill_all()


def test_waiting_for_a_server_has_an_end(own_server: str) -> None:
    with crash_recovery(own_server):
        began = time.monotonic()
        with pytest.raises(ServerStarting, match="the server is starting or shutting down"):
            connection.connect_when_up(own_server, give_up_after=0.5)
        assert 0.4 < time.monotonic() - began < 2.5


def test_what_waiting_cannot_cure_is_told_as_soon_as_the_server_answers(own_server: str) -> None:
    dsn = make_conninfo(own_server, dbname="no_such_database")
    with crash_recovery(own_server) as stopped:
        threading.Timer(0.5, stopped.resume).start()
        with pytest.raises(DatabaseError, match="the database does not exist"):
            connection.connect_when_up(dsn)


def test_a_server_that_is_not_there_is_not_waited_for(own_server: str) -> None:
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        connection.connect_when_up(make_conninfo(own_server, host="127.0.0.1", port="1"))
    with pytest.raises(DatabaseError, match="the database does not exist"):
        connection.connect_when_up(make_conninfo(own_server, dbname="no_such_database"))
    assert time.monotonic() - began < 2
