"""The lane pool: starting, feeding, early outcomes, recycling, stopping. Real processes throughout."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from multiprocessing.context import SpawnContext
from pathlib import Path

import msgspec
import psutil
import pytest
from lane_harness import FLOWS, chunk_of, eventually, gone, kinds, lanes, text

from pgflow_mp.errors import PgflowError
from pgflow_mp.executors.events import Cause, LaneEvent
from pgflow_mp.executors.lanes.hooks import Hooks
from pgflow_mp.executors.lanes.lane import LaneProcess
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.messages import Hello, Setup
from pgflow_mp.executors.verdicts import KillReason


def test_starting_tells_what_the_target_holds() -> None:
    with lanes(2) as harness:
        flows = {flow.slug: flow for flow in harness.pool.flows}
        assert set(flows) == {"misbehave", "tiny", "batched"}
        assert [step.batch for step in flows["batched"].steps] == [4, 4]
        assert [step.slug for step in flows["misbehave"].steps] == ["act", "wait_for_shutdown", "describe"]
        assert json.loads(flows["tiny"].shape)["steps"][0]["slug"] == "noop"
        assert sorted(ready.lane for ready in harness.ready) == [0, 1]
        assert sorted(ready.generation for ready in harness.ready) == [1, 2]


def test_a_target_can_be_limited_to_some_of_its_flows() -> None:
    with lanes(1, setup={"flows": ["tiny"]}) as harness:
        assert [flow.slug for flow in harness.pool.flows] == ["tiny"]
        (outcome,) = harness.run([["echo", 1]])
        assert text(outcome) == 'Step "act" does not exist in flow "misbehave"'


def test_children_import_neither_the_database_driver_nor_what_the_parent_has() -> None:
    with lanes(1) as harness:
        outcomes = harness.run([["modules", name] for name in ("psycopg", "pytest", "psutil")])
        assert [text(outcome) for outcome in outcomes] == ["false"] * 3


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_both_start_methods_work(method: str) -> None:
    with lanes(1, start_method=method) as harness:
        outcomes = harness.run([["echo", [1]], ["os_exit", 4]])
        assert kinds(outcomes) == [0, 1]
        assert "exit code 4" in text(outcomes[1])
        assert kinds(harness.run([["echo", 1]])) == [0]


def test_a_target_that_is_preloaded_is_imported_once_for_all_lanes(tmp_path: Path) -> None:
    target = write_flow(tmp_path, "print('imported', file=open(__file__ + '.log', 'a'))")
    with lanes(4, target=target, preload=["flow"]) as harness:
        harness.run([["echo", 1]])
    assert Path(target + ".log").read_text().count("imported") == 1


@pytest.mark.parametrize(
    "body",
    [
        "threading.Thread(target=time.sleep, args=(300,), daemon=True).start()",
        pytest.param("kept = open(__file__)", marks=pytest.mark.slow),
    ],
)
def test_a_target_that_cannot_be_forked_safely_is_imported_by_every_lane(
    tmp_path: Path, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = write_flow(tmp_path, f"print('imported', file=open(__file__ + '.log', 'a'))\n{body}")
    with lanes(2, target=target, preload=["flow"]) as harness:
        harness.run([["echo", 1]])
    assert Path(target + ".log").read_text().count("imported") == 3  # once in vain
    assert "nothing is preloaded, every process imports for itself: importing it " in caplog.text


@pytest.mark.slow
def test_the_replacement_of_a_preloaded_lane_does_not_wait_for_a_slow_import_again(tmp_path: Path) -> None:
    target = write_flow(tmp_path, "time.sleep(1.5)")
    with lanes(2, target=target, preload=["flow"]) as harness:
        harness.run([["os_exit", 1]])
        harness.until(lambda: len(harness.ready) == 3)
        assert harness.ready[-1].seconds < 1.0


def test_an_import_error_is_reported_once_and_clearly(tmp_path: Path) -> None:
    target = write_flow(tmp_path, "import no_such_module_anywhere")
    assert_refused(target, "no_such_module_anywhere", "bad_flow.py")


def test_a_module_that_kills_its_process_at_import_is_reported(tmp_path: Path) -> None:
    target = write_flow(tmp_path, "os._exit(7)")
    assert_refused(target, "exit code 7", "bad_flow.py")


def test_an_import_that_never_ends_is_given_up(tmp_path: Path) -> None:
    target = write_flow(tmp_path, "while True: pass")
    assert_refused(target, "took longer than 1 s", "bad_flow.py", "--load-timeout", start_timeout=1.0)


def test_a_lane_holds_two_chunks_and_refuses_a_third() -> None:
    with lanes(1) as harness:
        assert harness.pool.rooms() == [(0, 2)]
        harness.submit([["sleep", 0.3]])
        harness.submit([["echo", 1]])
        assert harness.pool.room(0) == 0
        assert harness.pool.rooms() == []
        assert not harness.pool.submit(0, chunk_of(99, [["echo", 1]]))
        assert not harness.pool.submit(5, chunk_of(98, [["echo", 1]]))
        harness.until(lambda: len(harness.done) == 2)
        assert harness.pool.room(0) == 2


def test_a_finished_item_is_reported_while_its_chunk_still_runs() -> None:
    with lanes(1) as harness:
        started = time.monotonic()
        seq = harness.submit([["echo", 1], ["echo", 2], ["sleep", 1.0], ["echo", 3]])
        harness.until(lambda: len(harness.outcomes[seq]) == 2)
        assert time.monotonic() - started < 0.9
        assert seq not in harness.done
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [0] * 4


def test_a_flood_of_output_disturbs_nothing() -> None:
    with lanes(1) as harness:
        assert kinds(harness.run([["flood", 5], ["echo", 1]])) == [0, 0]


def test_large_outcomes_come_through_whole() -> None:
    with lanes(1) as harness:
        outcomes = harness.run([["big", 5_000_000], ["echo", 1], ["big", 100_000]])
        assert [len(outcome.body) for outcome in outcomes] == [5_000_002, 1, 100_002]


def test_a_kill_on_order_hands_the_item_back() -> None:
    with lanes(1) as harness:
        seq = harness.submit([["echo", 1], ["spin", None], ["echo", 2]])
        harness.until(lambda: harness.outcomes[seq])
        assert harness.pool.kill(0, KillReason(Cause.CANCELLED))
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [0, 3, 3]
        assert harness.deaths[0].cause is Cause.CANCELLED


def test_a_kill_meant_for_an_item_that_has_ended_does_nothing() -> None:
    with lanes(1) as harness:
        harness.submit([["sleep", 0.4]])
        harness.until(lambda: next(harness.pool.running(), None))
        assert not harness.pool.kill(0, KillReason(Cause.TIMEOUT, "late", (1, 7)))
        assert not harness.pool.kill(0, KillReason(Cause.TIMEOUT, "late", (1, 0)), generation=9)


def test_the_rest_of_a_chunk_can_be_called_back() -> None:
    with lanes(1) as harness:
        seq = harness.submit([["sleep", 0.3], ["echo", 1]])
        harness.until(lambda: next(harness.pool.running(), None))
        harness.pool.skip_rest()
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [0, 3]
        assert kinds(harness.run([["echo", 1]])) == [0]


def test_recycling_after_items_loses_nothing_and_never_leaves_the_lane_empty() -> None:
    with lanes(1, recycle_items=30) as harness:
        pids: set[str] = set()
        until = time.monotonic() + 20.0  # a process starts as slowly as the machine is busy
        while len(pids) < 3:
            assert time.monotonic() < until
            pids |= {text(outcome) for outcome in harness.run([["pid", None]] * 5)}
            assert harness.pool.lanes()
        assert not harness.deaths


def test_recycling_after_time_replaces_an_idle_lane() -> None:
    with lanes(1, recycle_seconds=0.3) as harness:
        harness.until(lambda: len(harness.ready) >= 3)
        assert not harness.deaths


def test_lanes_can_be_added_and_taken_away_while_they_work() -> None:
    with lanes(1) as harness:
        harness.pool.resize(3)
        harness.all_ready()
        seqs = [harness.submit([["sleep", 0.2]], lane=lane) for lane in range(3)]
        pids = [status.pid for status in harness.pool.lanes()]
        harness.pool.resize(1)
        harness.until(lambda: set(seqs) <= harness.done)
        assert [kinds(harness.of(seq)) for seq in seqs] == [[0]] * 3
        harness.until(lambda: gone(pids[1]) and gone(pids[2]))
        assert len(harness.pool.lanes()) == 1


def test_stopping_finishes_what_runs_hands_back_the_rest_and_tells_handlers() -> None:
    with lanes(2) as harness:
        first = harness.submit([["sleep", 0.3], ["echo", 1]])
        second = harness.submit([["echo", 1]])
        third = harness.submit([5.0, 5.0], lane=1, step="wait_for_shutdown")
        harness.until(lambda: len(list(harness.pool.running())) == 2)
        started = time.monotonic()
        assert harness.pool.stop(5.0)
        assert time.monotonic() - started < 1.5
        harness.collect()
        assert [kinds(harness.of(seq)) for seq in (first, second, third)] == [[0, 3], [3], [0, 3]]
        assert text(harness.of(third)[0]) == "true"


def test_stopping_kills_what_outlasts_the_grace_and_hands_it_back() -> None:
    with lanes(1) as harness:
        seq = harness.submit([["spin", None], ["echo", 1]])
        harness.until(lambda: next(harness.pool.running(), None))
        started = time.monotonic()
        assert not harness.pool.stop(0.3)
        assert time.monotonic() - started < 1.3
        harness.collect()
        assert kinds(harness.of(seq)) == [3, 3]


@pytest.mark.parametrize("how", ["stop", "abort", "stop busy", "abort starting"])
def test_nothing_is_left_of_a_pool_that_has_ended(how: str) -> None:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # one per process, for as long as it lives
    me = psutil.Process()
    children = {child.pid for child in me.children(recursive=True)}
    files, threads = os.listdir("/proc/self/fd"), set(threading.enumerate())
    semaphores = mapped_semaphores()
    events: queue.SimpleQueue[LaneEvent] = queue.SimpleQueue()
    pool = LanePool(Setup(target=FLOWS), 3, events.put)
    pool.start()
    if "starting" not in how:
        assert eventually(lambda: len(pool.lanes()) == 3)
    if "busy" in how:
        for lane in range(3):
            pool.submit(lane, chunk_of(lane, [["ignore_sigterm", None]]))
    if "stop" in how:
        pool.stop(0.1)
    else:
        pool.abort()
    assert {child.pid for child in me.children(recursive=True)} - children == set()
    assert set(threading.enumerate()) - threads == set()
    assert len(os.listdir("/proc/self/fd")) == len(files)
    assert mapped_semaphores() == semaphores


def test_a_lane_that_is_closed_before_it_has_said_hello_complains_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said: list[Hello] = []
    hooks = Hooks(print, lambda process, hello: said.append(hello), print, print, print)
    process = LaneProcess(0, 1, hooks, lambda: 0)
    process.launch(SpawnContext(), msgspec.msgpack.encode(Setup(target=FLOWS)))
    process.close(10.0)
    assert len(said) == 1
    assert caplog.records == []  # concurrent.futures logs what goes wrong in a callback


def mapped_semaphores() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/sem." in line}


def write_flow(directory: Path, body: str) -> str:
    """A copy of the misbehaving flow with more module-level code."""
    path = directory / "bad_flow.py"
    path.write_text(Path(FLOWS).read_text() + "\n" + body + "\n")
    return str(path)


def assert_refused(target: str, *says: str, start_timeout: float = 20.0) -> None:
    events: queue.SimpleQueue[LaneEvent] = queue.SimpleQueue()
    pool = LanePool(Setup(target=target), 3, events.put, start_timeout=start_timeout)
    with pytest.raises(PgflowError) as caught:
        pool.start()
    for words in says:
        assert words in f"{caught.value} {caught.value.hint}"
