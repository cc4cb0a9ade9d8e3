"""Items that change or close what they share with the next ones of their lane: those work all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane_harness import Harness, eventually, kinds, lanes, text

from pgflow_mp.executors.events import Cause


@pytest.fixture(scope="module")
def one_lane() -> Iterator[Harness]:
    with lanes(1) as harness:
        yield harness


@pytest.mark.parametrize("action", ["close_streams", "close_standard_files", "replace_and_close_stream"])
@pytest.mark.parametrize("apart", [False, True])
def test_items_print_after_one_that_closed_the_streams(
    capfd: pytest.CaptureFixture[str], action: str, apart: bool
) -> None:
    with lanes(1) as harness:
        orders = [[action, 0.001], ["say", "one"], ["say", "two"]]
        chunks = [[order] for order in orders] if apart else [orders]
        for chunk in chunks:
            outcomes = harness.run(chunk)
            assert kinds(outcomes) == [0] * len(chunk), [text(outcome) for outcome in outcomes]
        assert harness.deaths == []
        captured = capfd.readouterr()
    assert {"one", "two"} <= set(captured.out.split())
    assert {"one", "two"} <= set(captured.err.split())


def test_an_item_that_opens_its_own_files_under_our_numbers_keeps_them_and_charges_nobody(
    tmp_path: Path,
) -> None:
    with lanes(1) as harness:
        seq = harness.submit([["echo", 1], ["close_and_reopen", str(tmp_path)], ["big", 300_000]])
        waiting = harness.submit([["echo", 2]])
        harness.until(lambda: {seq, waiting} <= harness.done)
        assert kinds(harness.of(seq)) == [0, 0, 3]
        assert kinds(harness.of(waiting)) == [3]
        assert [death.verdict for death in harness.deaths] == [None]
        assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"mine"}
        assert kinds(harness.run([["echo", 3], ["big", 300_000]])) == [0, 0]


def test_a_large_output_never_goes_into_a_file_that_has_the_number_of_ours(tmp_path: Path) -> None:
    with lanes(1) as harness:
        (outcome,) = harness.run([["close_reopen_and_return", [str(tmp_path), 300_000]]])
        assert outcome.kind == 1
        assert "a handler has closed the files of this process" in text(outcome)
        assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"mine"}
        assert kinds(harness.run([["echo", 1]])) == [0]


def test_an_alarm_left_behind_ends_no_other_item() -> None:
    with lanes(1) as harness:
        assert kinds(harness.run([["set_alarm", 0.3]])) == [0]
        assert kinds(harness.run([["sleep", 0.6], ["echo", 1]])) == [0, 0]
        assert harness.deaths == []


def test_blocked_signals_are_unblocked_for_the_next_item() -> None:
    with lanes(1) as harness:
        outcomes = harness.run([["block_signals_and_return", 0.001], ["blocked_signals", None]])
        assert [text(outcome) for outcome in outcomes] == ["null", "0"]


def test_a_lane_passes_over_sigterm_again_after_an_item_that_did_not() -> None:
    with lanes(1) as harness:
        assert kinds(harness.run([["default_signals", 0.001]])) == [0]
        seq = harness.submit([["sleep", 0.4]])
        harness.until(lambda: list(harness.pool.running()))
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(harness.pool.lanes()[0].pid, number)
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [0]


def test_a_clock_that_an_item_has_replaced_times_nobody_out() -> None:
    with lanes(1) as harness:
        assert kinds(harness.run([["stop_the_clock", None]], timeout=1.0)) == [0]
        assert kinds(harness.run([["echo", 1], ["spin_for", 0.2]], timeout=1.0)) == [0, 0]
        (late,) = harness.run([["spin", None]], timeout=0.3)
        assert "exceeded its timeout" in text(late)


@pytest.mark.parametrize(
    "action", ["exit_in_a_thread", "raise_in_del", "leave_the_group", "change_mask_and_limits"]
)
def test_other_mischief_is_the_business_of_its_item_alone(one_lane: Harness, action: str) -> None:
    outcomes = one_lane.run([["echo", 1], [action, None], ["echo", 2], ["say", "still here"]])
    assert [outcome.kind for outcome in outcomes if outcome.position != 1] == [0, 0, 0]
    assert one_lane.deaths == []


def test_a_daemon_that_an_item_leaves_holds_nothing_up() -> None:
    with lanes(1) as harness:
        daemon = int(text(harness.run([["daemonize", None]])[0]))
        try:
            assert kinds(harness.run([["os_exit", 1]])) == [1]
            assert kinds(harness.run([["echo", 1]])) == [0]
            began = time.monotonic()
            assert harness.pool.stop(5.0)
            assert time.monotonic() - began < 2.5
        finally:
            os.kill(daemon, signal.SIGKILL)


def test_a_lane_outside_of_its_group_is_killed_over_its_time() -> None:
    with lanes(1) as harness:
        assert kinds(harness.run([["leave_the_group", None]])) == [0]
        (late,) = harness.run([["spin", None]], timeout=0.3)
        assert "exceeded its timeout" in text(late)
        assert harness.deaths[0].cause is Cause.TIMEOUT

        def whole_again() -> bool:
            harness.pool.poll()
            return harness.pool.room(0) == 2

        assert eventually(whole_again)
