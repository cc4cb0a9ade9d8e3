"""One PostgreSQL cluster on disk: where its parts are, how it is made, started, asked and diagnosed.

Runs inside the supervisor process (see :mod:`pgflow_mp.embedded.supervisor`), so it imports the
standard library only. A *home* directory holds ``data`` (the cluster), ``server.log``,
``supervisor.log``, ``server.json`` (where the sockets are) and the two lock files.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

SUPERUSER = "postgres"
CONTROL_SOCKET = "control"
# sun_path holds 108 bytes with its end mark; the longest name that we put in the directory is
# ".s.PGSQL.65535.lock".
SOCKET_DIR_LIMIT = 107 - len("/.s.PGSQL.65535.lock")
_PR_SET_PDEATHSIG = 1


class StartFailure(Exception):
    """The server cannot run; ``str()`` says what and where, ``hint`` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Plan:
    """What a client asks the supervisor to run. Travels as JSON."""

    home: str
    bin_dir: str
    version: int
    conf: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    throwaway: bool = False
    temp_dirs: list[str] = field(default_factory=list)
    library_path: str | None = None

    @property
    def data(self) -> Path:
        return Path(self.home) / "data"

    @property
    def log(self) -> Path:
        return Path(self.home) / "server.log"

    @property
    def port(self) -> int:
        return int(self.settings.get("port", "5432"))


def read_state(home: Path) -> dict[str, Any]:
    """Return what ``server.json`` records (``socket_dir``, ``port``), or ``{}``."""
    try:
        state = json.loads((home / "server.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def replace_text(path: Path, text: str) -> None:
    """Replace ``path`` by a file with ``text``: a reader sees the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def lock(path: Path, timeout: float = 0.0) -> int | None:
    """Take the exclusive lock of a file within ``timeout`` seconds; its descriptor, or None."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        else:
            return descriptor


def make_socket_dir(plan: Plan) -> Path:
    """Return a private directory with a short path; the one used last time where possible.

    A stable path keeps the DSN of clients valid when the server comes back.
    """
    remembered = read_state(Path(plan.home)).get("socket_dir")
    if isinstance(remembered, str) and _own_socket_dir(Path(remembered)):
        return _labelled(Path(remembered), plan)
    for parent in plan.temp_dirs:
        if len(os.fsencode(parent)) + len("/pgflow-12345678") > SOCKET_DIR_LIMIT:
            continue
        with contextlib.suppress(OSError):
            _sweep_socket_dirs(Path(parent))
            return _labelled(Path(tempfile.mkdtemp(prefix="pgflow-", dir=parent)), plan)
    raise StartFailure(
        f"no directory for the server's socket: tried {', '.join(plan.temp_dirs)}",
        f"set TMPDIR to a writable directory with a path shorter than {SOCKET_DIR_LIMIT - 16} bytes",
    )


def _sweep_socket_dirs(parent: Path) -> None:
    """Remove socket directories whose server was killed and its data directory removed since."""
    for candidate in parent.glob("pgflow-????????"):
        with contextlib.suppress(OSError):
            if candidate.lstat().st_uid == os.geteuid():
                home = Path((candidate / "home").read_text("utf-8", "surrogateescape"))
                if not home.exists() and not _answers(candidate / CONTROL_SOCKET):
                    shutil.rmtree(candidate, ignore_errors=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def _labelled(directory: Path, plan: Plan) -> Path:
    (directory / "home").write_text(plan.home, "utf-8", "surrogateescape")
    return directory


def _own_socket_dir(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        try:
            status = path.lstat()
        except OSError:
            return False
        if (status.st_uid, status.st_mode & 0o170777) != (os.geteuid(), 0o040700):
            return False
        for entry in path.iterdir():
            with contextlib.suppress(OSError):
                entry.unlink()
    except OSError:
        return False
    return True


def command_environment(plan: Plan) -> dict[str, str]:
    """Return the environment of initdb and postgres: nothing of the caller's locale or PG* variables."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "LANG": "C", "TZ": "UTC", "HOME": plan.home}
    if plan.library_path is not None:
        environment["LD_LIBRARY_PATH"] = plan.library_path
    return environment


def prepare_child(sig: int, parent: int) -> None:
    """Undo the parent's deaf ears, and have the kernel send ``sig`` when it dies (Linux only).

    A signal that is ignored until postgres has installed its handlers would be lost.
    """
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(name, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def popen(
    plan: Plan, command: list[str], output: IO[bytes], *, death: int, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a direct child that writes to ``output`` and gets signal ``death`` if this process dies.

    The caller has one thread only, so ``preexec_fn`` is safe here.
    """
    parent = os.getpid()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=command_environment(plan),
        cwd=plan.home,
        pass_fds=pass_fds,
        preexec_fn=lambda: prepare_child(death, parent),  # noqa: PLW1509 - see above
    )


def sweep_unfinished(home: Path) -> None:
    """Remove what a killed ``initdb`` left; only under ``server.lock``, which its processes hold."""
    for leftover in home.glob("initdb-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def initdb_command(plan: Plan, target: Path) -> list[str]:
    command = [str(Path(plan.bin_dir) / "initdb"), "-D", str(target), "--locale=C", "-E", "UTF8"]
    command += ["-U", SUPERUSER, "-A", "trust", "--no-instructions"]
    if plan.version >= 16:
        command += ["-c", "dynamic_shared_memory_type=mmap"]  # /dev/shm may be tiny, or not there
    if plan.throwaway:
        command.append("--no-sync")
        if plan.version >= 18:
            command.append("--no-data-checksums")
    return command


def check_cluster(plan: Plan) -> None:
    """Refuse a directory that is no cluster, or one of another major version."""
    try:
        found = (plan.data / "PG_VERSION").read_text("utf-8").strip()
    except FileNotFoundError:
        raise StartFailure(
            f"{plan.data} is not a PostgreSQL data directory (it has no PG_VERSION)",
            "choose another --data-dir, or move this directory away",
        ) from None
    if found != str(plan.version):
        raise StartFailure(
            f"{plan.data} belongs to PostgreSQL {found}, but the binaries here are version {plan.version}",
            f"choose another --data-dir, or move its data over with pg_dump of version {found}",
        )


def write_configuration(plan: Plan) -> None:
    """Write ``postgresql.conf`` and ``pg_hba.conf``; ALTER SYSTEM still wins over the former."""
    plan.data.chmod(0o700)  # a copy or a restore may have opened it, which postgres refuses
    lines = ["# Written by pgflow_mp at every start. Use ALTER SYSTEM for settings of your own."]
    lines += [f"{name} = '{_quoted(value)}'" for name, value in plan.conf.items()]
    replace_text(plan.data / "postgresql.conf", "\n".join(lines) + "\n")
    # The socket is in a directory that only its owner can enter; TCP, if asked for, needs a password.
    rules = ["local all all trust"]
    rules += [f"host all all {address} scram-sha-256" for address in ("127.0.0.1/32", "::1/128")]
    replace_text(plan.data / "pg_hba.conf", "\n".join(rules) + "\n")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def disarm_stale_pid(plan: Plan) -> None:
    """Make a ``postmaster.pid`` left by a killed server harmless, whoever has its number now.

    The caller holds the lock that every process of our server inherits, so none of them lives.
    PostgreSQL skips its check by number for its own parent's, but still checks that nobody uses the
    shared memory named in the file: that interlock stays, which removing the file would lose.
    """
    path = plan.data / "postmaster.pid"
    try:
        lines = path.read_text("utf-8", "replace").splitlines(keepends=True)
    except FileNotFoundError:
        return
    if not lines or not lines[0].strip().lstrip("-").isdigit():
        path.unlink()
        return
    replace_text(path, f"{os.getpid()}\n" + "".join(lines[1:]))


def server_command(plan: Plan, socket_dir: Path) -> list[str]:
    command = [str(Path(plan.bin_dir) / "postgres"), "-D", str(plan.data)]
    settings: Mapping[str, str] = {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        **plan.settings,
        "unix_socket_directories": str(socket_dir),
    }
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def ping(socket_dir: Path, port: int) -> str:
    """Ask the server for a connection: ``ready``, ``starting`` (it says so) or ``silent``."""
    body = struct.pack("!i", 196_608) + f"user\0{SUPERUSER}\0database\0postgres\0\0".encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2.0)
            client.connect(str(socket_dir / f".s.PGSQL.{port}"))
            client.sendall(struct.pack("!i", len(body) + 4) + body)
            answer = client.recv(1024)
            if answer[:1] == b"R":
                client.sendall(b"X\0\0\0\x04")
    except OSError:
        return "silent"
    if answer[:1] == b"E":
        return "starting" if b"C57P03\0" in answer else "ready"
    return "ready" if answer[:1] == b"R" else "silent"
