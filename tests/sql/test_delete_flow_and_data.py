"""``delete_flow_and_data`` (contract 4.7)."""

from __future__ import annotations

from .helpers import Db, flow, setup, start, step, work

TABLES = ["flows", "steps", "deps", "runs", "step_states", "step_tasks"]


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
