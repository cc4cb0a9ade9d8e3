"""``delete_flow_and_data`` (contract 4.7)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from .helpers import WORKER, Db, flow, setup, start, step, work

TABLES = ["flows", "steps", "deps", "runs", "step_states", "step_tasks"]


READS = {
    "steps of reports": "select pgflow.list_steps(array[%(run)s]::uuid[])",
    "activity": "select pgflow.flow_activity(array['sequential'], now())",
    "when it is due": "select pgflow._due_in(%(run)s, 'first', 0)",
    "tasks of the dead": "select pgflow._tasks_held('sequential', array[%(worker)s]::uuid[])",
    "tasks handed out": "select pgflow._find_handed_out('sequential')",
}
"""What reads a queue and locks no run before; all return what else there is."""


def counts(db: Db, slug: str) -> list[int]:
    return [db.value(f"select count(*) from pgflow.{t} where flow_slug = %s", slug) for t in TABLES]


def test_a_flow_goes_with_everything_that_belongs_to_it(db: Db) -> None:
    setup(db, "sequential")
    start(db, "sequential")
    work(db, "sequential")
    start(db, "sequential")
    db.do("select pgflow.delete_flow_and_data('sequential')")
    assert counts(db, "sequential") == [0] * 6
    assert db.value("select to_regclass('pgmq.q_sequential')") is None
    assert db.value("select to_regclass('pgmq.a_sequential')") is None


def test_other_flows_stay(db: Db) -> None:
    setup(db, "sequential")
    setup(db, "two_roots")
    start(db, "sequential")
    start(db, "two_roots")
    before = counts(db, "two_roots")
    db.do("select pgflow.delete_flow_and_data('sequential')")
    assert counts(db, "two_roots") == before
    assert db.value("select count(*) from pgmq.q_two_roots") == 2


def test_a_missing_queue_or_flow_is_no_error(db: Db) -> None:
    setup(db, "sequential")
    db.do("select pgmq.drop_queue('sequential')")
    db.do("select pgflow.delete_flow_and_data('sequential')")
    db.do("select pgflow.delete_flow_and_data('nope')")
    assert counts(db, "sequential") == [0] * 6


def test_the_slug_is_free_for_a_new_flow(db: Db) -> None:
    flow(db, "f", "a", step("b", "a"))
    start(db, "f")
    db.do("select pgflow.delete_flow_and_data('f')")
    flow(db, "f", "z")
    start(db, "f")
    assert db.column("select step_slug from pgflow.step_states where flow_slug = 'f'") == ["z"]


def test_a_mixed_case_flow_loses_its_queue_too(db: Db) -> None:
    flow(db, "MixedCase", "a")
    db.do("select pgflow.delete_flow_and_data('MixedCase')")
    assert db.value("select to_regclass('pgmq.q_mixedcase')") is None
    assert db.column("select queue_name from pgmq.list_queues()") == []


@pytest.fixture
def connections(dsn: str) -> Iterator[list[psycopg.Connection]]:
    conns = [psycopg.connect(dsn, autocommit=True) for _ in range(3)]
    yield conns
    for conn in conns:
        conn.close()


@pytest.mark.parametrize("read", READS)
def test_what_reads_a_queue_that_is_being_dropped_finds_nothing_in_it(
    connections: list[psycopg.Connection], read: str
) -> None:
    deleting, reading, watching = connections
    db = Db(watching)
    setup(db, "sequential")
    run = start(db, "sequential")
    with ThreadPoolExecutor(1) as pool:
        with deleting.transaction():
            deleting.execute("select pgflow.delete_flow_and_data('sequential')")
            values = {"run": run, "worker": WORKER}
            asked = pool.submit(lambda: reading.execute(READS[read], values).rowcount)
            waits = "select wait_event_type from pg_stat_activity where pid = %s"
            while db.value(waits, reading.info.backend_pid) != "Lock":
                assert not asked.done(), "it was to wait for the queue"
        assert asked.result(10) >= 0
