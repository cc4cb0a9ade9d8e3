"""Time limits that a database or a role has for its people: they end nothing of ours, and reach nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from poolers import pooled
from psycopg.conninfo import conninfo_to_dict
from worker_harness import compiled, output, serve, start

from pgflow_mp.client import Client
from pgflow_mp.db import connection

SLOW = """
create function public.slow() returns trigger language plpgsql as $$
begin perform pg_sleep(0.3); return new; end $$;
create trigger slow before update on pgflow.step_states for each row execute function public.slow();
"""
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")


@pytest.fixture
def hurried_dsn(dsn: str) -> str:
    """A database whose sessions end what takes 200 ms, where each step takes longer than that to settle."""
    compiled(dsn, "single")
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SLOW)
        for name in LIMITS:
            admin.execute(f"alter database {conninfo_to_dict(dsn)['dbname']} set {name} = '200ms'".encode())
    return dsn


@pytest.mark.slow
def test_a_run_whose_steps_take_longer_than_a_statement_may_completes(hurried_dsn: str) -> None:
    run_id = start(hurried_dsn, "single", "ann")
    serve(hurried_dsn, "single", run_id)
    assert output(hurried_dsn, run_id) == {"greet": {"greeting": "Hello ANN"}}


@pytest.fixture
def pooled_dsn(hurried_dsn: str, tmp_path: Path) -> Iterator[str]:
    """The same through a transaction pooler."""
    with pooled(hurried_dsn, tmp_path) as dsn:
        yield dsn


@pytest.mark.slow
def test_behind_a_transaction_pooler_limits_are_lifted_for_our_transactions_only(pooled_dsn: str) -> None:
    with connection.connect(pooled_dsn) as conn:
        assert conn.execute("select pg_sleep(0.4), 1").fetchone() == ("", 1)
        with conn.transaction():
            conn.execute("select pg_sleep(0.4)")
        with conn.pipeline(), conn.transaction():
            cursor = conn.execute("select pg_sleep(0.4), 2")
        assert cursor.fetchone() == ("", 2)
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("select 1 / 0")
        assert conn.execute("select 3").fetchone() == (3,)
    run_id = start(pooled_dsn, "single", "bob")
    serve(pooled_dsn, "single", run_id)
    assert output(pooled_dsn, run_id) == {"greet": {"greeting": "Hello BOB"}}
    with psycopg.connect(pooled_dsn, autocommit=True) as other:
        for _ in range(10):
            assert other.execute("show statement_timeout").fetchone() == ("200ms",)


@pytest.mark.slow
def test_loads_behind_a_transaction_pooler_are_not_cut_short(hurried_dsn: str, pooled_dsn: str) -> None:
    compiled(hurried_dsn, "chain")
    with psycopg.connect(hurried_dsn, autocommit=True) as admin:
        admin.execute(
            "create trigger slow before insert on pgflow.pages for each statement "
            "execute function public.slow()"
        )
    items = [[n, "x" * 300] for n in range(3000)]
    with Client(pooled_dsn) as client:
        runs = {client.start("chain", iter(items), key="k").run_id for _ in range(2)}
    with psycopg.connect(hurried_dsn) as admin:
        found = admin.execute("select run_id::text, items from pgflow.loads").fetchall()
    assert found == [(run_id, 3000) for run_id in runs]
