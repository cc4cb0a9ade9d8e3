"""What is left in the file system when everything is killed at the same moment: nothing."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from lane_harness import FLOWS, eventually, gone, kinds, lanes

from pgflow_mp.executors.lanes import processes
from pgflow_mp.executors.lanes.preloaded import Preload

PARENT = """
import queue, sys, time
sys.path.insert(0, {tests!r})
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.messages import Setup

pool = LanePool(Setup(target={target!r}), 2, queue.SimpleQueue().put)
pool.start()
while len(pool.lanes()) < 2:
    time.sleep(0.01)
print(pool.server_pid, flush=True)
time.sleep(60)
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def semaphores(pid: int) -> list[str]:
    """Files of the semaphores that a process has open."""
    found = re.findall(r"/dev/shm/sem\.\S+", Path(f"/proc/{pid}/maps").read_text())
    return sorted(set(found))


@pytest.mark.parametrize("length", [pytest.param(10, marks=pytest.mark.slow), 150])
def test_nothing_stays_when_parent_forkserver_and_resource_tracker_are_killed_at_once(
    tmp_path: Path, length: int
) -> None:
    place = tmp_path / ("t" * length)  # longer than the path of a socket may be
    place.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(FLOWS).parent), target=FLOWS))
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)}
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip()
        family = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]
        assert len(family) >= 5  # the resource tracker, the forkserver, two lanes
        used = semaphores(parent.pid)
        for process in family:
            process.send_signal(signal.SIGSTOP)
        for process in family:
            process.kill()
    assert eventually(lambda: all(gone(process.pid) for process in family))
    assert list(place.iterdir()) == []
    assert used
    assert [path for path in used if Path(path).exists()] == []


def test_lanes_are_replaced_by_a_server_whose_socket_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with lanes(1) as harness:
        assert list(tmp_path.iterdir()) == []
        assert kinds(harness.run([["os_exit", 1]])) == [1]
        assert kinds(harness.run([["echo", 1]])) == [0]
        server = harness.pool.server_pid
        assert server is not None
        os.kill(server, signal.SIGKILL)  # the next one gets a socket of its own
        harness.until(lambda: len(harness.deaths) == 2)
        assert kinds(harness.run([["echo", 1]])) == [0]
        assert list(tmp_path.iterdir()) == []


def test_a_process_made_while_a_server_starts_does_not_inherit_the_directory_of_its_socket() -> None:
    """In such a lane multiprocessing had no place for its own sockets: Process().start() raised."""
    context = processes.lane_context(Preload("", [], [], None, 1, [], []), start_method="forkserver")
    assert isinstance(context, processes.LaneContext)
    made: list[Any] = []
    maker = threading.Thread(target=lambda: made.append(context.Process(target=print)))
    with processes._passing_directory() as directory:
        maker.start()
        maker.join(0.2)
    maker.join()
    context.server.stop()
    assert made[0]._config.get("tempdir") != directory


@pytest.mark.slow
def test_pools_that_start_at_the_same_moment_leave_the_settings_of_multiprocessing_alone() -> None:
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = dict(config)

    together = threading.Barrier(6)

    def start_a_few(_: int) -> list[int]:
        found = []
        for _ in range(3):
            together.wait(60)
            with lanes(1) as harness:
                found += kinds(harness.run([["echo", 1]]))
        return found

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(start_a_few, range(6))) == [[0, 0, 0]] * 6
    assert config == before
