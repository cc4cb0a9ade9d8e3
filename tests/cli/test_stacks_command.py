"""stacks and top, with a worker that works."""

from __future__ import annotations

import io
import os
import re
import signal
from datetime import UTC, datetime

import pytest
from cli_harness import Cli, OnTerminal, assert_one_screen
from rich.console import Console
from worker_harness import eventually

from pgflow_mp import Client
from pgflow_mp.cli.top import _picture
from pgflow_mp.observe.worker_reports import LaneReport, WorkerInfo

CODE = """
import time
from pgflow_mp import Flow

flow = Flow("looked_at", timeout=100, storage="{storage}")


def dream(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@flow.map
def doze(seconds: float) -> float:
    if seconds < 0:
        return float(sum(range(10**10)))
    return dream(seconds)
"""


def working(cli: Cli, storage: str) -> str:
    """A worker with two items and three lanes; what ``stacks`` says once it has both."""
    (cli.cwd / "looking.py").write_text(CODE.format(storage=storage))
    cli.start("run", "looking.py", "--input", "[60, -1]", "--workers", "3", "--name", "looked-at")

    def both() -> str | None:
        out = cli("stacks").out
        return out if "doze[0]" in out and "doze[1]" in out else None

    out: str = eventually(both, 40)
    return out


@pytest.mark.parametrize("storage", ["ranges", pytest.param("tasks", marks=pytest.mark.slow)])
def test_a_worker_tells_where_its_code_is(cli: Cli, storage: str) -> None:
    out, file = working(cli, storage), re.escape(str(cli.cwd / "looking.py"))
    assert re.search(
        rf"lane \d  pid \d+  doze\[0\] for [\d.]+ s  run \S+ of looked_at\n"
        rf'    File "{file}", line 17, in doze\n      return dream\(seconds\)\n'
        rf'    File "{file}", line 9, in dream\n      time.sleep\(seconds\)\n',
        out,
    ), out
    assert re.search(r"doze\[1\] .*\n.* in doze\n      return float\(sum\(range\(10\*\*10\)\)\)\n", out), out
    assert re.search(r"lane \d  pid \d+  idle\n", out), out
    assert "thread " not in out
    [worker] = cli("stacks", "looked", "--json").json["workers"]
    lane = next(each for each in worker["lanes"] if each["index"] == 0)
    assert (worker["answered"], lane["step_slug"], lane["flow_slug"]) == (True, "doze", "looked_at")
    assert [frame["function"] for frame in lane["frames"]] == ["doze", "dream"]
    assert "MainThread" in {thread["name"] for thread in worker["threads"]}
    with Client(cli.dsn) as client:
        [asked] = client.stacks()
    assert {lane.index for lane in asked.lanes} == {0, 1, None}
    assert_one_screen(
        cli("stacks", "somebody"), 2, "There is no worker 'somebody' that is alive", "Alive are: looked-at."
    )


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_top_fits_every_screen_and_keeps_indexes_and_numbers(width: int) -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    lanes = [
        LaneReport(
            lane=number,
            state="running",
            pid=4_000_000 + number,
            run_id="5b0a5e5c-7bb1-4b1a-b4a4-1f4c2a3d1b3e",
            step_slug="a_step_whose_name_is_long_enough_to_be_cut_in_its_midst",
            index=1_000_000 + number,
            seconds=3661,
            cpu=15.25,
            rss=22_400_000,
        )
        for number in range(63)
    ]
    lanes.append(LaneReport(lane=63, state="idle", rss=1))
    workers = [
        WorkerInfo(
            name=f"a-host-with-a-long-name-{number}.example.org:4711",
            state="running",
            worker_ids=[],
            flows=[],
            queues=[],
            started_at=now,
            last_seen_at=now,
            stopped_at=None,
            lane_count=64,
            busy_lanes=63,
            lanes=lanes,
        )
        for number in range(2)
    ]
    file = io.StringIO()
    Console(file=file, width=width, height=24).print(_picture(workers, width, 24))
    lines = file.getvalue().splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= width for line in lines)
    end = r" 1:01:01  15.25  22.4 MB$" if width > 40 else r" 1:01:01"
    assert all(re.search(rf"\w\[10000\d\d\].*{end}", line) for line in lines[2:22]), lines[2]
    assert lines[-1] == "... and 108 more lanes"


@pytest.mark.slow
def test_top_tells_what_lanes_do(cli: Cli) -> None:
    assert cli("top").out.startswith("No worker is alive at ")
    assert cli("stacks").out.startswith("No worker is alive at ")
    assert cli("top", "--json").json == {"workers": []}
    working(cli, "ranges")
    shown = eventually(lambda: (text := cli("top", "--once").out) and "doze[0]" in text and text, 20)
    assert re.search(r"^1 worker, 2 of 3 lanes in use, [\d.]+ CPUs, ", shown), shown
    [worker] = cli("top", "--json").json["workers"]
    lane = next(each for each in worker["lanes"] if each["index"] == 0)
    assert re.search(rf"{lane['pid']}  doze\[0\] +{lane['run_id'][:8]} +[\d.]+ s ", shown), shown
    assert {each["index"] for each in worker["lanes"] if each["state"] == "running"} == {0, 1}
    terminal = OnTerminal(cli, "top", "--interval", "0.2")
    terminal.wait_for(r"doze\[0\](.|\n)*doze\[0\]")
    terminal.interrupt()
    assert terminal.finish().code == 0
    with_threads = cli("stacks", str(worker["pid"]), "--with-threads")
    assert (with_threads.code, "  thread MainThread\n" in with_threads.out) == (0, True)
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        silent = cli("stacks", "--answer-within", "0.5")
        assert (silent.code, "  no answer within 0.5 s: " in silent.out) == (1, True)
    finally:
        os.kill(worker["pid"], signal.SIGCONT)
