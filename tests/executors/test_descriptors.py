"""Open files: more than select() can watch, more lanes than the usual limit allows, too many lanes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from lane_harness import lanes
from worker_harness import execute, output

from pgflow_mp.errors import ConfigError
from pgflow_mp.executors.lanes import descriptors

FLOW = """
import resource
from pgflow_mp import Flow

flow = Flow("misbehave")

@flow.map
def act(_: int) -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""


@contextmanager
def limit(soft: int) -> Iterator[None]:
    """This process may have so many files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def many_files(count: int = 1100) -> Iterator[None]:
    """So many files are open; the next one's number is beyond what select() can watch."""
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for file in files:
            with suppress(OSError):
                os.close(file)


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_worker_works_beside_a_thousand_open_files(dsn: str) -> None:
    with limit(4096), many_files():
        run_id, report = execute(dsn, "chain", list(range(20)))
    assert report.stats.done == 41
    assert output(dsn, run_id)["joined"].startswith("#0 #2 #4")


def test_lanes_have_their_files_and_handlers_the_limit_that_was_given(tmp_path: Path) -> None:
    target = tmp_path / "flow.py"
    target.write_text(FLOW)
    with limit(len(os.listdir("/dev/fd")) + 60):  # two or three lanes
        given = soft_limit()
        with lanes(8, target=str(target)) as harness:
            assert soft_limit() >= given + 8 * descriptors.PER_LANE - 60
            with lanes(1, target=str(target)):
                pass
            assert soft_limit() > given
            (outcome,) = harness.run([1])
            assert outcome.body == str(given).encode()
        assert soft_limit() == given


def test_lanes_need_no_more_files_than_is_said() -> None:
    with lanes(1):
        one = len(os.listdir("/dev/fd"))
        with lanes(5):
            assert len(os.listdir("/dev/fd")) - one <= 5 * descriptors.PER_LANE + 8


def test_lanes_that_cannot_have_their_files_are_refused_with_the_number_that_can(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="processes can have theirs") as refused:
        descriptors.check(1 << 29)
    assert "--workers" in (refused.value.hint or "")
    command = [sys.executable, "-m", "pgflow_mp", "run", "simple", "--input", "[]", "--workers", "100"]
    ran = subprocess.run(
        ["bash", "-c", 'ulimit -n 400; exec "$@"', "bash", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PGFLOW_DATA_DIR": str(tmp_path / "data")},
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "100 processes need 1664 open files, but the hard limit is 400" in ran.stderr
    assert "Use --workers " in ran.stderr
    assert not (tmp_path / "data").exists()  # nothing was begun
