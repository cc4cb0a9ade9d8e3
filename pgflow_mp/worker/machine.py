"""What is wrong with the machine that a worker is to run on, or will go wrong."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from pgflow_mp.db.checkup import Symptom
from pgflow_mp.errors import ConfigError
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.lanes import descriptors

_LITTLE_MEMORY: Final = 256 << 20  # for each lane
_LITTLE_DISK: Final = 2 << 30
_REMOTE: Final = ("nfs", "cifs", "smb", "9p", "fuse")


def machine_symptoms(lanes: int | None = None, data_dir: Path | None = None) -> Iterator[Symptom]:
    """All of them, good ones, too, for so many ``lanes``; ``data_dir``: of the embedded server."""
    cpus = available_cpus()
    seen = os.cpu_count() or cpus
    of = f" of {seen}" if seen != cpus else ""
    yield Symptom("ok", f"Python {platform.python_version()}, {cpus}{of} CPUs may be used")
    wanted = lanes or cpus
    if wanted > cpus:
        yield Symptom("warn", f"{wanted} processes for {cpus} CPUs", "They take turns: --workers auto fits.")
    yield from _memory(wanted)
    try:
        descriptors.check(wanted)
    except ConfigError as error:
        yield Symptom("bad", str(error), error.hint)
    yield from _room(Path(tempfile.gettempdir()), "temporary files")
    if data_dir is not None:
        yield from _room(data_dir, "the embedded server")
        yield from _remote(data_dir)


def _memory(lanes: int) -> Iterator[Symptom]:
    free = psutil.virtual_memory().available
    little = free < lanes * _LITTLE_MEMORY
    yield Symptom(
        "warn" if little else "ok",
        f"{free / (1 << 30):.1f} GB of memory are free",
        f"That is little for {lanes} processes: use fewer (--workers)." if little else "",
    )


def _room(place: Path, of: str) -> Iterator[Symptom]:
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    little = free < _LITTLE_DISK
    yield Symptom(
        "warn" if little else "ok",
        f"{free / (1 << 30):.1f} GB are free for {of} ({place})",
        "Make room before it is full." if little else "",
    )
    if not os.access(place, os.W_OK):
        yield Symptom("bad", f"{place} is not writable", f"{of.capitalize()} must be written there.")


def _remote(place: Path) -> Iterator[Symptom]:
    mounts = sorted(psutil.disk_partitions(all=True), key=lambda mount: -len(mount.mountpoint))
    for mount in mounts:
        if place.is_relative_to(mount.mountpoint):
            if mount.fstype.startswith(_REMOTE):
                yield Symptom(
                    "warn",
                    f"the embedded server's data lie on a network file system ({mount.fstype})",
                    "PostgreSQL wants a local disk: --data-dir.",
                )
            return
