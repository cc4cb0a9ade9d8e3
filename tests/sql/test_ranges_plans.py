"""Hot statements on maps in ranges reach their rows through an index, whatever the statistics say.

As in test_plans: PostgreSQL's counters of the running transaction tell how rows were reached. The tables hold
100,000 ranges and pages of other runs, and thousands of other maps and steps.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from .helpers import WORKER, Db
from .range_work import OTHER, claim_work, complete_parts, dies, fail_items, mapped, release

TABLES = ("range_maps", "ranges", "pages", "step_states", "step_tasks", "runs")
OTHERS = """
insert into pgflow.runs (run_id, flow_slug, input, remaining_steps, status, started_at, failed_at)
select md5(i::text)::uuid, 'f', '[]', 1, 'failed', now(), now() from generate_series(1, 5000) i;
insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks, remaining_tasks,
  started_at, failed_at, remaining_deps)
select 'f', md5(i::text)::uuid, 'm', 'failed', 20, 20, now(), now(), 0 from generate_series(1, 5000) i;
insert into pgflow.range_maps (run_id, step_slug, flow_slug, items, next_index, is_open)
select md5(i::text)::uuid, 'm', 'f', 20, 20, false from generate_series(1, 5000) i;
insert into pgflow.ranges (run_id, step_slug, first_index, end_index, lease_no, worker_id, leased_at)
select md5(i::text)::uuid, 'm', j, j + 1, 1, case when i > 4000 then md5(i::text)::uuid end, now()
from generate_series(1, 5000) i, generate_series(0, 19) j;
insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)
select md5(i::text)::uuid, 'm', j > 9, j, 1, '[1]' from generate_series(1, 5000) i, generate_series(0, 19) j;
"""
ITEMS = 20_000


@pytest.fixture(scope="module")
def _made(_shared: str) -> Iterator[tuple[psycopg.Connection[Any], uuid.UUID]]:
    """Made once, in a transaction that is rolled back; each test goes back to how it was."""
    with psycopg.connect(_shared) as tx:
        run = mapped(Db(tx), ITEMS)
        tx.execute(OTHERS)
        yield tx, run
        tx.rollback()


@pytest.fixture(params=["no statistics", "fresh statistics", "statistics of empty tables"])
def many(
    _made: tuple[psycopg.Connection[Any], uuid.UUID], request: pytest.FixtureRequest
) -> Iterator[tuple[psycopg.Connection[Any], uuid.UUID]]:
    tx, run = _made
    tx.execute("savepoint made")
    names = ", ".join(f"pgflow.{name}" for name in TABLES)
    if request.param == "fresh statistics":
        tx.execute(f"analyze {names}".encode())
    elif request.param == "statistics of empty tables":
        tx.execute(
            "update pg_class set reltuples = 0, relpages = 200"
            " where relnamespace = 'pgflow'::regnamespace and relname = any (%s)",
            (list(TABLES),),
        )
    tx.execute("discard plans")
    yield tx, run
    tx.execute("rollback to savepoint made")
    tx.execute("discard plans")


def counters(db: Db) -> dict[str, tuple[int, int]]:
    rows = db.rows(
        "select relname, coalesce(seq_tup_read, 0) as seq, coalesce(idx_tup_fetch, 0) as idx"
        " from pg_stat_xact_user_tables where schemaname = 'pgflow'"
    )
    return {r.relname: (r.seq, r.idx) for r in rows if r.relname in TABLES}


def test_every_hot_call_reaches_its_rows_by_index(many: tuple[psycopg.Connection[Any], uuid.UUID]) -> None:
    db, run = Db(many[0]), many[1]
    parts = [(1, first, 1000) for first in range(0, 5000, 1000)]
    calls: dict[str, Callable[[], object]] = {
        "claim": lambda: claim_work(db, 10_000),
        "complete": lambda: complete_parts(db, run, parts),
        "fail": lambda: fail_items(db, run, list(range(5000, 5100))),
        "release": lambda: release(db, run, [(1, i, 1) for i in range(6000, 6100, 2)]),
        "claim what came back": lambda: claim_work(db, 100, OTHER),
        "pages": lambda: db.rows("select * from pgflow.range_pages(%s, 'm', 5000, 10)", run),
        "take over": lambda: dies(db, WORKER),
        "claim what was taken over": lambda: claim_work(db, 10_000, OTHER),
    }
    most = {"fail": 3500, "take over": 700, "release": 700, "claim what was taken over": 700}
    for name, call in calls.items():
        before = counters(db)
        call()
        for table, (seq, idx) in counters(db).items():
            was = before.get(table, (0, 0))
            assert seq == was[0], f"{name} reads {table} sequentially"
            assert idx - was[1] <= most.get(name, 250), f"{name} fetches {idx - was[1]} rows of {table}"


def test_no_look_up_grows_with_the_versions_that_an_open_transaction_keeps(
    conn: psycopg.Connection[Any], dsn: str
) -> None:
    """After 300 leases a call reads a few index entries: what changes is looked for as seldom as can be."""
    db = Db(conn)
    run = mapped(db, 10_000)
    reads = (
        "select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes where schemaname = 'pgflow'"
        " and relname = any (%s)"
    )

    def read(*tables: str) -> int:
        db.do("select pg_stat_force_next_flush()")
        db.do("select pg_stat_clear_snapshot()")
        count: int = db.value(reads, list(tables))
        return count

    with psycopg.connect(dsn) as other:
        other.execute("set transaction isolation level repeatable read")
        other.execute("select 1 from pgflow.runs")
        for _ in range(300):
            (lease,) = claim_work(db, 10, qty=0).leases
            complete_parts(db, run, [(lease.lease_no, lease.first, lease.items)])
        before = read("range_maps"), read("ranges")
        (lease,) = claim_work(db, 10, qty=0).leases
        claimed = read("range_maps") - before[0]
        complete_parts(db, run, [(lease.lease_no, lease.first, lease.items)])
        assert claimed <= 12
        assert read("ranges") - before[1] <= 12
        other.rollback()
