"""Fixtures that every test may use: one throw-away PostgreSQL per session, one database per test.

PGFLOW_TEST_DSN names another server to test against; its user must be allowed to create databases.
"""

from __future__ import annotations

import compileall
import contextlib
import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import psycopg
import pytest
import warm_python
from database_server import DatabaseServer, room_in_memory, system_bin_dirs
from worker_harness import end_processes

import pgflow_mp
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.executors.cpus import available_cpus

hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")  # how long something takes says more of the machine than of it

SESSION_VARIABLE = "PGFLOW_TEST_SESSION"
_LEFT = "pgflow_left_behind"
_left_by_workers: list[str] = []
PACKAGE = Path(pgflow_mp.__file__).parent


@pytest.fixture(scope="session")
def server() -> Iterator[DatabaseServer]:
    """The server of this test session: throw-away, or the one that PGFLOW_TEST_DSN names."""
    if given := os.environ.get("PGFLOW_TEST_DSN"):
        yield DatabaseServer(given)
    else:
        with EmbeddedServer(room_in_memory(), throwaway=True) as embedded:
            yield DatabaseServer(embedded.dsn)


@pytest.fixture(scope="session")
def template(server: DatabaseServer) -> Iterator[str]:
    """The name of a database with the schema installed, to be copied."""
    from pgflow_mp.db import schema

    name = server.create_database()
    with psycopg.connect(server.dsn_of(name), autocommit=True) as conn:
        schema.install(conn)
    yield name
    server.drop_database(name)


@pytest.fixture(scope="session")
def _shared(server: DatabaseServer, template: str) -> Iterator[str]:
    with server.database(template) as dsn:
        yield dsn


@pytest.fixture
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """The connection string of a fresh database with the schema."""
    with server.database(template) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(server: DatabaseServer) -> Iterator[str]:
    """The connection string of a fresh database without the schema."""
    with server.database() as dsn:
        yield dsn


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """An autocommit connection to ``dsn``."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def tx(_shared: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection inside one transaction that is rolled back: the fastest way to the schema.

    Nothing in it may commit, and nobody else sees what it does.
    """
    conn = psycopg.connect(_shared)
    try:
        yield conn
    finally:
        conn.rollback()
        conn.close()


@pytest.fixture(scope="session")
def system_server() -> Iterator[DatabaseServer]:
    """A throw-away server of the machine's own, oldest PostgreSQL (15 or newer), else skip."""
    for bin_dir in system_bin_dirs():
        if int(bin_dir.parent.name) >= 15:
            with EmbeddedServer(room_in_memory(), throwaway=True, bin_dir=bin_dir) as embedded:
                yield DatabaseServer(embedded.dsn)
            return
    pytest.skip("no PostgreSQL 15 or newer in /usr/lib/postgresql")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For ``-n auto``: one more than there are CPUs, since a third of the tests' time is waiting."""
    return available_cpus() + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what is compiled of the tests, also where Python is told not to.

    Flows that tests write are not kept: they change too fast for Python to notice.
    """
    told, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()  # nearly all of this stays: looking through it again and again took a quarter of the time
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        sys.dont_write_bytecode = told


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which handlers of worker_flows.py note what they do."""
    from worker_flows import LOG

    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv(LOG, str(path))
    return path


def pytest_sessionstart(session: pytest.Session) -> None:
    """Mark every process that the tests start, however far away it goes, and compile what hundreds import.

    A shell starts what it puts into the background with SIGINT ignored, and so would all our children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[SESSION_VARIABLE] = f"{os.getpid()}-{uuid.uuid4().hex}"
    if not hasattr(session.config, "workerinput"):  # one for all, before there are workers
        compileall.compile_dir(PACKAGE, quiet=2)


def _left_behind() -> list[psutil.Process]:
    mark = os.environ.get(SESSION_VARIABLE)
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            marked = process.pid != os.getpid() and process.environ().get(SESSION_VARIABLE) == mark
            if marked and process.status() != psutil.STATUS_ZOMBIE and not _is_helper(process):
                left.append(process)
    return left


def _is_helper(process: psutil.Process) -> bool:
    """Whether it is one of those that Python has started for this process, and that end with it."""
    helpers = ("multiprocessing.resource_tracker ", "multiprocessing.forkserver ")
    command = " ".join(process.cmdline())
    return process.ppid() == os.getpid() and any(f"from {helper}import main" in command for helper in helpers)


@pytest.fixture(autouse=True)
def _no_worker_left() -> Iterator[None]:
    """A test that fails leaves no worker running."""
    yield
    end_processes()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if a process that a test started is still there, and end that."""
    warm_python.end()
    deadline = time.monotonic() + 10.0
    while (left := _left_behind()) and time.monotonic() < deadline:
        time.sleep(0.05)
    told = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            test = process.environ().get("PYTEST_CURRENT_TEST", "a fixture")
            told.append(f"pid {process.pid} {' '.join(process.cmdline())[:200]}, begun in {test}")
            process.kill()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_LEFT] = told
    _tell_of_left(session, told + _left_by_workers)


def pytest_testnodedown(node: object) -> None:
    """What a worker of xdist says at its end."""
    _left_by_workers.extend(getattr(node, "workeroutput", {}).get(_LEFT, ()))


def _tell_of_left(session: pytest.Session, told: list[str]) -> None:
    for text in told:
        print(f"\nLEFT BEHIND: {text}")
    if told and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
