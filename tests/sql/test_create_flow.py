"""``create_flow`` (contract 4.1)."""

from __future__ import annotations

import pytest

from .helpers import Db, Row, claim, complete, flow, queue, run_row, start


def options(db: Db, slug: str) -> tuple[int, int, int]:
    row = db.row("select * from pgflow.flows where flow_slug = %s", slug)
    return row.opt_max_attempts, row.opt_base_delay, row.opt_timeout


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("'x'", (3, 5, 60)),
        ("'x', null, null, null", (3, 5, 60)),
        ("'x', 10, 60, 3", (10, 60, 3)),
        ("'x', null, null, 5", (3, 5, 5)),
        ("'x', 7, null, null", (7, 5, 60)),
        ("'x', null, 9", (3, 9, 60)),
        ("'x', timeout => 1", (3, 5, 1)),
        ("'x', max_attempts => null, base_delay => 20, timeout => null", (3, 20, 60)),
        ("flow_slug => 'x', base_delay => 0, max_attempts => 0", (0, 0, 60)),
    ],
)
def test_options_not_given_or_null_take_the_defaults(
    plain_db: Db, call: str, expected: tuple[int, int, int]
) -> None:
    plain_db.do(f"select pgflow.create_flow({call})")
    assert options(plain_db, "x") == expected


def test_it_returns_the_stored_row_in_column_order(plain_db: Db) -> None:
    row = plain_db.row("select *, created_at = now() as fresh from pgflow.create_flow('x', 4, 3, 2)")
    del row.created_at
    assert row == Row(
        flow_slug="x", opt_max_attempts=4, opt_base_delay=3, opt_timeout=2, queue_mode="flow", fresh=True
    )


def test_creating_a_flow_again_changes_no_option_and_returns_the_stored_row(plain_db: Db) -> None:
    plain_db.do("select pgflow.create_flow('x', 4, 3, 2)")
    row = plain_db.row("select * from pgflow.create_flow('x', 10, 10, 10)")
    assert (row.flow_slug, row.opt_max_attempts, row.opt_base_delay, row.opt_timeout) == ("x", 4, 3, 2)
    assert options(plain_db, "x") == (4, 3, 2)
    assert plain_db.value("select count(*) from pgflow.flows") == 1


def test_a_queue_named_like_the_flow_in_lower_case_is_created_once(plain_db: Db) -> None:
    flow(plain_db, "My_flow")
    flow(plain_db, "My_flow")
    assert plain_db.column("select queue_name::text from pgmq.list_queues()") == ["my_flow"]
    assert queue(plain_db, "My_flow") == []


def test_a_lost_queue_is_restored(plain_db: Db) -> None:
    flow(plain_db, "x")
    plain_db.do("select pgmq.drop_queue('x')")
    flow(plain_db, "x")
    assert plain_db.column("select queue_name::text from pgmq.list_queues()") == ["x"]


@pytest.mark.parametrize("spelling", ["x1", "X1"])
def test_a_queue_that_exists_already_is_not_taken_over(plain_db: Db, spelling: str) -> None:
    plain_db.do("select pgmq.create(%s)", spelling)
    refusal = plain_db.refused("select pgflow.create_flow('X1')")
    assert refusal.sqlstate == "23505"
    assert refusal.message == 'cannot create flow "X1": queue "x1" is already in use by another owner'
    assert plain_db.column("select flow_slug from pgflow.flows") == []


def test_a_queue_that_an_older_release_listed_in_mixed_case_is_used_on(db: Db) -> None:
    flow(db, "LegacyCase", "a")
    db.do("select pgmq.drop_queue('legacycase'), pgmq.create('LegacyCase')")
    flow(db, "LegacyCase", "a")
    assert db.column("select queue_name::text from pgmq.list_queues()") == ["LegacyCase"]
    run = start(db, "LegacyCase")
    (found,) = claim(db, "LegacyCase")
    complete(db, found.run_id, "a", 1)
    assert run_row(db, run).status == "completed"


@pytest.mark.parametrize(
    "slug", ["invalid-flow", "run", "", "1st", "has space", "x" * 129, "q'; drop schema pgflow; --"]
)
def test_a_bad_slug_trips_the_named_check(plain_db: Db, slug: str) -> None:
    refusal = plain_db.refused("select pgflow.create_flow(%s)", slug)
    assert refusal.sqlstate == "23514"
    assert refusal.message == 'new row for relation "flows" violates check constraint "slug_is_valid"'


def test_no_slug_is_refused_and_leaves_no_queue(plain_db: Db) -> None:
    assert plain_db.refused("select pgflow.create_flow(null)").sqlstate in ("23502", "23514")
    assert plain_db.column("select queue_name from pgmq.list_queues()") == []


@pytest.mark.parametrize(
    ("call", "constraint"),
    [
        ("'x', -1", "opt_max_attempts_is_nonnegative"),
        ("'x', 1, -1", "opt_base_delay_is_nonnegative"),
        ("'x', 1, 1, 0", "opt_timeout_is_positive"),
    ],
)
def test_a_bad_option_trips_the_named_check(plain_db: Db, call: str, constraint: str) -> None:
    assert plain_db.refused(f"select pgflow.create_flow({call})").constraint == constraint


def test_the_longest_queue_name_works(plain_db: Db) -> None:
    slug = "x" * 47
    flow(plain_db, slug, "a")
    plain_db.do("select pgflow.start_flow(%s, '{}')", slug)
    assert queue(plain_db, slug) == [("a", 0)]


@pytest.mark.parametrize("length", [48, 128])
def test_a_slug_too_long_for_a_queue_is_refused_with_its_limit(plain_db: Db, length: int) -> None:
    refusal = plain_db.refused("select pgflow.create_flow(%s)", "x" * length)
    assert "47" in refusal.message
    assert "too long" in refusal.message or "longer than" in refusal.message
    assert plain_db.value("select count(*) from pgflow.flows") == 0


def test_slugs_that_differ_only_in_case_are_refused(plain_db: Db) -> None:
    flow(plain_db, "myFlow")
    refusal = plain_db.refused("select pgflow.create_flow('MyFlow')")
    assert refusal.sqlstate == "23505"
    assert refusal.message == ('duplicate key value violates unique constraint "idx_flows_normalized_slug"')
    assert plain_db.column("select flow_slug from pgflow.flows") == ["myFlow"]


def test_a_mixed_case_flow_can_be_created_again_and_run(plain_db: Db) -> None:
    flow(plain_db, "myFlow", "stepA")
    flow(plain_db, "myFlow", "stepA")
    run = plain_db.value("select run_id from pgflow.start_flow('myFlow', '{}')")
    row = plain_db.row("select * from pgflow_tests.read_and_start('myFlow')")
    assert (row.run_id, row.step_slug) == (run, "stepA")


def test_the_ids_of_a_queue_that_was_lost_are_not_given_again(plain_db: Db) -> None:
    flow(plain_db, "f", "a")
    first = start(plain_db, "f")
    plain_db.do("select pgmq.drop_queue('f')")
    plain_db.do("select pgflow.create_flow('f')")
    second = start(plain_db, "f")
    (found,) = claim(plain_db, "f", 9)
    assert (found.run_id, found.msg_id) == (second, 2)
    assert run_row(plain_db, first).status == "started"
