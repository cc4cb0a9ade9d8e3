"""Lanes end with their parent, however it dies and whatever they are doing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lane_harness import FLOWS, eventually, gone

PARENT = """
import json, os, queue, sys, time
sys.path.insert(0, {tests!r})
open({marker!r}, "a").write("main\\n")
from lane_harness import chunk_of
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.messages import Setup

events = queue.SimpleQueue()
pool = LanePool(Setup(target={target!r}), 2, events.put)
pool.start()
while len(pool.lanes()) < 2:
    time.sleep(0.01)
for lane in (0, 1):
    pool.submit(lane, chunk_of(lane, [["echo", 1], {order!r}]))
while len(list(pool.running())) < 2:
    time.sleep(0.01)
time.sleep(0.1)
print(json.dumps([status.pid for status in pool.lanes()] + [pool.server_pid]), flush=True)
while True:
    pool.poll()
    time.sleep(0.02)
    if {leave!r} and not list(pool.running()):
        break
pool.stop(1.0)
print("stopped", flush=True)
"""


@pytest.fixture
def parents() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for parent in started:
        parent.kill()
        parent.wait()
        for stream in (parent.stdout, parent.stderr):
            if stream is not None:
                stream.close()


def start(
    parents: list[subprocess.Popen[str]],
    directory: Path,
    order: list[object],
    *,
    target: str = FLOWS,
    leave: bool = False,
) -> tuple[subprocess.Popen[str], list[int]]:
    """A parent as its own script in its own group, as from a terminal; the pids of lanes and forkserver."""
    script = directory / "parent.py"
    marker = str(directory / "marker")
    tests = str(Path(FLOWS).parent)
    script.write_text(PARENT.format(tests=tests, target=target, order=order, marker=marker, leave=leave))
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        stderr=subprocess.PIPE,
    )
    parents.append(parent)
    assert parent.stdout is not None
    while (line := parent.stdout.readline()) == "imported\n":
        pass
    assert line, parent.communicate()[1]
    return parent, json.loads(line)


@pytest.mark.parametrize(
    "action", [pytest.param("spin", marks=pytest.mark.slow), "spin_in_c", "ignore_sigterm"]
)
def test_lanes_die_within_two_seconds_of_a_killed_parent(
    parents: list[subprocess.Popen[str]], tmp_path: Path, action: str
) -> None:
    parent, pids = start(parents, tmp_path, [action, None])
    assert len(pids) == 3
    killed = time.monotonic()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: all(gone(pid) for pid in pids), 2.0 - (time.monotonic() - killed))
    assert eventually(lambda: not list(tmp_path.glob("pymp-*")), 1.0)


def test_what_handlers_started_dies_with_a_killed_parent_too(
    parents: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    parent, pids = start(parents, tmp_path, ["run_a_sleeper", 100])
    sleepers = [child for pid in pids[:2] for child in psutil.Process(pid).children()]
    assert len(sleepers) == 2
    parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: all(gone(child.pid) for child in sleepers), 2.0)


@pytest.mark.slow
def test_threads_of_the_user_s_module_do_not_keep_the_forkserver_alive(
    parents: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    target = tmp_path / "threaded.py"
    more = "\nthreading.Thread(target=time.sleep, args=(300,)).start()\n"
    target.write_text(Path(FLOWS).read_text() + more)
    parent, pids = start(parents, tmp_path, ["spin", None], target=str(target))
    parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: all(gone(pid) for pid in pids), 2.0)


def test_an_import_that_never_ends_dies_with_the_parent(tmp_path: Path) -> None:
    target = tmp_path / "endless.py"
    target.write_text("import os\nopen(__file__ + '.pid', 'w').write(str(os.getpid()))\nwhile True: pass\n")
    script = tmp_path / "parent.py"
    script.write_text(
        PARENT.format(
            tests=str(Path(FLOWS).parent), target=str(target), order=[], marker="/dev/null", leave=False
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        note = Path(f"{target}.pid")
        assert eventually(lambda: note.exists() and note.read_text(), 10.0)
    finally:
        parent.kill()
        parent.wait()
    assert eventually(lambda: gone(int(note.read_text())), 2.0)


def test_ctrl_c_reaches_the_parent_alone(parents: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    parent, pids = start(parents, tmp_path, ["sleep", 1.0])
    group = os.getpgid(parent.pid)
    assert all(os.getpgid(pid) != group for pid in pids)
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert not any(gone(pid) for pid in pids)


def test_the_parent_s_script_is_not_run_again_in_its_children(
    parents: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    target = tmp_path / "printing.py"
    target.write_text(Path(FLOWS).read_text() + "\nprint('imported')\n")
    parent, pids = start(parents, tmp_path, ["sleep", 0.3], target=str(target), leave=True)
    out, err = parent.communicate(timeout=10)
    assert (out.split(), parent.returncode) == (["stopped"], 0)
    assert err == ""
    assert (tmp_path / "marker").read_text() == "main\n"
    assert eventually(lambda: all(gone(pid) for pid in pids))
