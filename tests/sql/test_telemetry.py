"""``report_worker`` and what it told: each report once, each process its own, bounded, gone with its run."""

from __future__ import annotations

import contextlib
import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgflow_mp import time_buckets

from .helpers import WORKER, Db, flow, map_step, start, worker
from .test_flow_grants import ROLE, acting
from .test_prune_data_older_than import finished

PROCESS, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
ABOUT = {"host": "box", "pid": 7, "version": "1", "executor": "lanes", "lanes": 2, "flows": ["f"], "age": 3}


def times(run: uuid.UUID, step: str = "m", **given: Any) -> dict[str, Any]:
    return {
        "run": str(run), "step": step, "items": 3, "failed": 1, "seconds": 0.5, "counts": [0, 1, 2],
        "indexes": [5, 6], "slowest": [0.3, 0.1], "age": 2, **given,
    }  # fmt: skip


def span(run: uuid.UUID, start: float = 2.0, end: float = 1.0, **given: Any) -> dict[str, Any]:
    return {
        "run": str(run), "step": "m", "lane": 0, "index": 4, "items": 3, "failed": 0, "outcome": "completed",
        "seconds": 0.5, "start": start, "end": end, **given,
    }  # fmt: skip


def report(
    db: Db, number: int, *, process: uuid.UUID = PROCESS, worker_id: uuid.UUID = WORKER, **given: Any
) -> Any:
    about = {**ABOUT, **given.pop("about", {})}
    state = given.get("state")
    return db.value(
        "select pgflow.report_worker(%s, %s, %s, %s, %s, %s, %s)",
        process,
        number,
        [worker_id],
        Jsonb(about),
        None if state is None else Jsonb(state),
        Jsonb(given.get("times", [])),
        Jsonb(given.get("spans", [])),
    )


@contextlib.contextmanager
def limited_worker(db: Db) -> Iterator[None]:
    """For as long the role has the access "worker" to flow f, in a database that keeps what is done."""
    db.do(f"create role {ROLE}")
    try:
        db.do("select pgflow.grant_access(%s, 'worker', flows => array['f'])", ROLE)
        yield
    finally:
        db.do("delete from pgflow.flow_grants")
        db.do(f"drop owned by {ROLE}")
        db.do(f"drop role {ROLE}")


@pytest.fixture
def run(db: Db) -> uuid.UUID:
    flow(db, "f", map_step("m"), "s")
    worker(db, "f", WORKER)
    return start(db, "f", [1, 2, 3])


def test_the_edges_of_buckets_are_the_same_in_sql_and_python(db: Db) -> None:
    edges = db.column("select pgflow.time_bucket_edge(n) from generate_series(0, 87) n")
    assert edges == pytest.approx(time_buckets.EDGES, rel=1e-12)
    assert len(time_buckets.EDGES) == time_buckets.BUCKETS
    for bucket, edge in enumerate(edges):
        assert time_buckets.bucket_of(edge * 1.01) == bucket
    assert (time_buckets.bucket_of(0.0), time_buckets.bucket_of(1e9)) == (0, 87)
    assert time_buckets.quantile([0] * 48 + [100], 0.5) == pytest.approx(10 ** (0.5 / 8))
    assert time_buckets.quantile([], 0.5) is None
    assert time_buckets.quantile([1] + [0] * 23 + [99], 0.0) == pytest.approx(1e-6)


def test_each_report_counts_once_and_workers_are_added_up(db: Db, run: uuid.UUID) -> None:
    other = uuid.uuid4()
    worker(db, "f", other)
    for _ in range(2):
        assert report(db, 1, times=[times(run)], spans=[span(run)]) is True
    report(db, 2, times=[times(run, counts=[1], indexes=[5, 9], slowest=[0.2, 0.7])])
    report(db, 1, process=OTHER, worker_id=other, times=[times(run, indexes=[1], slowest=[9.0])])
    row = db.row("select * from pgflow.item_times(%s)", run)
    assert (row.step_slug, row.processes, row.items, row.failed, row.seconds) == ("m", 2, 9, 3, 1.5)
    assert row.counts == [1, 2, 4]
    slow = db.rows("select * from pgflow.slowest_items(%s, 'm')", run)
    assert [(r.item_index, r.seconds) for r in slow] == [(1, 9.0), (9, 0.7), (5, 0.3), (6, 0.1)]
    assert len(db.rows("select * from pgflow.slowest_items(%s, null, 2)", run)) == 2
    found = db.row("select * from pgflow.run_spans(%s)", run)
    assert (found.process_id, found.host, found.pid, found.first_index) == (PROCESS, "box", 7, 4)
    assert (found.ended_at - found.started_at).total_seconds() == pytest.approx(1.0)


def test_nothing_is_told_before_the_worker_is_registered(db: Db, run: uuid.UUID) -> None:
    nobody = uuid.uuid4()
    assert report(db, 1, process=OTHER, worker_id=nobody, times=[times(run)]) is False
    assert db.rows("select * from pgflow.worker_processes") == []
    worker(db, "f", nobody)
    assert report(db, 1, process=OTHER, worker_id=nobody, times=[times(run)]) is True
    assert db.row("select * from pgflow.item_times(%s)", run).items == 3


def test_what_is_too_much_is_cut(db: Db, run: uuid.UUID) -> None:
    lanes = [
        {"lane": n, "pid": n, "flow": "f" * 999, "step": "s" * 999, "since": 1e300} for n in range(-1, 1030)
    ]
    about = {"host": "h" * 9999, "version": "v" * 99, "labels": ["l" * 999] * 99, "flows": ["f" * 999] * 999}
    state = {"lanes": 2, "lane_states": lanes}
    many = times(run, counts=[1] * 500, indexes=[*range(500)], slowest=[*range(500)])
    assert report(db, 1, about=about, state=state, times=[many, times(run, "no such step")]) is True
    row = db.row("select * from pgflow.worker_processes")
    assert (len(row.host), len(row.version), len(row.labels), len(row.flows)) == (200, 50, 50, 200)
    assert max(map(len, row.labels + row.flows)) <= 128
    assert len(row.lane_states) == 1024
    assert len(row.lane_states[0]["step"]) == 128
    row = db.row("select * from pgflow.step_times")
    assert (len(row.counts), len(row.slowest_indexes)) == (88, 10)


def test_arrays_of_two_dimensions_are_no_way_around_that(db: Db, run: uuid.UUID) -> None:
    about = {"labels": [["l"] * 99] * 50, "flows": [["f"] * 99] * 200}
    wide = [times(run, "m", **{name: [[1] * 99] * 10}) for name in ("counts", "indexes", "slowest")]
    assert report(db, 1, about=about, times=wide) is True
    row = db.row("select * from pgflow.worker_processes")
    assert (len(row.labels), len(row.flows)) == (50, 200)
    assert db.rows("select * from pgflow.step_times") == []


@pytest.mark.parametrize("steps", [["m"], ["m", "s"]])
def test_a_run_keeps_some_thousands_of_spans_that_still_add_up(
    db: Db, run: uuid.UUID, steps: list[str]
) -> None:
    total = 0
    for number in range(6):
        spans = [
            span(run, start=1000 - n / 10 - number * 100, end=999.95 - n / 10 - number * 100,
                 lane=n % 4, step=steps[n % len(steps)], outcome="failed" if n == 500 else "completed")
            for n in range(1000)
        ]  # fmt: skip
        report(db, number + 1, spans=spans)
        total += 1000
    rows = db.rows("select * from pgflow.run_spans(%s)", run)
    assert len(rows) <= 4000
    assert sum(row.items for row in rows) == 3 * total
    assert sum(row.seconds for row in rows) == pytest.approx(0.5 * total)
    assert {row.outcome for row in rows} == {"completed", "failed"}
    assert len({row.lane for row in rows}) == 4
    lengths = [(row.ended_at - row.started_at).total_seconds() for row in rows]
    assert max(lengths) < 3


def test_a_limited_role_goes_on_with_no_process_of_another_role(db: Db, run: uuid.UUID) -> None:
    flow(db, "g", map_step("m"))
    theirs = uuid.uuid4()
    worker(db, "g", theirs)
    other = start(db, "g", [1])
    report(db, 1, process=OTHER, worker_id=theirs, about={"flows": ["f", "g"]})
    busy = {"lanes": 2, "lane_states": [
        {"lane": 0, "pid": 5, "flow": "g", "run": str(other), "step": "m", "index": 0, "since": 1},
        {"lane": 1, "pid": 6, "flow": "f", "run": str(run), "step": "m", "index": 1, "since": 1},
    ]}  # fmt: skip
    report(db, 2, process=OTHER, worker_id=theirs, state=busy)
    second = uuid.uuid4()
    worker(db, "f", second)
    report(db, 3, process=OTHER, worker_id=second)
    db.do(f"create role {ROLE}")
    for access in ("worker", "starter"):
        db.do("select pgflow.grant_access(%s, %s, flows => array['f'])", ROLE, access)
    before = db.rows("select * from pgflow.worker_processes order by 1")
    with acting(db):
        assert report(db, 99, process=OTHER, worker_id=theirs, times=[times(run)]) is False
        assert report(db, 99, process=OTHER, times=[times(run)]) is False
        (shown,) = db.rows("select * from pgflow.worker_processes(array[%s, %s])", theirs, second)
        assert report(db, 1, times=[times(run), times(other)], spans=[span(other)], state=busy) is True
    assert shown.flows == ["f"]
    assert [lane.get("run") for lane in shown.lane_states] == [None, str(run)]
    assert [
        row for row in db.rows("select * from pgflow.worker_processes order by 1") if row.process_id == OTHER
    ] == before
    assert db.rows("select * from pgflow.item_times(%s)", other) == []
    assert db.rows("select * from pgflow.run_spans(%s)", other) == []
    own = db.row("select * from pgflow.worker_processes where process_id = %s", PROCESS)
    assert (own.role_name, [lane["lane"] for lane in own.lane_states]) == (ROLE, [1])
    assert db.row("select * from pgflow.item_times(%s)", run).items == 3


def test_a_limited_role_keeps_nothing_of_others_locked(alone: Db, beside: Db) -> None:
    for slug, each in (("f", WORKER), ("g", OTHER)):
        flow(alone, slug, map_step("m"))
        worker(alone, slug, each)
    theirs = start(alone, "g", [1])
    assert report(alone, 1, process=OTHER, worker_id=OTHER) is True
    with limited_worker(alone):
        with acting(beside):  # in a transaction that is open
            assert report(beside, 99, process=OTHER) is False
            assert report(beside, 1, times=[times(theirs)], spans=[span(theirs)]) is True
        alone.do("set lock_timeout = '100ms'")
        assert report(alone, 2, process=OTHER, worker_id=OTHER) is True
        alone.do("select from pgflow.runs where run_id = %s for update", theirs)  # as whoever settles
        alone.do("delete from pgflow.workers where worker_id = %s", OTHER)
        beside.conn.rollback()


def told(db: Db) -> list[int]:
    return [db.value(f"select count(*) from pgflow.{name}") for name in ("step_times", "lane_spans")]


@pytest.mark.parametrize("how", ["remove", "prune", "old prune", "delete flow", "by hand", "truncate"])
def test_it_goes_with_the_run_however_that_goes(db: Db, how: str) -> None:
    old = finished(db, 8, "completed")
    slug = db.value("select flow_slug from pgflow.runs where run_id = %s", old)
    step = db.value("select step_slug from pgflow.step_states where run_id = %s limit 1", old)
    worker(db, slug, WORKER)
    report(db, 1, times=[times(old, step)], spans=[span(old, n + 1, n, step=step) for n in range(30)])
    assert told(db) == [1, 30]
    if how == "remove":
        for _ in range(20):
            if db.row("select * from pgflow.remove_run(%s, 7)", old).is_done:
                break
    elif how == "prune":
        for _ in range(20):
            if db.row("select * from pgflow.prune_runs('7 days', null, 7)").is_done:
                break
    elif how == "old prune":
        db.do("select pgflow.prune_data_older_than('7 days')")
    elif how == "delete flow":
        db.do("select pgflow.delete_flow_and_data(%s)", slug)
    elif how == "by hand":
        db.do("delete from pgflow.step_tasks")
        db.do("delete from pgflow.step_states")
        db.do("delete from pgflow.runs")
    else:
        db.do("truncate pgflow.runs cascade")
    assert told(db) == [0, 0]
    assert db.value("select count(*) from pgflow.leavings") == 0


def test_a_pruned_run_of_a_deleted_flow_leaves_no_spans(db: Db) -> None:
    old = finished(db, 8, "completed")
    slug, step = db.row(
        "select flow_slug, step_slug from pgflow.step_states where run_id = %s limit 1", old
    ).__dict__.values()
    worker(db, slug, WORKER)
    report(db, 1, spans=[span(old, step=step)])
    db.do("select pgflow.prune_runs('7 days')")
    assert told(db) == [0, 1]
    db.do("select pgflow.delete_flow_and_data(%s)", slug)
    assert told(db) == [0, 0]


def test_nothing_comes_after_a_run_is_gone(db: Db, run: uuid.UUID) -> None:
    report(db, 1, times=[times(run)])
    db.do("select pgflow.cancel_run(%s)", run)
    db.do("select pgflow.remove_run(%s)", run)
    assert report(db, 2, times=[times(run)], spans=[span(run)]) is True
    assert told(db) == [0, 0]


def test_a_process_goes_with_the_last_of_its_ids(db: Db, run: uuid.UUID) -> None:
    second = uuid.uuid4()
    worker(db, "f", second)
    report(db, 1)
    report(db, 2, worker_id=second, times=[times(run)])
    db.do("delete from pgflow.workers where worker_id = %s", WORKER)
    assert db.value("select count(*) from pgflow.worker_processes") == 1
    db.do("delete from pgflow.workers")
    assert db.value("select count(*) from pgflow.worker_processes") == 0
    assert db.row("select * from pgflow.item_times(%s)", run).items == 3  # the run's


@pytest.mark.parametrize(
    "bad",
    [
        {"times": [{"run": "x"}]}, {"times": [None]}, {"times": {}}, {"spans": [{"lane": "x"}]},
        {"state": {"lane_states": [{"lane": 1e99}]}}, {"times": [{"run": str(PROCESS), "counts": "x"}]},
    ],
)  # fmt: skip
def test_nonsense_is_refused_or_ignored_and_harms_nothing(
    db: Db, run: uuid.UUID, bad: dict[str, Any]
) -> None:
    with contextlib.suppress(psycopg.DataError), db.savepoint():
        report(db, 1, **bad)
    assert told(db) == [0, 0]
    assert report(db, 2, times=[times(run, seconds=math.pi)]) is True
    assert json.dumps(db.row("select * from pgflow.item_times(%s)", run).seconds) == "3.141592653589793"
