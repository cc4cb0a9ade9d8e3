"""Reading from a server's last words why it does not run. The standard library only."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pgflow_mp.embedded.cluster import Plan, StartFailure

LOG_TAIL_LINES = 12


def log_tail(path: Path, lines: int = LOG_TAIL_LINES, since: int = 0) -> str:
    """Return the last lines of a log file after its byte ``since``, or an empty string."""
    try:
        with path.open("rb") as log:
            log.seek(max(since, path.stat().st_size - 16_384))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def diagnose(plan: Plan, what: str, code: int | None, said: str) -> StartFailure:
    """Turn what a program ``said`` before it ended with ``code`` (None: it did not) into an error."""
    tail = "\n".join(said.splitlines()[-LOG_TAIL_LINES:])
    where = f"its last lines:\n{tail}" if tail else "it said nothing"
    if _is_full(plan.home):  # then the log could not be written either
        tail += "\nNo space left on device"
    message, hint = f"{what} {_ended(code)}", f"Look into {plan.log}."
    for words, cause, advice in _CAUSES:
        if any(word in tail for word in words):
            message, hint = f"{what} {_ended(code)}: {cause}", advice.format(home=plan.home)
            break
    return StartFailure(f"{message}; {where}", hint)


def _is_full(directory: str) -> bool:
    try:
        status = os.statvfs(directory)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < 1_000_000


def _ended(code: int | None) -> str:
    if code is None:
        return "did not answer in time"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit status {code}"


_CAUSES: list[tuple[tuple[str, ...], str, str]] = [
    (
        ("could not resize shared memory segment", "could not open shared memory segment"),
        "the file system for shared memory (/dev/shm) is too small",
        "Enlarge it (docker run --shm-size=256m), or give --dsn to use a server of your own.",
    ),
    (
        ("No space left on device", "Disk quota exceeded"),
        "no space left on the disk",
        "Free some space where {home} is (a new cluster needs about 100 MB), or choose another --data-dir.",
    ),
    (("Read-only file system",), "the file system is read-only", "Choose a --data-dir that can be written."),
    (
        ("shared memory block", 'lock file "postmaster.pid" already exists'),
        "another server, not started by pgflow_mp, uses this data directory",
        "Stop that server, or choose another --data-dir.",
    ),
    (
        ("could not map anonymous shared memory", "Cannot allocate memory", "could not create shared memory"),
        "not enough memory for the server's buffers",
        "Free some memory, or start it with a smaller setting shared_buffers.",
    ),
    (
        (
            "could not create any Unix-domain socket",
            "could not bind Unix address",
            "could not create any TCP/IP",
        ),
        "its socket cannot be made",
        "Set TMPDIR to a local directory that can hold sockets, or choose another --port.",
    ),
    (
        ("does not exist\ninitdb: could not look up", "could not look up effective user ID"),
        "the user that runs it has no entry in the user database",
        "Add one to /etc/passwd, run as another user, or give --dsn.",
    ),
    (
        ("Permission denied", "Operation not permitted", "has invalid permissions", "has wrong ownership"),
        "permission denied",
        "Check owner and mode of {home} and of the directories above it, or choose another --data-dir.",
    ),
    (
        (
            "could not locate a valid checkpoint record",
            "invalid checkpoint record",
            "PANIC:",
            "is corrupted",
            "need to initdb",
            "pg_control",
        ),
        "the cluster is damaged",
        "Restore {home} from a copy, or move it away to begin with an empty one.",
    ),
    (
        ("unrecognized configuration parameter", "for parameter", "configuration file"),
        "a setting is wrong",
        "Correct the setting named in the log (yours, or one made with ALTER SYSTEM).",
    ),
    (
        ("error while loading shared libraries", "Exec format error", "not found (required by"),
        "the PostgreSQL binaries do not run on this platform",
        "Install the missing library, or give --dsn to use a PostgreSQL server of your own.",
    ),
]
