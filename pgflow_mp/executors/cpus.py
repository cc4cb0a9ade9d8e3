"""How many lanes to run, and how many threads each may use.

CPUs actually allowed count, not CPUs seen: affinity mask and the control group's quota.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# One variable per library family that starts threads by itself.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",  # OpenMP: scikit-learn, PyTorch, pyarrow
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib with n_jobs=-1
)


def thread_environment(threads: int, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables that hold numeric libraries to ``threads`` threads per lane.

    A variable that is set already is left alone; 0 leaves all of them alone.
    """
    environment = os.environ if environment is None else environment
    if threads <= 0:
        return {}
    return {name: str(threads) for name in THREAD_VARIABLES if name not in environment}


def available_cpus(cgroup_root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")) -> int:
    """CPUs this process may really use, at least 1: the affinity mask, cut by the cgroup's quota rounded up.

    PYTHON_CPU_COUNT (Python 3.13) overrides both.
    """
    if (wanted := os.environ.get("PYTHON_CPU_COUNT", "")).isdecimal() and int(wanted) > 0:
        return int(wanted)
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    quota = cgroup_quota(cgroup_root, proc)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def cgroup_quota(root: Path, proc: Path) -> float | None:
    """The tightest CPU quota of our control groups in CPUs, None where there is none."""
    quotas: list[float] = []
    for controllers, path in cgroup_paths(proc):
        if not controllers:
            quotas += _quotas_v2(root, path)
        elif "cpu" in controllers.split(","):
            quotas += _quotas_v1(root, path)
    return min(quotas, default=None)


def cgroup_paths(proc: Path) -> list[tuple[str, str]]:
    """(controllers, path) of this process's control groups; no controllers: version 2."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return []
    return [(parts[1], parts[2]) for line in lines if len(parts := line.split(":", 2)) == 3]


def up_to_root(root: Path, path: str) -> list[Path]:
    """The group's directory and its ancestors: a limit anywhere above counts."""
    here = root / path.strip("/")
    return [here, *(parent for parent in here.parents if parent == root or root in parent.parents)]


def _quotas_v2(root: Path, path: str) -> list[float]:
    found: list[float] = []
    for directory in up_to_root(root, path):
        words = _read(directory / "cpu.max").split()
        if len(words) == 2 and words[0].isdecimal() and int(words[1]) > 0:
            found.append(int(words[0]) / int(words[1]))
    return found


def _quotas_v1(root: Path, path: str) -> list[float]:
    found: list[float] = []
    for mount in ("cpu", "cpu,cpuacct"):
        for directory in up_to_root(root / mount, path):
            quota, period = (_read(directory / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            if quota.isdecimal() and period.isdecimal() and int(period) > 0:
                found.append(int(quota) / int(period))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
