"""Both ways to store a map, side by side: what is stored, what is compared, what is said."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from database_server import DatabaseServer

from pgflow_mp.bench import stored
from pgflow_mp.bench.arena import Arena, Timing, connected
from pgflow_mp.bench.findings import SuiteResult
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES, TASKS
from pgflow_mp.bench.suites import footprint, noop, open_transaction
from pgflow_mp.bench.suites.footprint import Left
from pgflow_mp.errors import PgflowError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def timing(seconds: float, parent: float = 0.0, server: float = 0.0) -> Timing:
    return Timing(0.1, seconds, parent, server, "")


def test_a_flow_s_maps_are_stored_as_told_and_a_change_is_noticed(dsn: str) -> None:
    with connected(dsn) as conn:
        for wanted in (RANGES, TASKS, RANGES):
            stored.store(conn, ["bench_map_map"], wanted)
            stored.check(conn, ["bench_map_map"], wanted)
        rows = conn.execute("select step_slug, storage from pgflow.step_policies order by 1").fetchall()
        assert rows == [("first", RANGES), ("second", RANGES)]
        conn.execute("update pgflow.step_policies set storage = null where step_slug = 'first'")
        with pytest.raises(PgflowError, match="not stored as ranges"):
            stored.check(conn, ["bench_map_map"], RANGES)


@pytest.mark.parametrize("how", [TASKS, RANGES])
def test_the_engine_alone_completes_a_run_of_either_kind(dsn: str, how: str) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import drains
    finally:
        sys.path.remove(str(BENCHMARKS))
    conn, worker_id = drains.prepare(dsn, how)
    with conn:
        if how == TASKS:
            assert drains.drain(conn, worker_id, list(range(700))) > 0
        else:
            assert drains.drain_ranges(conn, worker_id, 2500) > 0
        (output,) = conn.execute("select output from pgflow.runs").fetchone() or (None,)
        rows = conn.execute("select count(*) from pgflow.step_tasks").fetchone()
    assert rows == ((700,) if how == TASKS else (0,))
    assert output is not None


def test_the_open_transaction_keeps_what_dies(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create table public.t as select 1 as a")

        def dead_rows_left() -> int:
            conn.execute("update public.t set a = a + 1")
            conn.execute("vacuum public.t")
            row = conn.execute("select pg_stat_get_dead_tuples('public.t'::regclass)").fetchone()
            return int(row[0]) if row else -1

        assert dead_rows_left() == 0
        with open_transaction.open_transaction(dsn):
            assert dead_rows_left() == 1
            assert dead_rows_left() == 2
        assert dead_rows_left() == 0


def test_an_open_transaction_that_ended_too_soon_is_no_measurement(dsn: str) -> None:
    with (
        pytest.raises(psycopg.OperationalError),
        open_transaction.open_transaction(dsn),
        psycopg.connect(dsn) as conn,
    ):
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and backend_xid is not null"
        )


def test_no_op_items_are_compared_round_by_round_with_tasks_and_pool() -> None:
    result = SuiteResult("noop", "")
    timings = {TASKS: [timing(10.0), timing(40.0), timing(10.0)], RANGES: [timing(1.0, 0.5, 2.0)] * 3}
    timings[RANGES][1] = timing(4.0)
    noop._report(result, 1_000_000, timings, Samples((0.3, 1.2, 0.3)))
    bars = {bar.what: (bar.measured, bar.holds) for bar in result.bars}
    assert bars == {
        "no-op items/s, ranges / bare pool, chunks of 100": ("0.30", True),
        "no-op items/s: ranges / tasks": ("10.00", True),
    }
    (table,) = result.tables
    assert table.rows[1][-2:] == ("0.50 µs", "2.00 µs")


def test_one_storage_alone_has_no_ratio_to_the_other() -> None:
    result = SuiteResult("noop", "")
    noop._report(result, 1000, {RANGES: [timing(1.0)]}, Samples((0.2,)))
    assert [bar.holds for bar in result.bars] == [False]


def test_an_item_s_own_bytes_are_those_between_brackets_and_commas() -> None:
    assert footprint.own_bytes(b"[1,22,333]", 3) == 6
    assert footprint.own_bytes(b'["ab"]', 1) == 4


def test_what_an_item_leaves_is_counted_without_its_payload() -> None:
    runs = [Left(9_000, Counter(a=7_000, b=1_000), timing(1.0))] * 3
    bars = footprint._bars("integers", 100, 10.0, runs)
    assert [(bar.measured, bar.holds) for bar in bars] == [("80", True), ("70", True)]
    bars = footprint._bars("integers", 100, 9.0, runs)
    assert [(bar.measured, bar.holds) for bar in bars] == [("81", False), ("71", True)]


def test_tables_and_log_have_grown_by_what_a_run_leaves(server: DatabaseServer, dsn: str) -> None:
    arena = Arena(dsn, [])
    try:
        before, log = arena.disk_bytes(), arena.wal_bytes()
        arena.conn.execute(
            "insert into pgflow.flows (flow_slug) select 'f' || g from generate_series(1, 999) g"
        )
        grown = arena.disk_bytes() - before
        assert list(grown) == ["pgflow.flows"]
        assert 30_000 < grown["pgflow.flows"] < 500_000
        assert arena.wal_bytes() - log > 30_000
    finally:
        arena.close()


@pytest.mark.slow
def test_what_other_scratch_databases_cost_is_none_of_an_arena_s(server: DatabaseServer) -> None:
    stage = Stage(server.dsn, 1, True, 1e7, print)
    with stage.database() as ours, stage.database(with_schema=False) as others:
        arena = Arena(ours, [])
        try:
            costs = []
            for dsn in (ours, others):
                with connected(dsn) as conn:
                    before = arena.server_cpu()
                    conn.execute("select count(*) from generate_series(1, 1500000)")
                    costs.append(arena.server_cpu() - before)
            assert costs[0] > 0.05
            assert costs[1] < costs[0] / 2
        finally:
            arena.close()
