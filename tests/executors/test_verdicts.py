"""What is recorded for an item whose process died; pure functions."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes import memory
from pgflow_mp.executors.lanes.memory import HostMemory
from pgflow_mp.executors.messages import Kind, Outcome
from pgflow_mp.executors.verdicts import CrashBudget


def crash(position: int = 0) -> Outcome:
    return Outcome(position, Kind.FAILED, b"Crashed: it died", 0.1)


def test_the_second_crash_of_an_item_quarantines_it() -> None:
    budget = CrashBudget()
    assert budget.charge(("run", "step", 1), crash()).kind == Kind.FAILED
    last = budget.charge(("run", "step", 1), crash())
    assert last.kind == Kind.FAILED_FOR_GOOD
    assert last.body == b"quarantined after 2 crashes: Crashed: it died"


def test_crashes_of_other_items_do_not_count() -> None:
    budget = CrashBudget()
    for index in range(5):
        assert budget.charge(index, crash()).kind == Kind.FAILED


def test_a_settled_item_starts_afresh() -> None:
    budget = CrashBudget()
    budget.charge(1, crash())
    budget.forget(1)
    assert budget.crashes(1) == 0
    assert budget.charge(1, crash()).kind == Kind.FAILED


def test_a_budget_of_one_allows_no_crash() -> None:
    assert CrashBudget(1).charge(1, crash()).body.startswith(b"quarantined after 1 crash: ")


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CrashBudget(0)


def test_a_kill_by_the_kernel_for_memory_is_named() -> None:
    cause = verdicts.cause_of(-signal.SIGKILL, lost=False, oom_killed=True)
    assert cause is Cause.OUT_OF_MEMORY
    text = verdicts.crash_error("s", 3, cause, verdicts.describe_exit(-9))
    assert text == (
        'Crashed: step "s" task 3: its process died from signal 9 (SIGKILL), '
        "sent by the kernel's out-of-memory killer"
    )


def test_an_exit_is_described_by_signal_name_or_exit_code() -> None:
    assert verdicts.describe_exit(-11) == "signal 11 (SIGSEGV)"
    assert verdicts.describe_exit(-62) == "signal 62"
    assert verdicts.describe_exit(-63) == "terminated by its worker"
    assert verdicts.describe_exit(3) == "exit code 3"


def test_the_brake_has_hysteresis() -> None:
    assert memory.under_pressure(HostMemory(40, 1000), paused=False)
    assert memory.under_pressure(HostMemory(80, 1000), paused=True)
    assert not memory.under_pressure(HostMemory(80, 1000), paused=False)
    assert not memory.under_pressure(HostMemory(120, 1000), paused=True)


def test_a_control_group_limits_the_memory_that_is_left(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1000000\n")
    (tmp_path / "a" / "memory.current").write_text("700000\n")
    (tmp_path / "a" / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    assert memory.host_memory(tmp_path, tmp_path) == HostMemory(500000, 1000000)


def test_kills_for_memory_are_counted_for_the_machine_and_the_group(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/g\n")
    (tmp_path / "vmstat").write_text("nr_free 1\noom_kill 2\n")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "memory.events").write_text("oom 9\noom_kill 3\n")
    assert memory.oom_kills(tmp_path, tmp_path) == 5
