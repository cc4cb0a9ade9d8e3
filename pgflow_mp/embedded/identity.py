"""Which user the embedded server runs as.

PostgreSQL refuses to run as root. As root we enter a user namespace that shows root as an ordinary
user; where the machine forbids that, we become another user for good. Runs inside the supervisor
process before it has opened anything: the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import struct
from collections.abc import Callable
from pathlib import Path

from pgflow_mp.embedded.cluster import StartFailure

_CLONE_NEWUSER = 0x10000000
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_FOWNER = 1, 2, 3
_CAPABILITY_VERSION_3 = 0x20080522


def become_unprivileged(home: Path, bin_dir: Path) -> str:
    """Make this process one that PostgreSQL accepts; returns how, for the log.

    Raises StartFailure where neither way works.
    """
    uid = os.geteuid()
    if uid != 0:
        if _known(uid):
            return f"uid {uid}"
        if _probe(_enter_namespace, home, bin_dir):
            _enter_namespace()
            return f"uid {uid}, shown as {os.geteuid()} in a user namespace"
        raise StartFailure(
            f"user id {uid} has no entry in the user database, which PostgreSQL's initdb needs",
            "add one to /etc/passwd, run as another user, or give --dsn",
        )
    owner = _owner(home)
    if owner == 0 and _probe(_enter_namespace, home, bin_dir):
        _enter_namespace()
        return f"root, shown as uid {os.geteuid()} in a user namespace"
    return _drop(home, bin_dir, owner)


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _owner(home: Path) -> int:
    for path in (home / "data", home):
        with contextlib.suppress(OSError):
            return path.stat().st_uid
    return 0


def _account() -> pwd.struct_passwd:
    """Return an ordinary account: initdb insists on one with an entry in the user database."""
    accounts = [entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.geteuid())]
    ranked = {name: place for place, name in enumerate(("postgres", "daemon", "nobody"))}
    accounts.sort(key=lambda entry: (ranked.get(entry.pw_name, len(ranked)), entry.pw_uid))
    if not accounts:
        raise StartFailure(
            "PostgreSQL does not run as root, and this machine has no other user",
            "add an ordinary user to /etc/passwd, or give --dsn",
        )
    return accounts[0]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _probe(enter: Callable[[], None], home: Path, bin_dir: Path) -> bool:
    """Try ``enter`` in a child: it cannot be undone. True if all that the server needs is reachable."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(Exception):
            enter()
            if os.access(home, os.R_OK | os.W_OK | os.X_OK) and os.access(bin_dir / "postgres", os.X_OK):
                status = 0
        os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _enter_namespace() -> None:
    uid, gid, account = os.geteuid(), os.getegid(), _account()
    libc = _libc()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{account.pw_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{account.pw_gid} {gid} 1")


def _drop(home: Path, bin_dir: Path, owner: int) -> str:
    """Become ``owner`` of the cluster (a new one: some ordinary account) for good."""
    account = _account()
    uid, gid = (owner, home.stat().st_gid) if owner else (account.pw_uid, account.pw_gid)
    # Below a directory of somebody else, root's rights could be led astray by symbolic links.
    trusted = home.parent.stat().st_uid == 0
    try:
        if not owner:
            _give_away(home, uid, gid)
        _libc().prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        with contextlib.suppress(PermissionError):
            os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise StartFailure(
            f"PostgreSQL does not run as root, and root may not become user id {uid} here: {error}",
            "run as an ordinary user, allow user namespaces, or give --dsn",
        ) from error
    if trusted:
        _keep_file_access()
    for path in (home, bin_dir / "postgres"):
        try:  # access(2) would leave the kept capabilities out of account
            (path / "data").stat() if path == home else path.stat()
        except FileNotFoundError:
            continue
        except OSError:
            raise StartFailure(
                f"PostgreSQL does not run as root, and user id {uid} cannot reach {path}",
                "choose a --data-dir that every user can reach, run as an ordinary user, or give --dsn",
            ) from None
    return f"uid {uid} instead of root"


def _give_away(home: Path, uid: int, gid: int) -> None:
    for directory, _, files in os.walk(home):
        os.chown(directory, uid, gid)
        for name in files:
            os.chown(os.path.join(directory, name), uid, gid, follow_symlinks=False)


def _keep_file_access() -> None:
    """Keep root's way through directories such as /root for the server too, where allowed."""
    libc = _libc()
    wanted = (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_FOWNER)
    for kept in (wanted, wanted[:1]):
        mask = sum(1 << capability for capability in kept)
        header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
        if libc.capset(header, struct.pack("=6I", mask, mask, mask, 0, 0, 0)) == 0:
            for capability in kept:
                libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return
