"""How many lanes a machine gets, and how many threads each lane."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lane_harness import lanes, text

from pgflow_mp.executors import cpus


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_without_a_quota_the_affinity_mask_counts(tmp_path: Path) -> None:
    assert cpus.available_cpus(tmp_path, tmp_path) == len(os.sched_getaffinity(0))


def test_a_mask_of_one_cpu_means_one_lane() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cpus.available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("limit", "quota"), [("50000 100000", 0.5), ("150000 100000", 1.5), ("max 100000", None), ("", None)]
)
def test_a_version_2_quota_is_read_from_the_group_and_all_above_it(
    tmp_path: Path, limit: str, quota: float | None
) -> None:
    write(tmp_path / "proc" / "cgroup", "0::/outer/inner\n")
    write(tmp_path / "outer" / "cpu.max", limit)
    write(tmp_path / "outer" / "inner" / "cpu.max", "max 100000")
    assert cpus.cgroup_quota(tmp_path, tmp_path / "proc") == quota


def test_a_version_1_quota_is_read(tmp_path: Path) -> None:
    write(tmp_path / "proc" / "cgroup", "4:cpu,cpuacct:/job\n3:memory:/job\n")
    write(tmp_path / "cpu,cpuacct" / "job" / "cpu.cfs_quota_us", "120000")
    write(tmp_path / "cpu,cpuacct" / "job" / "cpu.cfs_period_us", "100000")
    assert cpus.cgroup_quota(tmp_path, tmp_path / "proc") == 1.2


def test_a_quota_is_rounded_up_and_never_below_one(tmp_path: Path) -> None:
    write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "cpu.max", "20000 100000")
    assert cpus.available_cpus(tmp_path, tmp_path) == 1


def test_the_count_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_CPU_COUNT", "7")
    assert cpus.available_cpus() == 7


def test_numeric_libraries_get_the_asked_number_of_threads_unless_the_user_said_otherwise() -> None:
    variables = cpus.thread_environment(1, {"MKL_NUM_THREADS": "4"})
    assert variables["OMP_NUM_THREADS"] == "1"
    assert "MKL_NUM_THREADS" not in variables
    assert cpus.thread_environment(0, {}) == {}


def test_a_handler_sees_one_thread_and_the_parent_keeps_its_environment() -> None:
    with lanes(1) as harness:
        (outcome,) = harness.run([["environ", "OPENBLAS_NUM_THREADS"]])
        assert text(outcome) == '"1"'
    assert "OPENBLAS_NUM_THREADS" not in os.environ
