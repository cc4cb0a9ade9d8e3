"""Runs of maps in ranges by real workers, audited by direct SQL: each item is recorded exactly once."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from range_harness import Ranges, problems, start_in_ranges, store_in_ranges
from worker_harness import (
    compiled,
    eventually,
    lines,
    output,
    process,
    run_row,
    serve,
    settings,
    start,
    threaded,
)

from pgflow_mp.worker.worker import Worker


def test_maps_over_each_other_are_done_by_two_lanes(dsn: str) -> None:
    run_id = start_in_ranges(dsn, "chain", list(range(3000)))
    _, report = serve(dsn, "chain", run_id)
    assert report.stats.done == 6001
    assert output(dsn, run_id) == {"joined": " ".join(f"#{2 * i}" for i in range(3000))}
    found = Ranges(dsn, run_id, "double")
    assert found.outputs == [2 * i for i in range(3000)]
    assert found.tasks == {}
    assert len(found.pages) < 100
    assert Ranges(dsn, run_id, "as_text").outputs == [f"#{2 * i}" for i in range(3000)]
    assert problems(dsn, run_id) == []


def test_a_map_that_does_not_wait_for_its_parent_is_done_beside_it(dsn: str, log: Path) -> None:
    compiled(dsn, "chain")
    store_in_ranges(dsn, "chain")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("update pgflow.step_policies set barrier = false where step_slug = 'as_text'")
    run_id = start(dsn, "chain", list(range(2000)))
    serve(dsn, "chain", run_id, compile="skip")
    assert output(dsn, run_id) == {"joined": " ".join(f"#{2 * i}" for i in range(2000))}
    assert Ranges(dsn, run_id, "as_text").outputs == [f"#{2 * i}" for i in range(2000)]
    assert problems(dsn, run_id) == []


def test_every_kind_of_failure_is_its_items_alone(dsn: str, log: Path) -> None:
    """Those that fail for good are tolerated: their neighbours, and the run, complete."""
    items: list[list[Any]] = [["echo", i] for i in range(400)]
    items[3] = ["flaky", 1]
    items[50] = ["fail", "no"]
    items[51] = ["permanent", "never"]
    items[120] = ["segfault", None]
    items[200] = ["exit", 3]
    items[201] = ["echo", "refused"]
    items[300] = ["spin", 1]
    run_id = start_in_ranges(
        dsn,
        "mischief",
        items,
        opt_max_attempts=2,
        opt_base_delay=0,
        opt_timeout=1,
        tolerated_failures=10,
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        refuse = "alter table pgflow.pages add check (not (is_result and body @> '[\"refused\"]'))"
        conn.execute(refuse.encode())
    _, report = serve(dsn, "mischief", run_id, compile="skip")
    assert report.run_status == "completed"
    assert problems(dsn, run_id) == []
    found = Ranges(dsn, run_id, "act")
    expected: list[Any] = list(range(400))
    expected[3] = expected[300] = 2
    for index in (50, 51, 120, 200, 201):
        expected[index] = None
    assert found.outputs == expected
    assert {index: row[:2] for index, row in found.tasks.items()} == {
        3: ("completed", 2),
        50: ("failed", 2),
        51: ("failed", 1),
        120: ("failed", 2),
        200: ("failed", 2),
        201: ("failed", 1),
        300: ("completed", 2),
    }
    errors = {index: row[2] or "" for index, row in found.tasks.items()}
    assert "SIGSEGV" in errors[120]
    assert "exit code 3" in errors[200]
    assert 'refuses the output of step "act" task 201' in errors[201]
    assert errors[51].startswith("pgflow_mp.errors.PermanentError: never")
    assert (report.stats.failed, report.stats.late) == (4, 0)
    runs = Counter(int(line.split()[1]) for line in log.read_text().splitlines())
    assert {index for index, count in runs.items() if count > 1} == {3, 50, 120, 200, 300}


@pytest.mark.slow
def test_a_first_crash_that_is_the_last_one_is_recorded_last_of_its_run(dsn: str) -> None:
    items: list[list[Any]] = [["sleep", 0.002] for _ in range(300)]
    items[2] = ["segfault", None]
    run_id = start_in_ranges(dsn, "mischief", items, opt_max_attempts=1)
    _, report = serve(dsn, "mischief", run_id, compile="skip")
    assert report.run_status == "failed"
    assert report.wall < 15
    found = Ranges(dsn, run_id, "act")
    assert sum(row[1] for row in found.pages) == 299
    assert found.tasks[2][:2] == ("failed", 1)
    assert (found.tasks[2][2] or "").startswith("quarantined, its last attempt (1 of 1) crashed")
    assert problems(dsn, run_id) == []


def test_a_failure_that_is_not_tolerated_ends_the_run_and_what_runs_of_it(dsn: str) -> None:
    items: list[list[Any]] = [["sleep", 0.005] for _ in range(600)]
    items[30] = ["permanent", "bad address"]
    items[450:] = [["sleep", 20]] * 150
    run_id = start_in_ranges(dsn, "mischief", items)
    _, report = serve(dsn, "mischief", run_id, grace=0.5)
    assert report.run_status == "failed"
    assert report.wall < 15
    found = Ranges(dsn, run_id, "act")
    assert found.tasks[30][:2] == ("failed", 1)
    assert all(row[2] is None for row in found.leases)
    assert problems(dsn, run_id) == []


@pytest.mark.slow
def test_two_workers_share_a_map_and_each_item_is_run_once(dsn: str, log: Path) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.01] * 300)
    with (
        threaded(Worker(settings(dsn, "naps")), run_id=run_id) as one,
        threaded(Worker(settings(dsn, "naps")), run_id=run_id) as two,
    ):
        reports = [one.join(), two.join()]
    assert output(dsn, run_id) == {"count": 300}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(300))
    assert sum(report.stats.done for report in reports) == 301
    assert min(report.stats.done for report in reports) > 50
    assert max(Counter(lines(log, "end")).values()) == 1
    assert sum(report.stats.late for report in reports) == 0


def test_a_stop_in_the_midst_hands_back_what_was_not_begun(dsn: str, log: Path) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.02] * 200)
    running = process(dsn, "naps", run_id)
    eventually(lambda: len(lines(log, "end")) > 20)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=20)
    assert running.returncode == 0
    begun = len(lines(log, "start"))
    assert begun == len(lines(log, "end")) < 200
    found = Ranges(dsn, run_id, "nap")
    assert sum(row[1] for row in found.pages) == begun
    assert {row[2] for row in found.leases} == {None}
    assert {row[4] for row in found.leases} == {0}  # nor is anything suspect
    serve(dsn, "naps", run_id)
    assert output(dsn, run_id) == {"count": 200}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(200))
    assert max(Counter(lines(log, "end")).values()) == 1


def test_a_cancel_in_the_midst_ends_what_runs_and_a_retry_goes_on(dsn: str, log: Path) -> None:
    seconds = [0.01] * 100 + [30.0] * 2
    run_id = start_in_ranges(dsn, "naps", seconds)
    worker = Worker(settings(dsn, "naps"))
    with threaded(worker), psycopg.connect(dsn, autocommit=True) as conn:
        eventually(lambda: sum(row[1] for row in Ranges(dsn, run_id, "nap").pages) == 100)
        eventually(lambda: len(lines(log, "start")) == 102)
        conn.execute("select pgflow.cancel_run(%s)", (run_id,))
        asked = time.monotonic()
        eventually(lambda: not worker._loop or not worker._loop.dispatcher.held)
        assert time.monotonic() - asked < 5
        assert problems(dsn, run_id) == []
        conn.execute("select pgflow.retry_failed_tasks(%s)", (run_id,))
        eventually(lambda: len(lines(log, "start")) == 104)
        conn.execute("select pgflow.cancel_run(%s)", (run_id,))
    found = Ranges(dsn, run_id, "nap")
    assert sum(row[1] for row in found.pages) == 100
    assert found.tasks == {}
    assert len(lines(log, "end")) == 100


def test_batches_in_ranges_lose_their_culprits_only(dsn: str, log: Path) -> None:
    items: list[list[Any]] = [["echo", i] for i in range(1000)]
    items[100], items[300], items[700] = ["exit", 3], ["fail", "no"], ["answer", "this one"]
    run_id = start_in_ranges(dsn, "heaps", items, opt_base_delay=0, tolerated_failures=5)
    _, report = serve(dsn, "heaps", run_id, compile="skip")
    assert report.run_status == "completed"
    assert problems(dsn, run_id) == []
    found = Ranges(dsn, run_id, "heap")
    assert found.outputs == [None if i in (100, 300, 700) else i for i in range(1000)]
    assert {index: row[:2] for index, row in found.tasks.items()} == dict.fromkeys(
        (100, 300, 700), ("failed", 2)
    )
    sizes = Counter(int(line.split()[1]) for line in lines(log, "heap"))
    assert sizes[64] >= 8


@pytest.mark.slow
def test_what_waits_behind_a_long_item_is_done_by_the_other_lane(dsn: str, log: Path) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.001] * 100 + [4.0] + [0.001] * 399)
    _, report = serve(dsn, "naps", run_id)
    assert report.wall < 8
    words = log.read_text().split("\n")
    last = words.index("end 100")
    assert len([line for line in words[:last] if line.startswith("end")]) == 499
    assert Ranges(dsn, run_id, "nap").outputs == list(range(500))


@pytest.mark.slow
def test_many_small_runs_in_ranges_are_all_done(dsn: str) -> None:
    ids = [start_in_ranges(dsn, "doubled", [1, 2, 3])]
    with psycopg.connect(dsn, autocommit=True) as conn:
        rows = conn.execute(
            "select (pgflow.start_flow('doubled', '[1, 2, 3]')).run_id::text from generate_series(1, 199)"
        )
        ids += [row[0] for row in rows.fetchall()]
    Worker(settings(dsn, "doubled")).run(idle_exit=True)
    assert {run_row(dsn, run_id).status for run_id in ids} == {"completed"}
    assert all(Ranges(dsn, run_id, "slowly_doubled").outputs == [2, 4, 6] for run_id in ids[:20])
