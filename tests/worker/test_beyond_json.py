"""Outputs past what one JSON value holds (256 MB), at full size, in either storage: steps, reads, memory."""

from __future__ import annotations

import tracemalloc

import psycopg
import pytest
from worker_harness import adapted, eventually, output, peak, run_row, settings, start, threaded

from pgflow_mp.db.reads import documents
from pgflow_mp.worker.stats import Ending
from pgflow_mp.worker.worker import Worker

LANE = 200_000_000
"""Bytes that a process may have: fewer than the outputs."""
STORAGES = ("tasks", "ranges")


def complete(dsn: str, flow: str, lengths: list[int], seconds: float) -> tuple[str, int]:
    """Run a flow with little memory for its processes; the run, and how much this process has grown.

    No worker ends, and nothing is tried twice.
    """
    run = start(dsn, flow, lengths)
    worker = Worker(settings(dsn, flow, max_memory_per_worker=LANE))
    with peak() as grown, threaded(worker) as running:
        eventually(lambda: running.error or run_row(dsn, run).status != "started", seconds)
        worker.request_stop()
        assert running.join().ending is Ending.REQUESTED
    assert run_row(dsn, run).status == "completed"
    with psycopg.connect(dsn) as conn:
        attempts = conn.execute("select max(attempts_count) from pgflow.step_tasks").fetchone()
    assert attempts == (1,)
    assert worker.stats.failed == 0
    print(f"{grown[0] / 1e6:.0f} MB")
    return run, grown[0]


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
def test_a_step_over_300_000_outputs_of_1_kB(dsn: str, storage: str) -> None:
    run, grown = complete(dsn, f"vast_{storage}", [1000] * 300_000, 900.0)
    assert output(dsn, run) == {"middle": [300_000, 1000], "total": [300_000, 300_000_000]}
    assert grown < 220e6
    with adapted(dsn) as conn:
        tracemalloc.start()
        try:
            read = [len(text) for text in documents.iter_map_output(conn, run, "fill")]
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert read == [1002] * 300_000
    assert most < 60e6


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
def test_a_step_over_two_maps_of_10_outputs_of_40_MB(dsn: str, storage: str) -> None:
    run, grown = complete(dsn, f"heavy_{storage}", [40_000_000] * 10, 900.0)
    assert output(dsn, run) == {"both": [10, 10, 400_000_000, 400_000_000]}
    assert grown < 20 * 40e6


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
def test_a_list_that_does_not_fit_a_process_fails_its_item_alone(dsn: str, storage: str) -> None:
    run, other = [start(dsn, f"listed_{storage}", [length] * 24) for length in (10_000_000, 10)]
    worker = Worker(settings(dsn, f"listed_{storage}", max_memory_per_worker=LANE))
    with threaded(worker) as running:
        eventually(
            lambda: running.error or all(run_row(dsn, each).status != "started" for each in (run, other)),
            600.0,
        )
        worker.request_stop()
        assert running.join().ending is Ending.REQUESTED
    assert output(dsn, other) == {"listed": 24}
    with psycopg.connect(dsn) as conn:
        failed = conn.execute(
            "select run_id::text, step_slug, error_message from pgflow.step_tasks where status = 'failed'"
        ).fetchall()
    ((failed_run, slug, error),) = failed
    assert (failed_run, slug, "memory" in error.lower()) == (run, "listed", True)
