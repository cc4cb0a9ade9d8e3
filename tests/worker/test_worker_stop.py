"""Stopping a worker: in order, at once, during its start."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from database_server import DatabaseServer
from worker_harness import Tasks, eventually, output, process, run_row, serve, start


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has a run of its own, and cancels it at the end."""
    with server.database(template) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_runs_left(dsn: str) -> Iterator[None]:
    yield
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.cancel_run(run_id) from pgflow.runs where status = 'started'")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_first_signal_finishes_what_runs_and_hands_the_rest_back(
    dsn: str, log: Path, number: signal.Signals
) -> None:
    run_id = start(dsn, "naps", [0.4] * 20)
    running = process(dsn, "naps", run_id)
    eventually(lambda: len(log.read_text().split("start")) > 3)
    running.send_signal(number)
    text, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    report = json.loads(text.splitlines()[-1])
    assert report["ending"] == "stop requested"
    words = [line.split()[0] for line in log.read_text().splitlines()]
    assert words.count("start") == words.count("end")  # nothing was cut off
    tasks = Tasks(dsn, run_id)
    assert tasks.statuses("nap") == {"completed": words.count("end"), "queued": 20 - words.count("end")}
    assert {row[3] for row in tasks.rows if row[2] == "queued"} == {0}  # nor charged
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgflow.workers where stopped_at is null").fetchone() == (0,)
    serve(dsn, "naps", run_id)
    assert output(dsn, run_id) == {"count": 20}


def test_the_second_signal_ends_at_once_and_hands_back_what_was_cut_off(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [20.0] * 4)
    running = process(dsn, "naps", run_id)
    eventually(lambda: len(log.read_text().split("start")) == 3)
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.poll() is None
    asked = time.monotonic()
    running.send_signal(signal.SIGINT)
    text, _ = running.communicate(timeout=20)
    assert time.monotonic() - asked < 3
    assert json.loads(text.splitlines()[-1])["ending"] == "stopped at once"
    assert Tasks(dsn, run_id).statuses("nap") == {"queued": 4}
    assert {row[3] for row in Tasks(dsn, run_id).rows} == {0}


@pytest.mark.slow
def test_grace_bounds_the_wait_for_what_runs(dsn: str, log: Path) -> None:
    run_id = start(dsn, "naps", [20.0] * 4)
    running = process(dsn, "naps", run_id, grace=0.5)
    eventually(lambda: len(log.read_text().split("start")) == 3)
    asked = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=20)
    assert time.monotonic() - asked < 5
    assert Tasks(dsn, run_id).statuses("nap") == {"queued": 4}


def test_a_signal_during_the_start_ends_it_cleanly(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.0])
    for delay in (0.3, 0.5, 0.7):
        running = process(dsn, "naps", run_id)
        time.sleep(delay)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=20)
        assert running.returncode in (0, -signal.SIGTERM)  # the latter before Python got to us
    assert run_row(dsn, run_id).status in ("started", "completed")
