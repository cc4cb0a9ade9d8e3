"""Reports reach their rows through indexes, and as many as a page has: among thousands of runs and of items.

PostgreSQL's own counters of the running transaction tell how the rows were reached. Messages of a queue,
which holds open tasks only, may be looked through (half a microsecond each): their index has no order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgflow_mp.db import engine, wire
from pgflow_mp.observe import read_reports

RUNS = 2000
ITEMS = 30_000
WAITING = 40
WORKER = "11111111-1111-1111-1111-111111111111"
FILL = f"""
insert into pgflow.runs (flow_slug, input, status, started_at, completed_at, failed_at)
select 'f' || i % 4, '[]', case when i % 10 = 0 then 'failed' else 'completed' end,
  now() - interval '9 days' + make_interval(secs => i),
  case when i % 10 <> 0 then now() + interval '1 day' end,
  case when i % 10 = 0 then now() + interval '1 day' end
from generate_series(1, {RUNS}) i;
insert into pgflow.step_states (
  flow_slug, run_id, step_slug, status, initial_tasks, remaining_tasks, started_at, failed_tasks
)
select r.flow_slug, r.run_id, 'm', 'started', 10, 4, now(), 1 from pgflow.runs r where r.flow_slug <> 'big';
insert into pgflow.run_tags select r.run_id, 'often', r.started_at from pgflow.runs r;
insert into pgflow.run_tags select r.run_id, 'rare', r.started_at from pgflow.runs r
where r.run_id::text < '02';
insert into pgflow.cancelled_runs select r.run_id, r.failed_at from pgflow.runs r
where r.failed_at is not null and r.run_id::text < '4';
"""
TABLES = ("runs", "step_states", "step_tasks", "step_counts", "run_tags", "cancelled_runs")


class Filled:
    """Flows f0 to f3 with 2,000 runs, and "big" with a map in tasks of 30,000 items, some of which wait."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        wire.adapt(conn)
        for slug in ("f0", "f1", "f2", "f3", "big"):
            conn.execute("select pgflow.create_flow(%s, max_attempts => 3, base_delay => 1000)", (slug,))
            conn.execute("select pgflow.add_step(%s, 'm', step_type => 'map')", (slug,))
        engine.register_worker(conn, WORKER, "big", "test", 10)
        self.run = engine.start_flow(conn, "big", str(list(range(ITEMS))).encode())
        conn.execute("select pgflow._spawn_tasks('big', %s, 'm', 20000, %s)", (self.run, ITEMS))
        conn.execute("update pgflow.step_states set spawned_tasks = %s", (ITEMS,))
        held = engine.claim_tasks(conn, "big", WORKER, WAITING)
        indexes, attempts = [task.task_index for task in held], [task.attempt for task in held]
        errors, permanent = ["no"] * WAITING, [False] * WAITING
        engine.fail_tasks(conn, self.run, "m", indexes, errors, WORKER, attempts, permanent)
        conn.execute(FILL.encode())

    def counters(self) -> dict[str, tuple[int, int]]:
        rows = self.conn.execute(
            "select relname, coalesce(seq_tup_read, 0), coalesce(idx_tup_fetch, 0)"
            " from pg_stat_xact_user_tables where relname = any (%s)",
            ([*TABLES],),
        ).fetchall()
        return {name: (sequential, fetched) for name, sequential, fetched in rows}

    def cost(self, read: Callable[[psycopg.Connection[Any]], object]) -> tuple[set[str], int]:
        """The tables that were read from one end to the other, and how many rows were fetched from any."""
        before = self.counters()
        read(self.conn)
        spent = {
            name: (now[0] - before.get(name, (0, 0))[0], now[1] - before.get(name, (0, 0))[1])
            for name, now in self.counters().items()
        }
        return {name for name, (sequential, _) in spent.items() if sequential > 100}, sum(
            fetched for _, fetched in spent.values()
        )


@pytest.fixture(scope="module")
def _made(_shared: str) -> Iterator[Filled]:
    with psycopg.connect(_shared) as conn:
        yield Filled(conn)
        conn.rollback()


@pytest.fixture(params=["no statistics", "fresh statistics"])
def filled(_made: Filled, request: pytest.FixtureRequest) -> Iterator[Filled]:
    _made.conn.execute("savepoint made")
    if request.param == "fresh statistics":
        for table in TABLES:
            _made.conn.execute(f"analyze pgflow.{table}".encode())
        _made.conn.execute("analyze pgmq.q_big")
    _made.conn.execute("discard plans")
    yield _made
    _made.conn.execute("rollback to savepoint made")


def test_a_page_of_runs_reads_what_is_on_it(filled: Filled) -> None:
    newest = read_reports.read_runs(filled.conn, 1000)
    middle = read_reports.mark_of(newest[-1])
    assert len(newest) == 1000
    reads: list[dict[str, Any]] = [
        {},
        {"before": middle},
        {"flow": "f3", "before": middle},
        {"tags": ["rare"]},
        {"tags": ["often", "rare"]},
        {"since": newest[500].started_at, "until": newest[100].started_at},
        {"key": "none"},
        {"states": ["completed_with_failures"], "before": middle},
        {"states": ["failed"]},
    ]
    for asked in reads:
        read = functools.partial(read_reports.read_runs, limit=10, **asked)
        whole, fetched = filled.cost(read)
        assert (whole, fetched < 1000) == (set(), True), (asked, whole, fetched)


def test_a_run_and_its_items_are_told_without_counting_them(filled: Filled) -> None:
    run = read_reports.read_run(filled.conn, filled.run)
    assert run is not None
    assert (run.counts.items, run.counts.waiting, run.counts.attempts) == (ITEMS, WAITING, WAITING)
    for read in (
        lambda conn: read_reports.read_run(conn, filled.run),
        lambda conn: read_reports.read_items(conn, filled.run, "m", 20, start=ITEMS // 2),
        lambda conn: read_reports.read_items(conn, filled.run, "m", 20, statuses=["queued"]),
        read_reports.read_flows,
        read_reports.read_workers,
    ):
        whole, fetched = filled.cost(read)
        assert (whole, fetched < 20 * WAITING) == (set(), True), (read, whole, fetched)
