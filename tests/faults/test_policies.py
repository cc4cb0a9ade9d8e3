"""Failure policies from the handler to the command line's list of failures."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import warm_python
from worker_harness import Tasks, adapted, run_row, settings

from pgflow_mp.db import engine
from pgflow_mp.testing import audit_run
from pgflow_mp.worker.stats import WorkerReport
from pgflow_mp.worker.worker import Worker

FLOWS = Path(__file__).with_name("policy_flows.py")


def cli(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm_python.said("pgflow_mp", *arguments, "--dsn", dsn, timeout=120)


def executed(dsn: str, flow: str, input: list[int], **options: Any) -> tuple[str, WorkerReport, float]:
    """Start and serve a run here: its id, the report, seconds from the first claim to the end."""
    worker = Worker(settings(dsn, flow, targets=(str(FLOWS),), **options))
    started: list[float] = []
    run_id = ""

    def begin(conn: engine.Connection) -> str:
        nonlocal run_id
        run_id = engine.start_flow(conn, flow, json.dumps(input).encode())
        started.append(time.monotonic())
        return run_id

    report = worker.run(begin=begin)
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
    return run_id, report, time.monotonic() - started[0]


def test_tolerated_failures_are_listed_and_the_run_completes(dsn: str) -> None:
    done = cli(dsn, "run", f"{FLOWS}:by_count", "--input", "[1, 7, 2, 7, 3]", "--json")
    assert done.returncode == 0, done
    run_id = json.loads(done.stdout)["run_id"]
    assert Tasks(dsn, run_id).outputs("check") == [1, None, 2, None, 3]
    told = json.loads(cli(dsn, "status", run_id, "--json").stdout)
    assert (told["status"], told["failed_tasks"]) == ("completed", 2)
    assert sorted(failure["index"] for failure in told["failures"]) == [1, 3]
    shown = cli(dsn, "status", run_id).stdout
    assert "2 failed and tolerated\n  2 x check: PermanentError: no sevens, please (index *)" in shown
    assert "e.g. [1] 7, [3] 7\n" in shown


@pytest.mark.parametrize(
    ("flow", "sevens", "status"),
    [
        ("by_count", 2, "completed"),
        pytest.param("by_count", 3, "failed", marks=pytest.mark.slow),
        pytest.param("by_share", 4, "completed", marks=pytest.mark.slow),
        ("by_share", 5, "failed"),
    ],
)
def test_a_count_and_a_share_of_failures_are_the_limit(dsn: str, flow: str, sevens: int, status: str) -> None:
    run_id, report, _ = executed(dsn, flow, [7] * sevens + [1] * (40 - sevens))
    assert (run_row(dsn, run_id).status, report.run_status) == (status, status)
    if status == "completed":
        assert Tasks(dsn, run_id).statuses("check") == {"completed": 40 - sevens, "failed": sevens}
    attempts = {row[3] for row in Tasks(dsn, run_id).rows if row[2] == "failed"}
    assert attempts == {1}  # permanent errors are not tried again


def test_a_step_that_fails_alike_from_the_start_stops_early(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("PGFLOW_TEST_LOG", str(log))
    run_id, _, seconds = executed(dsn, "broken", list(range(2000)))
    row = run_row(dsn, run_id)
    assert row.status == "failed"
    assert len(log.read_text().splitlines()) < 400  # of 2,000 items and 6,000 attempts
    assert seconds < 20
    with adapted(dsn) as conn:
        (step,) = engine.run_progress(conn, run_id)
    assert "the same for everyone" in (step.error_message or "")


@pytest.mark.slow
def test_one_killer_among_1000_items_costs_itself_only(dsn: str) -> None:
    run_id, report, seconds = executed(dsn, "killer", list(range(1000)))
    tasks = Tasks(dsn, run_id)
    assert tasks.statuses("survive") == {"completed": 999, "failed": 1}
    assert tasks.error("survive", 500).startswith("quarantined after 2 crashes: Crashed: ")
    assert "signal 9 (SIGKILL)" in tasks.error("survive", 500)
    assert tasks.attempts("survive", 500) == 2
    assert report.stats.crashed == 2
    others = {row[3] for row in tasks.rows if row[1] != 500}
    assert others == {1}  # nobody else was charged
    print(f"999 completed, 1 quarantined in {seconds:.2f} s")


@pytest.mark.slow
def test_one_endless_loop_in_c_among_1000_items_costs_its_timeout(dsn: str) -> None:
    timeout = 1
    numbers = list(range(1000))
    executed(dsn, "endless", [1])  # compiles the flow
    with psycopg.connect(dsn) as conn:  # shorter than the DSL allows
        conn.execute("update pgflow.steps set opt_timeout = %s where flow_slug = 'endless'", (timeout,))
    plain = min(executed(dsn, "endless", numbers, compile="skip")[2] for _ in range(2))
    numbers[500] = -1
    run_id, report, seconds = executed(dsn, "endless", numbers, compile="skip")
    tasks = Tasks(dsn, run_id)
    assert tasks.statuses("work") == {"completed": 999, "failed": 1}
    assert "exceeded its timeout of 1 s and its process was terminated" in tasks.error("work", 500)
    assert report.stats.done == 999
    print(f"plain {plain:.2f} s, with one endless item {seconds:.2f} s")
    slack = float(os.environ.get("PGFLOW_TEST_SLACK", "3"))
    assert seconds < 1.25 * plain + timeout + slack
