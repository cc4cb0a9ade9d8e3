"""Killing things while a worker works: nothing is lost, nothing is recorded twice, the run completes."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from worker_harness import (
    Tasks,
    adapted,
    eventually,
    kill,
    lines,
    output,
    process,
    run_row,
    serve,
    settings,
    start,
    threaded,
)

from pgflow_mp.db import connection, engine, schema
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.worker.settings import WorkerState
from pgflow_mp.worker.stats import Ending
from pgflow_mp.worker.worker import Worker

QUICK: dict[str, Any] = {"heartbeat_interval": 0.2, "dead_after": 1.0}


@pytest.mark.slow
def test_a_killed_parents_tasks_are_taken_over_and_nothing_recorded_runs_again(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.02] * 200)
    first = process(dsn, "naps", run_id, **QUICK)
    eventually(lambda: Tasks(dsn, run_id).statuses("nap")["completed"] >= 40)
    kill(first)
    recorded = {row[1] for row in Tasks(dsn, run_id).rows if row[0] == "nap" and row[2] == "completed"}
    before = len(log.read_text())
    killed = time.monotonic()
    serve(dsn, "naps", run_id, **QUICK)
    assert output(dsn, run_id) == {"count": 200}
    assert Tasks(dsn, run_id).outputs("nap") == list(range(200))
    assert time.monotonic() - killed < 12
    again = {int(line.split()[1]) for line in log.read_text()[before:].splitlines() if "start" in line}
    assert not again & recorded
    assert {row[3] for row in Tasks(dsn, run_id).rows} == {1}  # nobody was charged for the kill


def test_two_workers_share_a_run_and_each_item_is_recorded_once(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.01] * 300)
    with (
        threaded(Worker(settings(dsn, "naps")), run_id=run_id) as one,
        threaded(Worker(settings(dsn, "naps")), run_id=run_id) as two,
    ):
        reports = [one.join(), two.join()]
    assert output(dsn, run_id) == {"count": 300}
    assert sum(report.stats.done for report in reports) == 301
    assert min(report.stats.done for report in reports) > 50
    assert max(Counter(lines(log, "end")).values()) == 1
    assert sum(report.stats.late for report in reports) == 0


@pytest.mark.slow
def test_results_survive_connections_that_are_cut_every_200_ms(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.01] * 400)
    worker = Worker(settings(dsn, "naps", **QUICK))
    with threaded(worker, run_id=run_id) as running, psycopg.connect(dsn, autocommit=True) as conn:
        eventually(lambda: worker.state is WorkerState.RUNNING)
        cuts = 0
        while running.report is None and running.error is None and cuts < 100:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            cuts += 1
            time.sleep(0.2)
        report = running.join()
    assert output(dsn, run_id) == {"count": 400}
    assert cuts >= 5
    assert report.unsettled == 0
    # What was claimed by an answer that never arrived is handed out again; what ran is not.
    assert max(Counter(lines(log, "end")).values()) == 1


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A durable server that the test may kill."""
    with EmbeddedServer(tmp_path / "state") as server:
        with connection.connect(server.dsn) as conn:
            schema.install(conn)
        yield server


@pytest.mark.slow
def test_a_crash_and_restart_of_the_server_costs_no_result(own_server: EmbeddedServer, log: Path) -> None:
    dsn = own_server.dsn
    run_id = start(dsn, "naps", [0.02] * 300)
    worker = Worker(settings(dsn, "naps"))
    with threaded(worker, run_id=run_id) as running:
        eventually(lambda: worker.stats.done >= 60)
        postmaster = int((own_server.data_dir / "data" / "postmaster.pid").read_text().split()[0])
        psutil.Process(postmaster).kill()
        report = running.join(60)
    assert output(dsn, run_id) == {"count": 300}
    assert max(Counter(lines(log, "end")).values()) == 1
    assert report.unsettled == 0


def test_cancelling_a_run_stops_its_running_items(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [30.0] * 4)
    worker = Worker(settings(dsn, "naps"))
    with threaded(worker) as running:
        eventually(lambda: len(lines(log, "start")) == 2)
        pids = [int(line.split()[2]) for line in lines(log, "start")]
        with adapted(dsn) as conn:
            engine.cancel_run(conn, run_id, "not needed")
        eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids), 5.0)
        eventually(lambda: len(worker._executor.rooms() if worker._executor else ()) == 2)
        assert not lines(log, "end")
        other = start(dsn, "naps", [0.0] * 10)  # the worker is whole
        eventually(lambda: run_row(dsn, other).status == "completed")
        worker.request_stop()
        assert running.join().ending is Ending.REQUESTED
    assert run_row(dsn, run_id).status == "failed"


def test_a_deprecated_worker_finishes_what_runs_and_ends(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.3] * 30)
    worker = Worker(settings(dsn, "naps", **QUICK))
    with threaded(worker) as running:
        eventually(lambda: worker.stats.done >= 2)
        with psycopg.connect(dsn) as conn:
            conn.execute("update pgflow.workers set deprecated_at = now()")
        report = running.join()
    assert report.ending is Ending.DEPRECATED
    statuses = Tasks(dsn, run_id).statuses("nap")
    assert statuses["started"] == 0
    assert statuses["queued"] > 0
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgflow.workers where stopped_at is null").fetchone() == (0,)


@pytest.mark.slow
def test_a_worker_that_was_taken_for_dead_goes_on_under_a_new_identity(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.05] * 100)
    worker = Worker(settings(dsn, "naps", **QUICK))
    with threaded(worker, run_id=run_id) as running:
        eventually(lambda: worker.stats.done >= 10)
        with psycopg.connect(dsn) as conn:  # in one transaction, so that no heartbeat comes between
            conn.execute("update pgflow.workers set last_heartbeat_at = now() - interval '1 hour'")
            conn.execute("select pgflow.recover_dead_workers()")
        report = running.join()
    assert output(dsn, run_id) == {"count": 100}
    assert report.stats.done == 101
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgflow.workers").fetchone() == (2,)


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_a_while_and_woken_records_nothing_twice(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [0.05] * 120)
    first = process(dsn, "naps", run_id, **QUICK)
    eventually(lambda: Tasks(dsn, run_id).statuses("nap")["completed"] >= 10)
    family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    for member in family:
        member.suspend()
    (asleep,) = _held(dsn, run_id)
    other = Worker(settings(dsn, "naps", **QUICK))
    with threaded(other, run_id=run_id) as running:
        eventually(lambda: asleep not in _held(dsn, run_id), timeout=20.0)
        for member in reversed(family):
            member.resume()
        running.join()
    said = first.communicate(timeout=30)[0]
    assert first.returncode == 0, said
    assert output(dsn, run_id) == {"count": 120}
    assert Tasks(dsn, run_id).outputs("nap") == list(range(120))
    assert {row[3] for row in Tasks(dsn, run_id).rows} == {1}  # a pause is nobody's fault


@pytest.mark.slow
def test_a_flow_that_is_deleted_under_a_worker_ends_nothing_but_its_runs(dsn: str) -> None:
    gone, stays = start(dsn, "naps", [0.1] * 200), start(dsn, "single", "ada")
    options: Any = {"flows": ("naps", "single"), "visibility_timeout": 30, **QUICK}
    worker = Worker(dataclasses.replace(settings(dsn, "naps"), **options))
    with threaded(worker) as running:
        eventually(lambda: worker.stats.done >= 4 and run_row(dsn, stays).status == "completed", 30)
        with psycopg.connect(dsn) as conn:
            conn.execute("select pgflow.delete_flow_and_data('naps')")
        again = start(dsn, "single", "bob")
        eventually(lambda: run_row(dsn, again).status == "completed", 30)
        time.sleep(0.5)  # claims of what is gone
        worker.request_stop()
        assert running.join().ending is Ending.REQUESTED
    with adapted(dsn) as engine_conn:
        assert engine.get_run(engine_conn, gone) is None


def _held(dsn: str, run_id: str) -> set[str]:
    """The workers that hold items of a run."""
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "select worker_id::text from pgflow.items where run_id = %s and status = 'started'",
            (run_id,),
        ).fetchall()
    return {row[0] for row in rows}


def test_leases_of_what_runs_are_extended(dsn: str) -> None:
    run_id = start(dsn, "naps", [1.8, 1.8])
    worker = Worker(settings(dsn, "naps", visibility_timeout=1, **QUICK))
    with threaded(worker, run_id=run_id) as running, psycopg.connect(dsn, autocommit=True) as conn:
        eventually(lambda: Tasks(dsn, run_id).statuses("nap")["started"] == 2)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            row = conn.execute("select min(vt - clock_timestamp()) from pgmq.q_naps").fetchone()
            assert row is not None
            assert row[0].total_seconds() > 0
            time.sleep(0.1)
        assert running.join().stats.late == 0


@pytest.mark.slow
def test_the_worker_waits_for_a_run_that_others_finish(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.5] * 2)
    helper = Worker(settings(dsn, "naps"))
    watcher = Worker(settings(dsn, "naps"))
    with threaded(helper, run_id=run_id) as one:
        eventually(lambda: Tasks(dsn, run_id).statuses("nap")["started"] == 2)
        with threaded(watcher, run_id=run_id) as two:
            one.join()
            assert two.join().run_status == "completed"
    assert threading.active_count() < 20


@pytest.mark.slow
def test_a_worker_that_starts_in_the_instant_of_a_crash_waits(own_server: EmbeddedServer, log: Path) -> None:
    run_id = start(own_server.dsn, "naps", [0.0] * 5)
    postmaster = int((own_server.data_dir / "data" / "postmaster.pid").read_text().split()[0])
    psutil.Process(postmaster).kill()
    serve(own_server.dsn, "naps", run_id)
    assert output(own_server.dsn, run_id) == {"count": 5}
