"""Exceptions of maps in ranges: items that failed become tasks, with the rules for tasks."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import (
    WORKER,
    Db,
    archive,
    complete,
    event,
    fail,
    lease,
    make_visible,
    map_step,
    queue,
    run_row,
    start,
    state,
    step,
    task,
    task_statuses,
    tasks,
)
from .range_work import (
    OTHER,
    assert_whole,
    claim_work,
    complete_parts,
    fail_items,
    hired,
    mapped,
    policy,
    ranges,
    ranges_flow,
    results,
)


def test_a_failed_item_becomes_a_task_that_is_tried_again(db: Db) -> None:
    run = mapped(db, ["a", "b", "c"], max_attempts=2, base_delay=5)
    claim_work(db)
    settled = fail_items(db, run, [1], error="first")
    assert (settled.accepted, settled.rejected, settled.step_status) == (1, [], "started")
    row = task(db, run, "m", 1)
    assert (row.status, row.attempts_count, row.error_message) == ("queued", 1, "first")
    assert (row.input, row.last_worker_id, row.output_is_null) == ("b", WORKER, True)
    assert 8 < lease(db, "f", row.message_id) <= 10  # 5 s times 2
    assert ranges(db, run) == [(0, 1, "W", 0), (2, 3, "W", 0)]
    assert state(db, run, "m").remaining_tasks == 3
    assert_whole(db, run)
    assert claim_work(db, 10, OTHER) == ([], [], [])
    make_visible(db, "f")
    (found,) = claim_work(db, 10, OTHER).tasks
    assert (found.task_index, found.attempt, found.input) == (1, 2, "b")
    complete(db, run, "m", "done", 1)
    assert results(db, run) == {}
    complete_parts(db, run, [(1, 2, 1), (1, 0, 1)])
    assert run_row(db, run).output == {"m": [0, "done", 20]}
    assert results(db, run) == {0: 0, 1: "done", 2: 20}
    assert archive(db, "f") == [("m", 1)]
    assert queue(db, "f") == []


def test_a_map_that_ends_with_an_exception_has_pages_of_all(db: Db) -> None:
    run = mapped(db, 10, step("s", "m"))
    claim_work(db)
    fail_items(db, run, [9, 3, 4, 0])
    complete_parts(db, run, [(1, 1, 2), (1, 5, 4)])
    make_visible(db, "f")
    for found in claim_work(db).tasks:
        assert state(db, run, "m").status == "started"
        complete(db, run, "m", f"again {found.task_index}", found.task_index)
    expected = {i: f"again {i}" if i in (0, 3, 4, 9) else 10 * i for i in range(10)}
    assert results(db, run) == expected
    assert state(db, run, "m").output == list(expected.values())


def test_large_outputs_of_exceptions_are_cut_into_pages(db: Db) -> None:
    run = mapped(db, 40)
    claim_work(db)
    fail_items(db, run, list(range(40)))
    make_visible(db, "f")
    claim_work(db)
    for index in range(40):
        complete(db, run, "m", f"{index:05}" * 4000, index)
    assert state(db, run, "m").status == "completed"
    assert len(results(db, run)) == 40
    assert 10 <= db.value("select count(*) from pgflow.pages where is_result") <= 20


@pytest.mark.parametrize("how", ["permanent", "attempts"])
def test_an_item_that_fails_for_good_fails_its_run(db: Db, how: str) -> None:
    run = mapped(db, 10, map_step("k"), step("s", "m"), max_attempts=1 if how == "attempts" else 3)
    claim_work(db)
    complete_parts(db, run, [(1, 0, 2)])
    settled = fail_items(db, run, [5], error="no good", permanent=how == "permanent")
    assert (settled.accepted, settled.step_status, settled.run_status) == (1, "failed", "failed")
    assert run_row(db, run).status == "failed"
    assert (state(db, run, "m").error_message, task_statuses(db, run, "m")) == ("no good", ["failed"])
    assert event(db, run, "step:failed", "m")["error_message"] == "no good"
    # Nobody holds anything of it any more, and nothing is leased.
    assert ranges(db, run) == [(2, 5, None, 0), (6, 10, None, 0)]
    assert ranges(db, run, "k") == [(0, 10, None, 0)]
    assert claim_work(db) == ([], [], [])
    late = complete_parts(db, run, [(1, 6, 2)])
    assert (late.accepted, late.rejected, late.run_status) == (0, [6], "failed")
    assert fail_items(db, run, [7]).accepted == 0
    assert archive(db, "f") == [("m", 5)]
    assert queue(db, "f") == []


def test_several_errors_at_once_are_each_its_item_s(db: Db) -> None:
    run = mapped(db, 6, max_attempts=3)
    policy(db, "f", "m", tolerated_failures=3)
    claim_work(db)
    settled = db.row(
        "select s.* from pgflow.fail_range_items(%s, 'm', %s, '{1,1,2,1}', '{4,1,0,2}',"
        " array['e4', null, 'e0', 'e2'], '{t,f,f,null}') s",
        *(run, WORKER),
    )
    assert (settled.accepted, settled.rejected) == (3, [0])
    found = {t.task_index: (t.status, t.error_message, t.input) for t in tasks(db, run)}
    assert found == {1: ("queued", None, 1), 2: ("queued", "e2", 2), 4: ("failed", "e4", 4)}
    assert state(db, run, "m").failed_tasks == 1
    assert_whole(db, run)


@pytest.mark.parametrize("rule", [{"tolerated_failures": 2}, {"tolerated_share": 0.2}])
def test_so_many_failures_are_tolerated_and_their_outputs_are_null(db: Db, rule: dict[str, Any]) -> None:
    run = mapped(db, 10, step("s", "m"), max_attempts=1)
    other = start(db, "f", list(range(10)))
    policy(db, "f", "m", **rule)
    claim_work(db)
    assert fail_items(db, run, [3, 4]).step_status == "started"
    assert state(db, run, "m").failed_tasks == 2
    assert_whole(db, run)
    complete_parts(db, run, [(1, 0, 3), (1, 5, 5)])
    assert state(db, run, "m").output == [0, 10, 20, None, None, 50, 60, 70, 80, 90]
    assert fail_items(db, other, [3, 4]).step_status == "started"
    assert fail_items(db, other, [5], error="one too many").step_status == "failed"
    assert state(db, other, "m").error_message == "one too many"


def test_a_tolerated_failure_may_end_the_map(db: Db) -> None:
    run = mapped(db, 3, max_attempts=1)
    policy(db, "f", "m", tolerated_failures=1)
    claim_work(db)
    complete_parts(db, run, [(1, 0, 2)])
    assert fail_items(db, run, [2]).run_status == "completed"
    assert run_row(db, run).output == {"m": [0, 10, None]}


def test_first_failures_that_are_all_alike_stop_the_step(db: Db) -> None:
    run = mapped(db, 50, max_attempts=5)
    policy(db, "f", "m", tolerated_failures=50, stop_after_alike=3)
    claim_work(db)
    assert fail_items(db, run, [1, 2]).step_status == "started"
    assert fail_items(db, run, [7]).step_status == "failed"
    other = start(db, "f", list(range(50)))
    claim_work(db)
    complete_parts(db, other, [(1, 0, 1)])  # it works, sometimes
    assert fail_items(db, other, list(range(1, 9))).step_status == "started"


@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_a_map_that_may_be_skipped_is(db: Db, mode: str) -> None:
    ranges_flow(
        db, "f", map_step("m", when_exhausted=mode, max_attempts=1), map_step("n", "m"), step("s", "m"),
        map_step("k"),
    )  # fmt: skip
    for worker in (WORKER, OTHER):
        hired(db, worker=worker)
    run = start(db, "f", [1, 2, 3, 4])
    claim_work(db)
    complete_parts(db, run, [(1, 0, 1)])
    settled = fail_items(db, run, [2], error="no")
    assert (settled.step_status, settled.run_status) == ("skipped", "started")
    assert state(db, run, "m").remaining_tasks is None
    assert ranges(db, run) == [(1, 2, None, 0), (3, 4, None, 0)]
    claimed = claim_work(db)
    assert claimed.leases == []
    assert [t.step_slug for t in claimed.tasks] == (["s"] if mode == "skip" else [])
    assert state(db, run, "n").status == ("completed" if mode == "skip" else "skipped")
    assert complete_parts(db, run, [(1, 3, 1)]).rejected == [3]
    assert complete_parts(db, run, [(1, 0, 4)], step="k").step_status == "completed"
    if mode == "skip":
        complete(db, run, "s", 1)
    assert run_row(db, run).status == "completed"


# -- the functions of the contract ------------------------------------------------------------------------


def test_exceptions_are_settled_by_the_functions_for_tasks(db: Db) -> None:
    run = mapped(db, 6, max_attempts=2, base_delay=0)
    policy(db, "f", "m", tolerated_failures=2)
    claim_work(db)
    fail_items(db, run, [1, 2, 3])
    make_visible(db, "f")
    assert [t.task_index for t in db.rows("select * from pgflow.claim_tasks('f', %s, 9)", OTHER)] == [1, 2, 3]
    fail(db, run, "m", "again", 1)
    assert (task(db, run, "m", 1).status, state(db, run, "m").failed_tasks) == ("failed", 1)
    complete(db, run, "m", "two", 2)
    settled = db.row(
        "select s.* from pgflow.complete_tasks(%s, 'm', '{3,4}', '{3,4}', %s, '{2,1}') s", run, OTHER
    )
    assert (settled.accepted, settled.rejected) == (1, [4])  # 4 is no task: a lease holds it
    before = state(db, run, "m").remaining_tasks
    complete(db, run, "m", "not so", 4)
    fail(db, run, "m", "not so", 5)
    assert state(db, run, "m").remaining_tasks == before == 3
    assert_whole(db, run)
    complete_parts(db, run, [(1, 0, 1), (1, 4, 2)])
    assert run_row(db, run).output == {"m": [0, None, "two", 3, 40, 50]}


def test_an_exception_is_handed_back_and_its_lease_extended_as_a_task(db: Db) -> None:
    run = mapped(db, 3, base_delay=0)
    claim_work(db)
    fail_items(db, run, [1])
    make_visible(db, "f")
    (found,) = claim_work(db, 1, OTHER).tasks
    assert (
        db.column("select * from pgflow.extend_tasks('f', %s, array[%s]::bigint[], 60)", OTHER, found.msg_id)
        == []
    )
    assert db.value("select pgflow.release_tasks('f', %s, array[%s]::bigint[])", OTHER, found.msg_id) == 1
    (found,) = claim_work(db, 1).tasks
    assert (found.task_index, found.attempt) == (1, 2)
    assert_whole(db, run)


def test_an_exception_is_not_kept_waiting_by_the_tasks_of_other_runs(db: Db) -> None:
    """Claims are fair among runs, and a map in ranges has no spawned tasks."""
    run = mapped(db, 3, map_step("t"), base_delay=0)
    policy(db, "f", "t", storage="tasks")
    claim_work(db)
    fail_items(db, run, [1])
    for _ in range(5):
        start(db, "f", list(range(100)))
    make_visible(db, "f")
    found = [(t.run_id, t.step_slug) for _ in range(12) for t in claim_work(db, 0, qty=4).tasks]
    assert len(found) == 48
    assert (run, "m") in found


def test_a_stalled_exception_is_queued_again_and_given_up_in_the_end(db: Db) -> None:
    run = mapped(db, 2, base_delay=0)
    policy(db, "f", "m", tolerated_failures=1)
    claim_work(db)
    fail_items(db, run, [1])
    for n in range(4):
        make_visible(db, "f")
        assert len(claim_work(db, 0).tasks) == 1
        db.do(
            "update pgflow.step_tasks set started_at = started_at - interval '1 hour',"
            " queued_at = queued_at - interval '1 hour'"
        )
        assert db.value("select pgflow.requeue_stalled_tasks()") == (n < 3)
    db.do("update pgflow.step_tasks set permanently_stalled_at = permanently_stalled_at - interval '1 s'")
    assert db.value("select pgflow.fail_stalled_tasks()") == 1
    complete_parts(db, run, [(1, 0, 1)])
    assert run_row(db, run).output == {"m": [0, None]}


def test_a_thousand_exceptions_have_their_own_elements(db: Db) -> None:
    run = mapped(db, [{"n": i} for i in range(5000)])
    claim_work(db, 5000)
    indexes = list(range(0, 5000, 5))
    assert fail_items(db, run, indexes).accepted == 1000
    assert {t.task_index: t.input for t in tasks(db, run)} == {i: {"n": i} for i in indexes}
    assert sorted(i for _, i in queue(db, "f")) == indexes
    assert_whole(db, run)


def test_nobody_is_needed_to_have_been_registered_for_a_failure_to_be_recorded(db: Db) -> None:
    """The worker's row was deleted by hand meanwhile."""
    run = mapped(db, 2)
    claim_work(db)
    db.do("delete from pgflow.workers where worker_id = %s", WORKER)
    assert fail_items(db, run, [1]).accepted == 1
    assert complete_parts(db, run, [(1, 0, 1)]).accepted == 1
    assert isinstance(run, uuid.UUID)
