"""Signals that a process manager or a terminal sends to every process at once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
from lane_harness import eventually as soon
from lane_harness import gone, kinds, lanes, text
from worker_harness import Tasks, eventually, output, process, serve, start

from pgflow_mp.testing import audit_run


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, parents first."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def whole_group(pid: int, number: signal.Signals) -> None:
    """As ``timeout`` and some shells do: the process group of the parent."""
    os.killpg(pid, number)


def everybody(pid: int, number: signal.Signals) -> None:
    """As systemd does by default: every process of the service."""
    for member in family(pid):
        member.send_signal(number)


def children_first(pid: int, number: signal.Signals) -> None:
    """The parent hears of it last."""
    for member in reversed(family(pid)):
        member.send_signal(number)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "send"),
    [
        (signal.SIGTERM, whole_group),
        pytest.param(signal.SIGTERM, children_first, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, everybody, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, whole_group, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, everybody, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, children_first, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_lets_what_runs_finish_and_charges_nobody(
    dsn: str, log: Path, send: Callable[[int, signal.Signals], None], number: signal.Signals
) -> None:
    run_id = start(dsn, "naps", [0.8] * 8)
    running = process(dsn, "naps", run_id, in_new_group=True)
    eventually(lambda: len(log.read_text().split("start")) > 2)
    send(running.pid, number)
    told, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert json.loads(told.splitlines()[-1])["ending"] == "stop requested"
    words = [line.split()[0] for line in log.read_text().splitlines()]
    assert words.count("start") == words.count("end") >= 2
    tasks = Tasks(dsn, run_id)
    assert tasks.statuses("nap") == {"completed": words.count("end"), "queued": 8 - words.count("end")}
    assert {row[3] for row in tasks.rows if row[2] == "queued"} == {0}
    serve(dsn, "naps", run_id)
    assert output(dsn, run_id) == {"count": 8}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []


@pytest.mark.slow
def test_an_item_that_made_its_process_end_by_sigterm_is_not_charged_for_the_worker_s_stop(
    dsn: str, log: Path
) -> None:
    run_id = start(dsn, "mischief", [["heed_sigterm", 1.0]] * 4)
    running = process(dsn, "mischief", run_id, in_new_group=True)
    eventually(lambda: log.read_text().count("heeds") == 2)
    children_first(running.pid, signal.SIGTERM)
    running.communicate(timeout=20)
    tasks = Tasks(dsn, run_id)
    assert tasks.statuses("act") == {"queued": 4}
    assert {(row[3], row[4]) for row in tasks.rows} == {(0, None)}
    serve(dsn, "mischief", run_id)
    assert {row[3] for row in Tasks(dsn, run_id).rows} == {1}


def test_a_lane_that_ends_by_a_sigterm_of_its_own_making_is_charged() -> None:
    with lanes(1) as harness:
        (outcome,) = harness.run([["end_by_sigterm", None]])
        assert outcome.kind == 1
        says = "died from signal 15 (SIGTERM), sent by something other than this worker"
        assert says in text(outcome)


def test_lanes_and_forkserver_pass_over_sigterm() -> None:
    with lanes(2) as harness:
        seqs = [harness.submit([["sleep", 0.5], ["echo", 1]], lane=lane) for lane in (0, 1)]
        harness.until(lambda: len(list(harness.pool.running())) == 2)
        server = harness.pool.server_pid
        assert server is not None
        for pid in (server, *(lane.pid for lane in harness.pool.lanes())):
            os.kill(pid, signal.SIGTERM)
        harness.until(lambda: set(seqs) <= harness.done)
        assert [kinds(harness.of(seq)) for seq in seqs] == [[0, 0], [0, 0]]
        assert harness.deaths == []


@pytest.mark.parametrize("action", ["run_a_sleeper", "fork_a_sleeping_copy"])
def test_what_handlers_start_ends_by_sigterm_as_usual(action: str) -> None:
    with lanes(1) as harness:
        seq = harness.submit([[action, 60], ["echo", 1]])
        lane = psutil.Process(harness.pool.lanes()[0].pid)
        assert soon(lane.children)
        time.sleep(0.2)
        (child,) = lane.children()
        child.terminate()
        harness.until(lambda: seq in harness.done, 5.0)
        assert text(harness.of(seq)[0]) == "-15"
        assert gone(child.pid)


def test_a_pool_inside_of_a_handler_works_and_ends() -> None:
    with lanes(1) as harness:
        outcomes = harness.run([["use_a_pool", 4], ["echo", 1]], timeout=20.0)
        assert [text(outcome) for outcome in outcomes] == ["[0,1,4,9]", "1"]
        assert not psutil.Process(harness.pool.lanes()[0].pid).children()


@pytest.mark.parametrize(
    "action", [pytest.param("spin", marks=pytest.mark.slow), "spin_in_c", "block_all_signals"]
)
def test_a_lane_over_its_time_still_ends_at_once_and_tells_where_it_was(action: str) -> None:
    with lanes(1) as harness:
        (outcome,) = harness.run([[action, None]], timeout=0.3)
        assert outcome.kind == 1
        assert "exceeded its timeout of 0.3 s" in text(outcome)
        assert outcome.seconds < 1.3
        assert (f"in {action}" in text(outcome)) == (action != "block_all_signals")
        assert kinds(harness.run([["echo", 1]])) == [0]
