"""Memory of lanes and of the machine: what is used, what is left, when to brake."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from pgflow_mp.executors import cpus

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")
_UNLIMITED_V1: Final = 1 << 60


class HostMemory(NamedTuple):
    """Bytes. ``limit`` is the tighter of the machine's memory and the control group's."""

    available: int
    limit: int


def host_memory(root: Path = _CGROUP, proc: Path = _PROC / "self") -> HostMemory:
    """What this process may still use: the machine's available memory, cut by its control group's limit."""
    machine = psutil.virtual_memory()
    available, limit = machine.available, machine.total
    for controllers, path in cpus.cgroup_paths(proc):
        if not controllers:
            names, base = ("memory.max", "memory.current"), root
        elif "memory" in controllers.split(","):
            names, base = ("memory.limit_in_bytes", "memory.usage_in_bytes"), root / "memory"
        else:
            continue
        for directory in cpus.up_to_root(base, path):
            allowed, used = (_number(directory / name) for name in names)
            if allowed is None or used is None or allowed >= _UNLIMITED_V1:
                continue
            # Page cache counts as used but is given up under pressure.
            reclaimable = _field(directory / "memory.stat", "inactive_file")
            limit = min(limit, allowed)
            available = min(available, allowed - used + reclaimable)
    return HostMemory(max(0, available), limit)


def under_pressure(memory: HostMemory, *, paused: bool, low: float = 0.05, enough: float = 0.10) -> bool:
    """Whether to pause claiming: below ``low`` of the limit, until ``enough`` of it is available again."""
    return memory.available < memory.limit * (enough if paused else low)


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and all its descendants; 0 if it is gone."""
    try:
        process = psutil.Process(pid)
        total: int = process.memory_info().rss
    except psutil.Error:
        return 0
    if _has_children(pid):
        with contextlib.suppress(psutil.Error):
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
    return total


def _has_children(pid: int) -> bool:
    """Cheaply where the kernel tells; psutil's search reads every process of the machine."""
    try:
        return any((task / "children").read_bytes() for task in (_PROC / str(pid) / "task").iterdir())
    except OSError:
        return True


def oom_kills(root: Path = _CGROUP, proc: Path = _PROC) -> int:
    """How often the kernel's OOM killer has struck here; rises with every kill."""
    groups = [path for controllers, path in cpus.cgroup_paths(proc / "self") if not controllers]
    return _field(proc / "vmstat", "oom_kill") + sum(
        _field(root / path.strip("/") / "memory.events", "oom_kill") for path in groups
    )


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name and value.strip().isdecimal():
                return int(value)
    except OSError:
        pass
    return 0
