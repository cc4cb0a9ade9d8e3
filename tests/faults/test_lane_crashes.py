"""Handlers that end or damage their process: each case has one defined outcome, and the lane comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane_harness import Harness, eventually, gone, kinds, lanes, text

from pgflow_mp.executors.events import Cause


@pytest.fixture(scope="module")
def shared() -> Iterator[Harness]:
    with lanes(1) as harness:
        yield harness


@pytest.fixture
def one(shared: Harness) -> Harness:
    shared.all_ready()
    shared.deaths.clear()
    return shared


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (["segfault", None], "died from signal 11 (SIGSEGV)"),
        (["abort", None], "died from signal 6 (SIGABRT)"),
        (["overflow", 1], "died from signal 11 (SIGSEGV)"),
        (["kill_self", 9], "died from signal 9 (SIGKILL), not sent by this worker"),
        (["os_exit", 3], "ended with exit code 3"),
        (["os_exit", 0], "ended with exit code 0"),
        (["os_exit", 255], "ended with exit code 255"),
    ],
)
def test_an_item_that_ends_its_process_is_charged_alone(one: Harness, order: list[object], says: str) -> None:
    outcomes = one.run([["echo", "before"], order, ["echo", "after"], ["echo", "later"]])
    assert kinds(outcomes) == [0, 1, 3, 3]
    assert text(outcomes[0]) == '"before"'
    assert f'Crashed: step "act" task 1: its process {says}' in text(outcomes[1])
    assert one.deaths[0].cause.is_crash
    assert one.deaths[0].verdict is outcomes[1]
    assert kinds(one.run([["echo", 1]])) == [0]


def test_a_segfault_comes_with_the_trace_of_the_handler_and_nothing_of_ours(one: Harness) -> None:
    (outcome,) = one.run([["segfault", None]])
    assert "in string_at" in text(outcome)
    assert "lane_flows.py" in text(outcome)
    assert "child.py" not in text(outcome)


@pytest.mark.parametrize(
    ("order", "says"), [(["sys_exit", 3], "SystemExit: 3"), (["interrupt", None], "KeyboardInterrupt")]
)
def test_leaving_by_exception_fails_the_item_and_keeps_the_process(
    one: Harness, order: list[object], says: str
) -> None:
    outcomes = one.run([["pid", None], order, ["pid", None]])
    assert kinds(outcomes) == [0, 1, 0]
    assert says in text(outcomes[1])
    assert outcomes[0].body == outcomes[2].body


def test_a_forked_copy_that_returns_from_the_handler_ends_there(one: Harness) -> None:
    outcomes = one.run([["fork_and_return", None], ["echo", 1]])
    assert [text(outcome) for outcome in outcomes] == ['"the lane came back"', "1"]


def test_closing_the_standard_files_harms_nothing(one: Harness) -> None:
    outcomes = one.run([["close_standard_files", None], ["echo", 1]])
    assert kinds(outcomes) == [0, 0]
    assert kinds(one.run([["segfault", None]])) == [1]  # for the tests that follow: a new process


def test_closing_every_file_loses_no_finished_item(one: Harness) -> None:
    outcomes = one.run([["echo", 1], ["close_everything", None], ["echo", 2]])
    assert kinds(outcomes) == [0, 0, 0]
    one.until(lambda: one.deaths)
    assert one.deaths[0].verdict is None
    assert kinds(one.run([["echo", 1]])) == [0]


def test_each_item_starts_in_the_directory_of_the_worker(one: Harness, tmp_path: Path) -> None:
    outcomes = one.run([["change_directory", str(tmp_path)], ["getcwd", None]])
    assert text(outcomes[1]) == f'"{os.getcwd()}"'


def test_a_thread_that_a_handler_leaves_behind_does_not_keep_the_lane_from_stopping() -> None:
    with lanes(1) as harness:
        pid = harness.pool.lanes()[0].pid
        assert kinds(harness.run([["start_a_thread", None], ["echo", 1]])) == [0, 0]
        started = time.monotonic()
        assert harness.pool.stop(5.0)
        assert time.monotonic() - started < 2.5
        assert gone(pid)


def test_a_lane_takes_what_its_handlers_started_with_it(one: Harness) -> None:
    sleeper = int(text(one.run([["fork_a_sleeper", 60]])[0]))
    assert not gone(sleeper)
    one.run([["os_exit", 1]])
    assert eventually(lambda: gone(sleeper))


def test_the_death_of_an_idle_lane_is_noticed_and_mended(one: Harness) -> None:
    assert kinds(one.run([["echo", 1]])) == [0]
    os.kill(one.pool.lanes()[0].pid, signal.SIGKILL)
    one.until(lambda: one.deaths)
    assert (one.deaths[0].exit, one.deaths[0].verdict) == ("signal 9 (SIGKILL)", None)
    assert kinds(one.run([["echo", 1]])) == [0]


def test_items_of_the_waiting_chunk_are_handed_back(one: Harness) -> None:
    first = one.submit([["sleep", 0.3], ["os_exit", 1]])
    second = one.submit([["echo", 1], ["echo", 2]])
    one.until(lambda: {first, second} <= one.done)
    assert kinds(one.of(first)) == [0, 1]
    assert kinds(one.of(second)) == [3, 3]


def test_the_death_of_the_forkserver_charges_nobody() -> None:
    with lanes(2) as harness:
        seqs = [harness.submit([["echo", 1], ["sleep", 30]], lane=lane) for lane in (0, 1)]
        harness.until(lambda: all(harness.outcomes[seq] for seq in seqs))
        server = harness.pool.server_pid
        assert server is not None
        os.kill(server, signal.SIGKILL)
        harness.until(lambda: set(seqs) <= harness.done)
        assert [kinds(harness.of(seq)) for seq in seqs] == [[0, 3], [0, 3]]
        assert {death.cause for death in harness.deaths} == {Cause.LOST}
        assert kinds(harness.run([["echo", 1]], lane=1)) == [0]


def test_of_a_thousand_items_only_the_one_that_kills_its_process_is_charged() -> None:
    with lanes(4) as harness:
        todo = [["echo", i] if i != 555 else ["kill_self", 9] for i in range(1000)]
        left, sent, charged, completed = set(range(1000)), {}, 0, set()
        waiting = list(range(1000))
        while left:
            for lane, _ in harness.pool.rooms():
                batch, waiting = waiting[:20], waiting[20:]
                if batch:
                    sent[harness.submit([todo[i] for i in batch], lane=lane)] = batch
            harness.tick()
            for seq in [seq for seq in sent if seq in harness.done]:
                for index, outcome in zip(sent.pop(seq), harness.of(seq), strict=True):
                    if outcome.kind == 3:
                        waiting.append(index)
                        continue
                    left.discard(index)
                    charged += outcome.kind == 1
                    completed |= {index} if outcome.kind == 0 else set()
        assert (len(completed), charged) == (999, 1)
        harness.all_ready()


def test_a_forkserver_that_was_stopped_goes_on_and_lanes_are_replaced() -> None:
    with lanes(1) as harness:
        server = harness.pool.server_pid
        assert server is not None
        os.kill(server, signal.SIGSTOP)
        outcomes = harness.run([["kill_self", 9], ["echo", 1]])
        assert kinds(outcomes) == [1, 3]
        assert kinds(harness.run([["echo", 2]])) == [0]
