"""Where the code of lanes is, asked of real processes, which it does not disturb."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lane_harness import Harness, kinds, lanes, range_of

from pgflow_mp.executors.messages import Kind
from pgflow_mp.executors.stacks import LaneStack, stacks_of_threads


def stack_in(harness: Harness, lane: int = 0, wait: float = 2.0) -> LaneStack:
    """Of the lane's process, once it has one."""
    until = time.monotonic() + 10
    while not (found := [each for each in harness.pool.stacks(wait) if each.lane == lane]):
        assert time.monotonic() < until, "the lane has no process"
        harness.tick()
    return found[0]


def seen(harness: Harness, condition: Callable[[LaneStack], Any], lane: int = 0) -> LaneStack:
    """The first stack of a lane of which that is true."""
    until = time.monotonic() + 10
    while not condition(stack := stack_in(harness, lane)):
        assert time.monotonic() < until, stack
        harness.tick()
    return stack


def functions(stack: LaneStack) -> list[str]:
    return [frame.function for frame in stack.frames]


def in_handler(stack: LaneStack) -> bool:
    """Not on the way into it."""
    return "act" in functions(stack)


@pytest.mark.parametrize("make", [None, range_of], ids=["tasks", "ranges"])
def test_each_lane_shows_the_code_that_it_runs_and_the_item(make: Any) -> None:
    options = {} if make is None else {"make": make}
    with lanes(3, **options) as harness:
        harness.submit([["echo", 1], ["sleep", 60]], lane=0)
        harness.submit([["spin_in_c", None]], lane=1)
        seen(harness, lambda stack: stack.index == 1)
        asleep, in_c, idle = harness.pool.stacks(2.0)
        assert functions(asleep) == ["act"]
        assert asleep.frames[0].source == "return ACTIONS[name](argument)"
        assert asleep.frames[0].file.endswith("lane_flows.py")
        assert (asleep.run, asleep.step, asleep.index) == ("run", "act", 1)
        assert asleep.seconds is not None
        assert 0 <= asleep.seconds < 60
        assert functions(in_c) == ["spin_in_c", "act"]
        assert in_c.frames[0].source == "sum(range(10**12))"
        assert (idle.frames, idle.note, idle.run) == ([], "idle", None)
        assert asleep.pid != in_c.pid


def test_waits_of_all_kinds_last_as_long_as_ever_while_they_are_asked() -> None:
    with lanes() as harness:
        seq = harness.submit([["wait_in_many_ways", None]])
        stacks = 0
        while seq not in harness.done:
            stacks += bool(stack_in(harness).frames)
            harness.tick()
        outcome = harness.of(seq)[0]
        assert kinds([outcome]) == [Kind.COMPLETED]
        assert all(0.49 <= seconds < 1.5 for seconds in json.loads(outcome.body))
        assert stacks > 20
        assert harness.deaths == []


def test_handlers_that_use_faulthandler_for_themselves_get_what_they_want_and_are_shown(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trace"
    with lanes() as harness:
        seq = harness.submit([["use_faulthandler", str(path)]])
        stack = seen(harness, in_handler)
        assert functions(stack)[-2:] == ["use_faulthandler", "act"]
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [Kind.COMPLETED]
        assert "in use_faulthandler" in path.read_text()
        assert "in act" in path.read_text()
        harness.submit([["sleep", 60]])
        assert functions(seen(harness, in_handler)) == ["act"]


def test_a_handler_that_has_the_signal_for_itself_is_said_to_and_the_next_one_is_shown() -> None:
    with lanes() as harness:
        seq = harness.submit([["take_sigurg", 0.7]])
        harness.until(lambda: any(item.elapsed > 0.05 for item in harness.pool.running()))
        assert "SIGURG" in stack_in(harness, wait=0.1).note
        harness.until(lambda: seq in harness.done)
        seq = harness.submit([["block_sigurg", 0.7]])
        harness.until(lambda: any(item.elapsed > 0.05 for item in harness.pool.running()))
        assert "SIGURG" in stack_in(harness, wait=0.1).note
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [Kind.COMPLETED]
        harness.submit([["sleep", 60]])
        assert functions(seen(harness, in_handler)) == ["act"]
        assert harness.deaths == []


def test_nothing_is_written_into_files_of_a_handler_that_has_closed_ours(tmp_path: Path) -> None:
    with lanes() as harness:
        harness.submit([["close_reopen_and_return", [str(tmp_path), 10]], ["sleep", 60]])
        harness.until(lambda: len(list(tmp_path.iterdir())) == 61)
        stack = stack_in(harness, wait=0.1)
        assert stack.note
        written = {path.read_bytes() for path in tmp_path.iterdir()}
        assert written <= {b"mine", b""}


def test_deep_stacks_are_cut_at_their_end() -> None:
    with lanes() as harness:
        harness.submit([["dive", 500]])
        stack = seen(harness, lambda stack: len(stack.frames) > 50)
        assert set(functions(stack)) == {"dive"}
        assert len(stack.frames) <= 100


def test_a_lane_that_dies_meanwhile_is_said_to_be_dead_or_has_another_process() -> None:
    with lanes(2) as harness:
        harness.submit([["sleep", 60]], lane=0)
        harness.submit([["sleep", 60]], lane=1)
        first = seen(harness, in_handler)
        seen(harness, in_handler, lane=1)
        stopped = threading.Event()
        found: list[LaneStack] = []

        def ask() -> None:
            while not stopped.is_set():
                found.extend(harness.pool.stacks(0.3))

        asking = threading.Thread(target=ask)
        asking.start()
        os.kill(first.pid, signal.SIGKILL)
        harness.until(lambda: len(harness.deaths) == 1 and len(harness.pool.lanes()) == 2)
        time.sleep(0.1)
        stopped.set()
        asking.join()
        assert {each.pid for each in found if each.lane == 0} > {first.pid}
        assert all(functions(each) == ["act"] for each in found if each.lane == 1)
        assert len(harness.deaths) == 1


def test_a_stopped_process_gives_no_answer_in_time() -> None:
    with lanes() as harness:
        harness.submit([["sleep", 60]])
        pid = seen(harness, in_handler).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert "stopped" in stack_in(harness, wait=0.2).note
            assert time.monotonic() - began < 1
        finally:
            os.kill(pid, signal.SIGCONT)
        assert functions(seen(harness, in_handler)) == ["act"]


def test_threads_of_this_process_are_shown_with_their_names() -> None:
    released = threading.Event()
    thread = threading.Thread(target=released.wait, name="a thread that waits")
    thread.start()
    try:
        stack = next(each for each in stacks_of_threads() if each.name == thread.name)
        assert [frame.function for frame in stack.frames][-1] == "Event.wait"
    finally:
        released.set()
        thread.join()
