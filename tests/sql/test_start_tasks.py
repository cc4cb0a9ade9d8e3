"""``start_tasks`` (contract section 7)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import (
    WORKER,
    Db,
    claim,
    complete,
    complete_null,
    fail,
    flow,
    lease,
    make_visible,
    map_step,
    read,
    read_and_start,
    run_row,
    setup,
    snapshot,
    start,
    start_tasks,
    state,
    step,
    table,
    task,
    tasks,
    work,
    worker,
)


def test_a_queued_task_is_started_and_charged(db: Db) -> None:
    run = start(db, setup(db, "one"))
    (found,) = claim(db, "one")
    assert (found.flow_slug, found.run_id, found.step_slug, found.task_index) == ("one", run, "only", 0)
    stored = task(db, run, "only")
    assert stored.message_id == found.msg_id
    assert (stored.status, stored.attempts_count, stored.last_worker_id) == ("started", 1, WORKER)
    assert db.value("select started_at = now() from pgflow.step_tasks")


def test_the_record_has_the_seven_contract_columns(db: Db) -> None:
    start(db, setup(db, "one"))
    worker(db, "one")
    ids = read(db, "one")
    row = db.row(
        "select * from pgflow.start_tasks(flow_slug => 'one', msg_ids => %s, worker_id => %s)", ids, WORKER
    )
    assert list(vars(row)) == [
        "flow_slug",
        "run_id",
        "step_slug",
        "input",
        "msg_id",
        "task_index",
        "flow_input",
    ]


@pytest.mark.parametrize("ids", [[], None, [999], [999, -1, 2**62]])
def test_no_or_unknown_ids_give_no_rows(db: Db, ids: list[int] | None) -> None:
    start(db, setup(db, "one"))
    worker(db, "one")
    before = db.rows("select * from pgflow.step_tasks")
    assert start_tasks(db, "one", ids) == []
    assert db.rows("select * from pgflow.step_tasks") == before


def test_ids_with_nulls_and_repeats_start_each_task_once(db: Db) -> None:
    run = start(db, setup(db, "one"))
    worker(db, "one")
    rows = db.rows("select * from pgflow.start_tasks('one', array[1, null, 1, 77, 1]::bigint[], %s)", WORKER)
    assert [r.msg_id for r in rows] == [1]
    assert task(db, run, "only").attempts_count == 1


def test_a_task_need_not_have_been_read_before(db: Db) -> None:
    start(db, setup(db, "one"))
    worker(db, "one")
    assert len(start_tasks(db, "one", [1])) == 1


def test_an_unknown_worker_is_refused(db: Db) -> None:
    start(db, setup(db, "one"))
    refusal = db.refused("select * from pgflow.start_tasks('one', array[1], gen_random_uuid())")
    assert (refusal.sqlstate, refusal.constraint) == ("23503", "step_tasks_last_worker_id_fkey")


@pytest.mark.parametrize("ids", [[], [999], [1]])
def test_an_unknown_worker_matters_only_when_there_is_something_to_claim(db: Db, ids: list[int]) -> None:
    run = start(db, setup(db, "one"))
    db.do("update pgflow.runs set status = 'failed', failed_at = now() where run_id = %s", run)
    assert start_tasks(db, "one", ids, uuid.uuid4()) == []


def test_another_flow_s_ids_are_not_touched(db: Db) -> None:
    start(db, flow(db, "f", "a"))
    run_g = start(db, flow(db, "g", "a"))
    worker(db, "f")
    assert [t.flow_slug for t in start_tasks(db, "f", [1])] == ["f"]
    assert task(db, run_g, "a").status == "queued"


@pytest.mark.parametrize("end", ["started", "completed", "failed"])
def test_a_task_that_is_not_queued_is_ignored(db: Db, end: str) -> None:
    run = start(db, flow(db, "f", map_step("m", max_attempts=1), map_step("other")), [1, 2])
    (found,) = claim(db, "f")
    if end == "completed":
        complete(db, run, "m")
    elif end == "failed":
        db.do(
            "update pgflow.step_tasks set status = 'failed', failed_at = now() where message_id = %s",
            found.msg_id,
        )
    before = snapshot(db, run)["tasks"]
    assert start_tasks(db, "f", [found.msg_id]) == []
    assert snapshot(db, run)["tasks"] == before


@pytest.mark.parametrize("status", ["failed", "completed"])
def test_tasks_of_a_finished_run_are_ignored(db: Db, status: str) -> None:
    run = start(db, setup(db, "one"))
    db.do("update pgflow.runs set status = %s where run_id = %s", status, run)
    assert claim(db, "one") == []
    assert (task(db, run, "only").status, task(db, run, "only").attempts_count) == ("queued", 0)


@pytest.mark.parametrize(
    "change",
    [
        "status = 'skipped', skip_reason = 'x', remaining_tasks = null, skipped_at = now()",
        "status = 'failed', failed_at = now()",
        "status = 'completed', remaining_tasks = 0",
        "status = 'created', remaining_tasks = null",
    ],
)
def test_tasks_of_a_step_that_is_not_started_are_ignored(db: Db, change: str) -> None:
    run = start(db, setup(db, "one"))
    db.do(f"update pgflow.step_states set {change} where run_id = %s", run)
    assert claim(db, "one") == []
    assert (task(db, run, "only").status, task(db, run, "only").attempts_count) == ("queued", 0)


def test_good_and_stale_ids_may_be_mixed(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [10, 20, 30])
    claim(db, "root_map")
    complete(db, run, "items", 0, 0)
    worker(db, "root_map")
    assert [t.task_index for t in start_tasks(db, "root_map", [1, 2, 3, 4])] == [1, 2]


def test_tasks_of_several_runs_and_steps_come_in_one_call(db: Db) -> None:
    flow(db, "f", "a", map_step("m"))
    one, two = start(db, "f", ["x"]), start(db, "f", ["y", "z"])
    found = {(t.run_id, t.step_slug, t.task_index): (t.input, t.flow_input) for t in claim(db, "f", 10)}
    assert found == {
        (one, "a", 0): ({}, ["x"]),
        (one, "m", 0): ("x", None),
        (two, "a", 0): ({}, ["y", "z"]),
        (two, "m", 0): ("y", None),
        (two, "m", 1): ("z", None),
    }


# -- lease -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow_timeout", "step_timeout", "expected"), [(60, None, 62), (5, None, 7), (60, 10, 12), (3, 600, 602)]
)
def test_a_claim_hides_the_message_for_the_effective_timeout_and_two_seconds(
    db: Db, flow_timeout: int, step_timeout: int | None, expected: int
) -> None:
    flow(db, "f", step("a", timeout=step_timeout), timeout=flow_timeout)
    start(db, "f")
    (found,) = claim(db, "f")
    assert expected - 1 < lease(db, "f", found.msg_id) <= expected


def test_in_one_batch_each_step_has_its_own_lease(db: Db) -> None:
    flow(db, "f", step("a", timeout=10), step("b", timeout=100), timeout=50)
    start(db, "f")
    leases = {t.step_slug: lease(db, "f", t.msg_id) for t in claim(db, "f", 2)}
    assert 11 < leases["a"] <= 12
    assert 101 < leases["b"] <= 102


def test_the_lease_is_set_in_the_one_statement_form_too(db: Db) -> None:
    flow(db, "f", "a", timeout=30)
    start(db, "f")
    (found,) = read_and_start(db, "f")
    assert 31 < lease(db, "f", found.msg_id) <= 32


def test_only_the_reads_count_as_reads(db: Db) -> None:
    start(db, setup(db, "one"))
    claim(db, "one")
    assert db.value("select read_ct from pgmq.q_one") == 1


def test_a_message_that_is_not_claimed_keeps_its_visibility(db: Db) -> None:
    run = start(db, setup(db, "one"))
    db.do("update pgflow.runs set status = 'failed' where run_id = %s", run)
    claim(db, "one", vt=1)
    assert lease(db, "one", 1) <= 1


def test_a_task_whose_message_is_gone_fails_the_claim_as_a_whole(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    worker(db, "root_map")
    db.do("select pgmq.archive('root_map', 1::bigint)")
    refusal = db.refused("select pgflow.start_tasks('root_map', '{1,2}', %s, 'root_map')", WORKER)
    assert refusal.sqlstate == "22P02"
    assert refusal.message == (
        'invalid input syntax for type integer: "start_tasks(): visibility updated 1 of 2 claimed messages"'
    )
    assert [(t.status, t.attempts_count) for t in tasks(db, run)] == [("queued", 0)] * 2


# -- one statement ---------------------------------------------------------------------------------------


def test_reading_and_starting_in_one_statement_works(db: Db) -> None:
    run = start(db, setup(db, "root_map"), ["a", "b", "c"])
    assert [(t.task_index, t.input) for t in read_and_start(db, "root_map", 2)] == [(0, "a"), (1, "b")]
    assert [t.status for t in tasks(db, run, "items")] == ["started", "started", "queued"]


def test_an_empty_read_passes_null_and_gives_no_rows(db: Db) -> None:
    setup(db, "one")
    worker(db, "one")
    rows = db.rows(
        "with msgs as (select * from pgmq.read('one', 1, 1)), ids as (select array_agg(msg_id) as a"
        " from msgs)"
        " select t.* from pgflow.start_tasks('one', (select a from ids), %s) as t",
        WORKER,
    )
    assert rows == []


def test_claiming_and_completing_in_one_statement_works(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    row = db.row(
        "with t as (select * from pgflow_tests.read_and_start('sequential'))"
        " select c.status from t, lateral pgflow.complete_task(t.run_id, t.step_slug, t.task_index, '7') c"
    )
    assert row.status == "completed"
    assert state(db, run, "second").status == "started"


def test_many_claimed_tasks_can_be_completed_by_one_statement(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    rows = db.rows(
        "with t as materialized (select * from pgflow_tests.read_and_start('root_map', 1, 10))"
        " select c.status from t,"
        " lateral pgflow.complete_task(t.run_id, t.step_slug, t.task_index, to_jsonb(t.task_index)) c"
    )
    assert [r.status for r in rows] == ["completed"] * 3
    assert state(db, run, "items").output == [0, 1, 2]


# -- input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"a": 1}, [1, 2], "text", 0, False, None])
def test_a_root_single_step_gets_an_empty_object_and_the_flow_input(db: Db, given: Any) -> None:
    setup(db, "one")
    db.do("select pgflow.start_flow('one', %s)", Jsonb(given))
    (found,) = claim(db, "one")
    assert found.input_text == "{}"
    assert found.flow_input == given
    assert found.flow_input_text is not None


def test_a_root_map_task_gets_its_raw_element_and_no_flow_input(db: Db) -> None:
    given = [{"a": 1}, [1, [2]], "text", 4.5, True, None, ""]
    start(db, setup(db, "root_map"), given)
    found = claim(db, "root_map", 10)
    assert [t.input for t in found] == given
    assert found[5].input_text == "null"
    assert [t.flow_input_text for t in found] == [None] * 7


def test_a_dependent_map_task_gets_its_raw_element(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    complete(db, run, "source", [{"x": 1}, None, [3]])
    found = claim(db, "single_then_map", 5)
    assert [(t.task_index, t.input_text, t.flow_input_text) for t in found] == [
        (0, '{"x": 1}', None),
        (1, "null", None),
        (2, "[3]", None),
    ]


def test_a_map_over_a_map_gets_the_parent_s_outputs_in_index_order(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), ["a", "b", "c"])
    for found in reversed(claim(db, "map_chain", 3)):
        output = None if found.task_index == 1 else {"v": found.input}
        complete(db, run, "m1", output, found.task_index)
    found_all = claim(db, "map_chain", 3)
    assert [(t.step_slug, t.input_text) for t in found_all] == [
        ("m2", '{"v": "a"}'),
        ("m2", "null"),
        ("m2", '{"v": "c"}'),
    ]


def test_a_map_over_a_map_takes_a_null_output_as_json_null(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1])
    claim(db, "map_chain")
    complete_null(db, run, "m1")
    (found,) = claim(db, "map_chain")
    assert found.input_text == "null"


def test_a_dependent_single_step_gets_its_parents_by_slug(db: Db) -> None:
    run = start(db, setup(db, "two_roots"), {"flow": "input"})
    for found in claim(db, "two_roots", 2):
        complete(db, run, found.step_slug, {"from": found.step_slug})
    (found,) = claim(db, "two_roots")
    assert found.input == {"root_a": {"from": "root_a"}, "root_b": {"from": "root_b"}}
    assert found.flow_input_text is None


def test_a_parent_that_completed_with_null_appears_as_json_null(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    complete_null(db, run, "first")
    (found,) = claim(db, "sequential")
    assert found.input_text == '{"first": null}'


def test_only_direct_parents_are_in_the_input(db: Db) -> None:
    run = start(db, setup(db, "sequential"), {"in": 1})
    work(db, "sequential", {"first": 1})
    work(db, "sequential", {"second": 2})
    (found,) = claim(db, "sequential")
    assert found.input == {"second": 2}
    assert run_row(db, run).input == {"in": 1}


def test_a_map_parent_gives_its_array(db: Db) -> None:
    start(db, setup(db, "root_map"), [1, 2, 3])
    work(db, "root_map")
    (found,) = claim(db, "root_map")
    assert found.input == {"items": [0, 1, 2]}


def test_a_skipped_parent_is_absent(db: Db) -> None:
    flow(db, "f", "a", step("b", required_input_pattern={"never": 1}), step("c", "a", "b"))
    start(db, "f")
    work(db, "f", {"a": 5})
    (found,) = claim(db, "f")
    assert found.input == {"a": 5}


def test_with_all_parents_skipped_the_input_is_an_empty_object(db: Db) -> None:
    never = {"required_input_pattern": {"never": 1}}
    flow(db, "f", step("a", **never), step("b", **never), step("c", "a", "b"))
    start(db, "f", {"x": 1})
    (found,) = claim(db, "f")
    assert (found.step_slug, found.input_text, found.flow_input_text) == ("c", "{}", None)


def test_a_retried_task_gets_the_same_input_again(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    complete(db, run, "source", ["a", "b"])
    first = claim(db, "single_then_map", 2)
    for found in first:
        fail(db, run, "each", index=found.task_index)
    make_visible(db, "single_then_map")
    again = claim(db, "single_then_map", 2)
    assert [(t.msg_id, t.input) for t in again] == [(t.msg_id, t.input) for t in first]
    assert [t.attempts_count for t in tasks(db, run, "each")] == [2, 2]


def test_inputs_follow_stored_outputs_and_big_numbers_survive(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    db.do(
        "select pgflow.complete_task(%s, 'first', 0, '{\"n\": 123456789012345678901234567890.123456789}')",
        run,
    )
    (found,) = claim(db, "sequential")
    assert found.input_text == '{"first": {"n": 123456789012345678901234567890.123456789}}'


def test_a_task_made_by_hand_has_the_element_of_its_index(db: Db) -> None:
    run = start(db, setup(db, "root_map"), ["a", "b", "c"])
    worker(db, "root_map")
    db.do("delete from pgflow.step_tasks where run_id = %s and task_index = 1", run)
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, message_id)"
        " values ('root_map', %s, 'items', 1, 2)",
        run,
    )
    assert [(t.task_index, t.input) for t in start_tasks(db, "root_map", [1, 2, 3])] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]


def test_two_workers_share_the_tasks_and_are_recorded(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    other = uuid.uuid4()
    assert [t.task_index for t in claim(db, "root_map")] == [0]
    assert [t.task_index for t in claim(db, "root_map", worker_id=other)] == [1]
    assert [t.last_worker_id for t in tasks(db, run)] == [WORKER, other]
    assert db.value(f"select count(*) from pgmq.{table('q', 'root_map')}") == 2
