"""Time and memory limits of items, with real processes that do not want to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane_harness import Harness, eventually, gone, kinds, lanes, text

from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes.watchdog import Watchdog

MIB = 2**20


@pytest.fixture(scope="module")
def shared() -> Iterator[Harness]:
    with lanes(2) as harness:
        yield harness


@pytest.fixture
def two(shared: Harness) -> Harness:
    shared.all_ready()
    shared.deaths.clear()
    return shared


@pytest.mark.parametrize("action", ["spin", "spin_in_c", "ignore_sigterm"])
def test_an_item_over_its_timeout_is_ended_within_a_second_and_charged_alone(
    two: Harness, action: str
) -> None:
    started = time.monotonic()
    outcomes = two.run([["echo", 1], [action, None], ["echo", 2]], timeout=0.4)
    assert 0.4 <= time.monotonic() - started < 1.4
    assert kinds(outcomes) == [0, 1, 3]
    assert text(outcomes[1]).startswith(
        'TimeoutError: step "act" task 1 exceeded its timeout of 0.4 s and its process was terminated'
    )
    assert 0.4 <= outcomes[1].seconds < 1.4
    assert two.deaths[0].cause is Cause.TIMEOUT
    assert two.until(lambda: len(two.pool.lanes()) == 2) < 1.0


def test_the_error_of_a_timeout_shows_where_the_handler_was(two: Harness) -> None:
    (outcome,) = two.run([["spin", None]], timeout=0.2)
    assert "in spin\n" in text(outcome)


def test_a_stopped_process_is_caught_by_the_same_timeout(two: Harness) -> None:
    seq = two.submit([["echo", 1], ["sleep", 30]], timeout=0.5)
    two.until(lambda: two.outcomes[seq])
    os.kill(two.pool.lanes()[0].pid, signal.SIGSTOP)
    assert two.until(lambda: seq in two.done) < 1.5
    assert kinds(two.of(seq)) == [0, 1]


def test_a_process_that_is_stopped_between_items_is_replaced_and_nobody_charged(two: Harness) -> None:
    two.watchdog = Watchdog(two.pool, stall_after=0.3)
    os.kill(two.pool.lanes()[0].pid, signal.SIGSTOP)
    assert kinds(two.run([["echo", 1], ["echo", 2]])) == [3, 3]
    assert two.deaths[0].cause is Cause.STALLED
    assert kinds(two.run([["echo", 1]])) == [0]


def test_a_timeout_runs_from_the_start_of_its_item_and_not_of_its_chunk(two: Harness) -> None:
    assert kinds(two.run([["sleep", 0.15]] * 6, timeout=0.4)) == [0] * 6
    assert not two.deaths


def test_no_timeout_means_no_limit(two: Harness) -> None:
    assert kinds(two.run([["sleep", 0.3]], timeout=None)) == [0]


def test_a_neighbour_does_not_notice_a_kill(two: Harness) -> None:
    two.submit([["spin", None]], lane=0, timeout=0.2)
    pid = two.pool.lanes()[1].pid
    outcomes = two.run([["sleep", 0.05]] * 12, lane=1, timeout=0.5)
    assert kinds(outcomes) == [0] * 12
    assert two.pool.lanes()[-1].pid == pid


def test_what_a_killed_handler_started_ends_with_it_also_in_its_own_session(
    two: Harness, tmp_path: Path
) -> None:
    two.run([["spin_with_children", str(tmp_path / "pids")]], timeout=0.5)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert eventually(lambda: all(gone(pid) for pid in pids))


def test_an_item_over_the_memory_cap_is_ended_and_charged() -> None:
    with lanes(1, max_memory=250 * MIB) as harness:
        outcomes = harness.run([["echo", 1], ["allocate", 400], ["echo", 2]])
        assert kinds(outcomes) == [0, 1, 3]
        assert 'MemoryError: step "act" task 1 used' in text(outcomes[1])
        assert "more than the 250 MiB allowed per lane" in text(outcomes[1])
        assert harness.deaths[0].cause is Cause.MEMORY
        assert kinds(harness.run([["echo", 1]])) == [0]


def test_a_lane_that_has_grown_is_recycled_without_a_failure() -> None:
    with lanes(1, recycle_memory=100 * MIB) as harness:
        harness.watchdog = Watchdog(harness.pool, sample_interval=0.02)
        harness.until(lambda: harness.pool.lanes()[0].finished == 0)
        (before,) = harness.run([["pid", None]])
        assert kinds(harness.run([["keep", 150], ["sleep", 0.2]])) == [0, 0]
        harness.until(lambda: len(harness.ready) == 2)
        (after,) = harness.run([["pid", None]])
        assert before.body != after.body
        assert not harness.deaths


def test_the_brake_is_off_on_a_machine_with_free_memory(two: Harness) -> None:
    two.watchdog.tick()
    assert not two.watchdog.paused
