"""A worker's own run is found by an index, however much of others comes before it, whatever the statistics.

As in test_plans: PostgreSQL's counters of the running transaction tell how rows were reached.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg
import pytest

from pgflow_mp.db import engine

from .helpers import Db, map_step, start
from .range_work import ranges_flow
from .test_own_run_first import own, shares
from .test_plans import EMPTY, ROWS, STATISTICS, WORKER, Big

ME = uuid.UUID(WORKER)
MINE = 5000
BATCH = 500
TABLES = ("step_tasks", "step_states", "runs", "range_maps", "ranges", "q_f", "q_g")
OTHER_MAPS = """
insert into pgflow.runs (run_id, flow_slug, input, remaining_steps)
select md5(i::text)::uuid, 'g', '[]', 1 from generate_series(1, 3000) i;
insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks, remaining_tasks,
  started_at, remaining_deps)
select 'g', md5(i::text)::uuid, 'm', 'started', 20, 20, now(), 0 from generate_series(1, 3000) i;
insert into pgflow.range_maps (run_id, step_slug, flow_slug, items)
select md5(i::text)::uuid, 'm', 'g', 20 from generate_series(1, 3000) i;
"""


class Crowd(NamedTuple):
    """100,000 messages of another run, then 5000 of ours; 3000 open maps of other runs, and one of ours."""

    db: Db
    in_tasks: str
    in_ranges: str

    def costs(self, work: Callable[[], object]) -> dict[str, tuple[int, int]]:
        query = (
            "select relname, coalesce(seq_tup_read, 0) as seq, coalesce(idx_tup_fetch, 0) as idx"
            " from pg_stat_xact_user_tables"
        )
        before = {row.relname: (row.seq, row.idx) for row in self.db.rows(query)}
        work()
        after = {row.relname: (row.seq, row.idx) for row in self.db.rows(query)}
        return {
            name: (after[name][0] - before.get(name, (0, 0))[0], after[name][1] - before.get(name, (0, 0))[1])
            for name in TABLES
            if name in after
        }


@pytest.fixture(scope="module")
def _made(_shared: str) -> Iterator[Crowd]:
    """Made once, in a transaction that is rolled back; each test goes back to how it was."""
    with psycopg.connect(_shared) as conn:
        Big(conn)
        db = Db(conn)
        mine = engine.start_flow(conn, "f", str(list(range(MINE))).encode())
        ranges_flow(db, "g", map_step("m"))
        engine.register_worker(conn, str(uuid.uuid4()), "g", "test", 10)
        db.do(OTHER_MAPS)
        yield Crowd(db, mine, str(start(db, "g", list(range(MINE)))))
        conn.rollback()


@pytest.fixture(params=[*STATISTICS, EMPTY])
def crowd(_made: Crowd, request: pytest.FixtureRequest) -> Iterator[Crowd]:
    conn = _made.db.conn
    conn.execute("savepoint made")
    if request.param == "fresh statistics":
        for name in ("step_tasks", "step_states", "runs", "range_maps", "ranges"):
            conn.execute(f"analyze pgflow.{name}".encode())
        conn.execute("analyze pgmq.q_f")
    elif request.param == EMPTY:
        conn.execute(
            "update pg_class set reltuples = 0, relpages = 200"
            " where relnamespace in ('pgmq'::regnamespace, 'pgflow'::regnamespace) and relname = any (%s)",
            (list(TABLES),),
        )
    conn.execute("discard plans")
    yield _made
    conn.execute("rollback to savepoint made")
    conn.execute("discard plans")


@pytest.mark.parametrize("only", [False, True])
def test_own_items_are_found_by_index_behind_a_hundred_thousand_of_others(crowd: Crowd, only: bool) -> None:
    db = crowd.db

    def in_tasks() -> None:
        assert shares(own(db, crowd.in_tasks, BATCH, only=only, worker=ME)) == {crowd.in_tasks: BATCH}

    def in_ranges() -> None:
        assert shares(own(db, crowd.in_ranges, BATCH, only=only, worker=worker, slug="g")) == {
            crowd.in_ranges: BATCH
        }

    worker = db.value("select worker_id from pgflow.workers where queue_name = 'g'")
    for name, work, most in (("tasks", in_tasks, 8 * BATCH), ("ranges", in_ranges, 100)):
        for _ in range(3):
            for table, (sequential, fetched) in crowd.costs(work).items():
                assert sequential == 0, f"a claim in {name} reads {table} sequentially"
                assert fetched <= most, f"a claim in {name} fetches {fetched} rows of {table}"


def test_the_last_retry_of_the_own_run_is_found_without_reading_the_others(crowd: Crowd) -> None:
    db = crowd.db
    assert shares(own(db, crowd.in_tasks, MINE, only=True, worker=ME)).total() == MINE
    db.do(
        "select pgflow.complete_tasks(%s, 'm', array_agg(i), array_agg(to_jsonb(i)))"
        " from generate_series(1, %s) i",
        *(crowd.in_tasks, MINE - 1),
    )
    message = db.value(
        "select message_id from pgflow.step_tasks where run_id = %s and task_index = 0", crowd.in_tasks
    )
    db.do("select pgflow.release_tasks('f', %s, array[%s])", ME, message)
    found = []
    costs = crowd.costs(lambda: found.extend(own(db, crowd.in_tasks, only=True, worker=ME)[0].tasks))
    assert [task.task_index for task in found] == [0]
    for table, (sequential, fetched) in costs.items():
        assert sequential == 0, f"{table} is read sequentially"
        assert fetched <= 3 * MINE < ROWS, f"{fetched} rows of {table} are fetched"
    assert costs["q_f"][1] <= 100


def test_a_starved_claim_of_nothing_else_reads_next_to_nothing(crowd: Crowd) -> None:
    nobody = uuid.uuid4()
    for slug in ("f", "g"):
        costs = crowd.costs(
            lambda slug=slug: own(crowd.db, nobody, only=True, worker=ME, slug=slug)  # type: ignore[misc]
        )
        assert all(sequential == 0 and fetched <= 20 for sequential, fetched in costs.values()), costs
