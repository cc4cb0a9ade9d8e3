"""on_start functions in real lanes: once a process, uncharged, anew after a kill, ended with the process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import start_flows
from lane_harness import Harness, eventually, kinds, lanes, range_of, text

from pgflow_mp.executors import start_failures
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.messages import PRELOAD_FLOW, Kind

TARGET = str(Path(__file__).resolve().parent.parent / "start_flows.py")
COMPLETED, NOT_RUN = int(Kind.COMPLETED), int(Kind.NOT_RUN)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setattr(start_failures, "FIRST_PAUSE", 0.05)
    monkeypatch.setenv(start_flows.NOTES, str(path))
    return path


def order(notes: Path, what: str) -> None:
    Path(f"{notes}.order").write_text(what)


def read(notes: Path) -> list[str]:
    """What was noted, without process ids."""
    return [line.rpartition(" ")[0] for line in notes.read_text().splitlines()]


def pids(notes: Path) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in notes.read_text().splitlines()]


@contextmanager
def started(size: int = 1, **options: Any) -> Iterator[Harness]:
    with lanes(size, target=TARGET, **options) as harness:
        yield harness


def run(harness: Harness, orders: list[Any], **options: Any) -> list[Any]:
    return harness.run(orders, **{"flow": "starts", **options})


def test_a_process_makes_it_once_for_all_its_items_and_a_new_one_anew(notes: Path) -> None:
    with started(preload=[PRELOAD_FLOW]) as harness:
        assert read(notes) == []  # loading, and forking what is preloaded, makes nothing
        assert [text(each) for each in run(harness, ["a", "b"])] == ['["a","big",1]', '["b","big",2]']
        assert text(run(harness, ["c"])[0]) == '["c","big",3]'
        assert text(run(harness, ["x", "y", "z"], step="batched")[2]) == '["z","big",5]'
        harness.make = range_of
        found = run(harness, ["d", "state"])
        assert [text(each) for each in found] == ['["d","big",6]', '["yes",5]']  # what it set stays
        assert read(notes) == ["name", "begin well"]
        assert text(harness.run([1], flow="other", step="add")[0]) == "8"  # a flow of its own
        assert read(notes)[2:] == ["number"]
        crashed = run(harness, ["crash", "e"])
        assert kinds(crashed) == [int(Kind.FAILED), NOT_RUN]
        assert text(run(harness, ["f"])[0]) == '["f","big",1]'
        assert read(notes)[3:] == ["name", "begin well"]  # no end of what was killed
        assert len(set(pids(notes))) == 2
        order(notes, "slow end")  # longer than a process may take to leave that has nothing to do
        before = harness.pool.lanes()[0].pid
        harness.pool.recycle(0)
        harness.until(lambda: harness.pool.lanes()[0].pid != before)
        assert text(run(harness, ["g"])[0]) == '["g","big",1]'
        assert eventually(lambda: "end" in read(notes))
        harness.pool.stop(5.0)
        assert read(notes).count("end") == 2
    assert harness.failed == []


def test_it_is_charged_to_no_item_and_no_process_is_taken_for_stalled_meanwhile(notes: Path) -> None:
    order(notes, "sleep 1.2")
    with started() as harness:
        harness.watchdog._stall_after = 0.4
        seq = harness.submit(["a", 0.2], flow="starts", timeout=0.6)
        harness.until(lambda: bool(harness.pool.starting()))
        (starting,) = harness.pool.starting().values()
        assert starting.what == 'on_start function "model" of flow "starts"'
        assert list(harness.pool.running()) == []
        harness.until(lambda: seq in harness.done)
        found = harness.of(seq)
        assert kinds(found) == [COMPLETED, COMPLETED]
        assert sum(each.seconds for each in found) < 0.6
        assert harness.deaths == []
        assert harness.pool.starting() == {}


@pytest.mark.parametrize(
    ("wanted", "how"),
    [
        ("raise", "failed: FileNotFoundError: weights.bin"),
        ("kill", ": its process died from signal 11 (SIGSEGV)"),
    ],
)
def test_one_that_fails_hands_its_items_back_and_is_given_up_after_some_rounds(
    notes: Path, wanted: str, how: str
) -> None:
    order(notes, wanted)
    with started(2) as harness:
        began, seqs = time.monotonic(), []
        while not (harness.failed and harness.failed[-1].fatal):
            assert time.monotonic() - began < 20
            for lane, _ in harness.pool.rooms():
                seqs.append(harness.try_submit(["a", "b"], lane=lane, flow="starts"))
            harness.tick()
        harness.until(lambda: all(seq in harness.done for seq in seqs if seq))
        assert {kind for seq in seqs if seq for kind in kinds(harness.of(seq))} == {NOT_RUN}
        first, last = harness.failed[0], harness.failed[-1]
        assert f'on_start function "model" of flow "starts"{" " * (wanted == "raise")}{how}' == first.error
        assert last.fatal is not None
        assert how in str(last.fatal)
        assert ("in model" in str(last.fatal)) is (wanted == "raise")  # where it was
        assert "No item was charged" in last.fatal.hint
        assert 3 <= len(harness.failed) <= 8
        assert first.retry_in == 0.05
        order(notes, "")  # what was wrong is mended: the pool would go on
        harness.until(harness.pool.rooms, 20)
        assert kinds(run(harness, ["c"], lane=harness.pool.rooms()[0][0])) == [COMPLETED]


def test_a_process_that_cannot_start_does_not_end_what_others_do(notes: Path) -> None:
    with started(2) as harness:
        assert kinds(run(harness, ["a"], lane=1)) == [COMPLETED]
        order(notes, "raise")
        until = time.monotonic() + 20
        while len(harness.failed) < 5:
            assert time.monotonic() < until
            if harness.pool.room(0):
                harness.try_submit(["b"], lane=0, flow="starts")
            harness.tick()
        assert [event.fatal for event in harness.failed if event.fatal] == []
        assert kinds(run(harness, ["c"], lane=1)) == [COMPLETED]


def test_it_may_take_as_long_as_loading_and_keep_to_the_limit_of_memory(notes: Path) -> None:
    order(notes, "sleep 60")
    with started(start_timeout=3.0) as harness:
        harness.pool.start_timeout = 0.3
        seq = harness.submit(["a"], flow="starts")
        harness.until(lambda: harness.failed)
        assert "took longer than 0.3 s (--load-timeout allows it more)" in harness.failed[0].error
        assert kinds(harness.of(seq)) == [NOT_RUN]
        assert [death.cause for death in harness.deaths] == [Cause.STALLED]
        harness.pool.start_timeout, harness.pool.max_memory = 60.0, 1 << 20
        seq = harness.submit(["a"], flow="starts")
        harness.until(lambda: len(harness.failed) > 1)
        assert "MiB, more than the 1 MiB allowed per lane" in harness.failed[1].error


def test_a_forced_end_does_not_wait_for_it(notes: Path) -> None:
    with started() as harness:
        order(notes, "slow end")
        run(harness, ["a"])
        pid, began = harness.pool.lanes()[0].pid, time.monotonic()
        harness.pool.abort()
        assert time.monotonic() - began < 1.0
        assert "end" not in read(notes)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
