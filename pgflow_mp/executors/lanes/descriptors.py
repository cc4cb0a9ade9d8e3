"""Room for the files of lanes: shared memory, pipes and queues of every process, all open in the parent.

The usual soft limit of open files is there for programs that use select(), which ends at descriptor 1023. We
do not, so it is raised while there are lanes, but not for the handlers in them: they get what was given.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from typing import Final

from pgflow_mp.errors import ConfigError

PER_LANE: Final = 16  # files in the parent (measured: 15.25)
_BESIDES: Final = 64  # connections, files of the target, of a terminal, of logs
_REPLACED: Final = 2  # a lane that is replaced has two processes for a while

_lock: Final = threading.Lock()
_pools = 0
_given: int | None = None


def given() -> int:
    """The soft limit as it was before it was raised here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _given is None else _given


def fitting() -> int:
    """The lanes for which there can be files, beside what is open by now."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return 1 << 30
    return max(0, (hard - _open() - _BESIDES) // PER_LANE)


def check(lanes: int) -> None:
    """Raise ConfigError if so many lanes cannot have their files."""
    if lanes <= (most := fitting()):
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    can = f"{most or 'no'} {'process' if most == 1 else 'processes'}"
    raise ConfigError(
        f"{lanes} processes need {lanes * PER_LANE + _BESIDES} open files, but the hard limit is {hard}, "
        f"{_open()} of which are open: {can} can have theirs",
        hint=f"Use --workers {most}, or raise the limit (ulimit -Hn)." if most else "Raise it (ulimit -Hn).",
    )


def take(lanes: int) -> bool:
    """Raise the soft limit as far as so many lanes need; give() puts it back. True, or raises ConfigError."""
    global _pools, _given
    check(lanes)
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if not _pools:
            _given = soft
        _pools += 1
        wanted = _open() + _BESIDES + lanes * PER_LANE * _REPLACED
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            _set(wanted, hard)
    return True


def give() -> bool:
    """A pool that took is gone; with the last one the limit is what it was. False."""
    global _pools, _given
    with _lock:
        _pools -= 1
        if not _pools and _given is not None:
            _set(_given, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            _given = None
    return False


def restore(soft: int) -> None:
    """Give a lane's process the limit that handlers are to see."""
    _set(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _set(soft: int, hard: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # the kernel knows a lower one that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _open() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 32
