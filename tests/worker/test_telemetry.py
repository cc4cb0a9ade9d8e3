"""What a worker tells of itself and of its items, by a real one: the sums are those of its work."""

from __future__ import annotations

import os
import socket
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from range_harness import start_in_ranges
from worker_harness import adapted, eventually, serve, settings, start, threaded

from pgflow_mp import __version__
from pgflow_mp.db.reads import recorded
from pgflow_mp.executors.choosing import factory
from pgflow_mp.observe.read_reports import read_workers
from pgflow_mp.observe.read_work import read_spans, read_step_times
from pgflow_mp.observe.worker_reports import LaneReport, WorkerInfo
from pgflow_mp.worker import work_record
from pgflow_mp.worker.worker import Worker

ITEMS: list[list[Any]] = [["echo", i] for i in range(500)]
ITEMS[7] = ["flaky", 1]
ITEMS[20] = ["sleep", 0.2]


@pytest.mark.parametrize("storage", ["ranges", "tasks"])
def test_sums_of_times_and_spans_are_the_attempts_of_a_run(dsn: str, storage: str) -> None:
    run = start_in_ranges(dsn, "mischief", ITEMS) if storage == "ranges" else start(dsn, "mischief", ITEMS)
    _, report = serve(dsn, "mischief", run)
    assert (report.stats.done, report.stats.retried) == (500, 1)
    with adapted(dsn) as conn:
        (times,) = read_step_times(conn, run)
        spans = read_spans(conn, run)
    slowest = times.slowest
    assert (times.step_slug, times.workers, times.attempts, times.failed) == ("act", 1, 501, 1)
    assert sum(times.counts) == 501
    assert times.p50 <= times.p90 <= times.p99 <= slowest[0].seconds
    assert times.seconds == pytest.approx(report.stats.busy)
    assert sum(times.counts[42:]) >= 1  # 0.18 s and more
    assert (slowest[0].index, 0.2 <= slowest[0].seconds < 1.0) == (20, True)
    assert sum(span.items for span in spans) == 501
    assert sum(span.failed for span in spans) == 1
    assert {span.outcome for span in spans} == {"completed", "failed"}
    assert sum(span.seconds for span in spans) == pytest.approx(report.stats.busy)
    assert all(span.started_at <= span.ended_at and span.lane in (0, 1) for span in spans)
    for lane in (0, 1):
        own = [span for span in spans if span.lane == lane]
        assert all(a.ended_at <= b.started_at for a, b in pairwise(own))
    assert {span.worker for span in spans} == {f"{socket.gethostname()}:{os.getpid()}"}
    assert sum(span.items for span in spans) == 501


def workers(dsn: str) -> list[WorkerInfo]:
    with adapted(dsn) as conn:
        return read_workers(conn, alive_only=False)


def test_a_worker_tells_who_it_is_and_what_its_lanes_do(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_record, "STATE_EVERY", 0.3)
    run = start(dsn, "naps", [0.0, 30.0])
    worker = Worker(settings(dsn, "naps"))
    with threaded(worker):

        def busy() -> LaneReport | None:
            lanes = [lane for each in workers(dsn) for lane in each.lanes or ()]
            return next((lane for lane in lanes if lane.index == 1), None)

        lane = eventually(busy, 20)
        (found,) = workers(dsn)
        assert (found.host, found.pid, found.version) == (socket.gethostname(), os.getpid(), __version__)
        assert (found.executor, found.lane_count, found.flows, found.labels) == ("lanes", 2, ["naps"], [])
        assert (found.state, len(found.worker_ids)) == ("running", 1)
        assert (found.busy_lanes, found.claimed) == (1, 1)
        assert found.rss is not None
        assert lane.rss is not None
        assert found.rss > lane.rss > 1 << 20
        assert found.lanes is not None
        assert {other.lane: other.state for other in found.lanes} == {
            lane.lane: "running",
            1 - lane.lane: "idle",
        }
        assert [other.seconds for other in found.lanes if other.state == "idle"] == [None]
        assert (lane.flow_slug, lane.run_id, lane.step_slug, lane.attempt) == ("naps", run, "nap", 1)
        assert lane.seconds is not None
        assert 0 <= lane.seconds < 20
        assert os.path.exists(f"/proc/{lane.pid}")
    (found,) = workers(dsn)
    assert (found.state, found.busy_lanes, found.claimed, found.lanes) == ("stopped", 0, 0, [])


def test_lanes_are_told_to_be_idle_once_the_last_one_has_ended(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_record, "STATE_EVERY", 0.1)
    start(dsn, "naps", [1.0])

    def running() -> bool:
        return any(lane.state == "running" for each in workers(dsn) for lane in each.lanes or ())

    with threaded(Worker(settings(dsn, "naps"))):
        eventually(running, 20)
        monkeypatch.setattr(work_record, "STATE_EVERY", 600.0)  # nothing is told by the clock any more
        eventually(lambda: not running(), 10)


def test_other_executors_tell_as_much_as_is_known_of_their_lanes(dsn: str) -> None:
    run = start(dsn, "naps", [0.0, 0.3, 0.3])
    Worker(settings(dsn, "naps"), executor=factory("inline")).run(run_id=run)
    (found,) = workers(dsn)
    assert (found.executor, found.lane_count) == ("inline", 1)
    with adapted(dsn) as conn:
        times = {row.step_slug: row for row in recorded.item_times(conn, run)}
    assert {step: row.items for step, row in times.items()} == {"nap": 3, "count": 1}
    assert times["nap"].seconds >= 0.6


def test_a_worker_whose_reports_are_refused_works_on(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("drop function pgflow.report_worker")
        run = start(dsn, "chain", [1, 2, 3])
        with caplog.at_level("DEBUG", "pgflow_mp"):
            _, report = serve(dsn, "chain", run)
        assert report.run_status == "completed"
        assert [r for r in caplog.records if "is not recorded: function" in r.getMessage()]
        assert conn.execute("select count(*) from pgflow.step_times").fetchone() == (0,)


def test_what_fails_again_and_again_is_let_go(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("alter table pgflow.step_times add constraint never check (items < 0)")
        run = start(dsn, "chain", [1, 2, 3])
        _, report = serve(dsn, "chain", run)
        assert (report.run_status, report.unsettled) == ("completed", 0)
