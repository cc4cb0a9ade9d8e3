"""A map over a map in ranges that does not wait for all of it."""

from __future__ import annotations

import uuid
from typing import Any

from .helpers import WORKER, Db, event_names, run_row, start
from .range_work import claim_work, complete_parts, fail_items, hired


def chain(db: Db, slug: str = "f", *, parent: str = "", tolerated: int | None = None) -> None:
    """Maps first -> second (not waiting) -> a step last."""
    db.do("select pgflow.create_flow(%s, max_attempts => 1)", slug)
    db.do(f"select pgflow.add_step(%s, 'first', step_type => 'map' {parent})", slug)
    db.do("select pgflow.add_step(%s, 'second', array['first'], step_type => 'map')", slug)
    db.do("select pgflow.add_step(%s, 'last', array['second'])", slug)
    db.do(
        "insert into pgflow.step_policies (flow_slug, step_slug, storage, barrier, tolerated_failures) "
        "values (%s, 'first', 'ranges', null, %s), (%s, 'second', 'ranges', false, null)",
        slug,
        tolerated,
        slug,
    )
    hired(db, slug)


def ranges(db: Db, items: int = 100, slug: str = "f") -> list[tuple[str, int, int, int]]:
    """Claimed: step, first item, items, lease number."""
    leases = claim_work(db, items, slug=slug).leases
    return [(lease.step, lease.first, lease.items, lease.lease_no) for lease in leases]


def elements(db: Db, run: uuid.UUID, step: str, first: int, items: int) -> list[Any]:
    query = (
        "select array_agg(e order by n) from pgflow._map_elements(%s, %s, %s, %s) with ordinality x (e, n)"
    )
    found: list[Any] = db.value(query, run, step, first, first + items)
    return found


def complete(db: Db, run: uuid.UUID, step: str, first: int, outputs: list[Any], lease: int = 1) -> Any:
    return complete_parts(db, run, [(lease, first, len(outputs))], [outputs], step=step)


def fail(db: Db, run: uuid.UUID, step: str, index: int, error: str = "no", lease: int = 1) -> Any:
    return fail_items(db, run, [index], lease_no=lease, error=error, step=step)


def state(db: Db, run: uuid.UUID, step: str) -> tuple[Any, ...]:
    row = db.row("select * from pgflow.step_states where run_id = %s and step_slug = %s", run, step)
    return row.status, row.initial_tasks, row.remaining_tasks


def test_its_items_start_as_their_parents_are_done(db: Db) -> None:
    chain(db)
    run = start(db, "f", [1, 2, 3, 4])
    assert state(db, run, "second") == ("started", 4, 4)
    assert ranges(db) == [("first", 0, 4, 1)]
    complete(db, run, "first", 2, [30])
    assert ranges(db) == [("second", 2, 1, 1)]
    assert elements(db, run, "second", 2, 1) == [30]
    complete(db, run, "second", 2, [300])
    assert ranges(db) == []
    complete(db, run, "first", 0, [10, 20])
    complete(db, run, "first", 3, [40])
    assert state(db, run, "first") == ("completed", 4, 0)
    assert ranges(db) == [("second", 0, 2, 1), ("second", 3, 1, 1)]
    complete(db, run, "second", 0, [100, 200])
    assert complete(db, run, "second", 3, [400]).step_status == "completed"
    assert state(db, run, "last")[0] == "started"
    assert event_names(db, run)[1:] == [
        "step:first:started", "step:second:started", "step:first:completed", "step:second:completed",
        "step:last:started",
    ]  # fmt: skip
    found = db.value("select output from pgflow.step_states where run_id = %s and step_slug = 'second'", run)
    assert found == [100, 200, 300, 400]


def test_a_parent_s_item_that_fails_and_is_tolerated_is_null_here(db: Db) -> None:
    chain(db, tolerated=1)
    run = start(db, "f", [1, 2])
    ranges(db)
    fail(db, run, "first", 1)
    assert ranges(db) == [("second", 1, 1, 1)]
    assert elements(db, run, "second", 1, 1) == [None]
    complete(db, run, "first", 0, [10])
    assert state(db, run, "first") == ("completed", 2, 0)
    assert ranges(db) == [("second", 0, 1, 1)]
    pages = db.rows(
        "select first_index, items from pgflow.pages where step_slug = 'first' and is_result order by 1"
    )
    assert [(page.first_index, page.items) for page in pages] == [(0, 1), (1, 1)]


def test_a_retried_item_of_the_parent_is_passed_on_when_its_task_is_done(db: Db) -> None:
    chain(db)
    db.do("update pgflow.flows set opt_max_attempts = 2")
    run = start(db, "f", [1, 2])
    ranges(db)
    fail(db, run, "first", 0)
    assert ranges(db) == []
    db.do("select pgmq.set_vt('f', msg_id, 0) from pgmq.q_f")
    task = db.row("select * from pgflow.claim_work('f', %s, 9, 9)", WORKER)
    assert (task.step_slug, task.task_index, task.items, task.attempt) == ("first", 0, None, 2)
    db.do("select pgflow.complete_task(%s, 'first', 0, '10')", run)
    assert ranges(db) == [("second", 0, 1, 1)]
    assert elements(db, run, "second", 0, 1) == [10]


def test_a_skipped_parent_leaves_nothing_to_map_over(db: Db) -> None:
    chain(db, parent=", when_exhausted => 'skip'")
    run = start(db, "f", [1, 2, 3])
    ranges(db)
    complete(db, run, "first", 0, [10])
    assert ranges(db) == [("second", 0, 1, 1)]
    fail(db, run, "first", 1)
    assert state(db, run, "first")[0] == "skipped"
    assert state(db, run, "second") == ("completed", 0, 0)
    assert state(db, run, "last")[0] == "started"
    assert complete(db, run, "second", 0, [100]).accepted == 0
    assert db.value("select count(*) from pgflow.pages where step_slug = 'second'") == 0


def test_a_failed_run_goes_on_where_both_were(db: Db) -> None:
    chain(db)
    run = start(db, "f", [1, 2, 3])
    ranges(db)
    complete(db, run, "first", 0, [10])
    ranges(db)
    fail(db, run, "first", 1)
    assert run_row(db, run).status == "failed"
    assert ranges(db) == []
    db.do("select pgflow.retry_failed_tasks(%s)", run)
    assert state(db, run, "first") == ("started", 3, 2)
    assert state(db, run, "second") == ("started", 3, 3)
    db.do("select pgmq.set_vt('f', msg_id, 0) from pgmq.q_f")
    assert sorted(ranges(db)) == [("first", 2, 1, 2), ("second", 0, 1, 2)]
    complete(db, run, "first", 2, [30], lease=2)
    complete(db, run, "second", 0, [100], lease=2)
    db.do("select pgflow.complete_task(%s, 'first', 1, '20')", run)
    assert state(db, run, "first")[0] == "completed"
    assert sorted(ranges(db)) == [("second", 1, 1, 1), ("second", 2, 1, 1)]


def test_with_a_condition_of_its_own_it_waits(db: Db) -> None:
    chain(db)
    db.do("update pgflow.steps set required_input_pattern = '{\"first\": [10]}' where step_slug = 'second'")
    run = start(db, "f", [1])
    assert state(db, run, "second")[0] == "created"
    ranges(db)
    complete(db, run, "first", 0, [10])
    assert ranges(db) == [("second", 0, 1, 1)]


def test_started_anew_after_it_was_withdrawn_it_takes_no_result_of_an_earlier_lease(db: Db) -> None:
    chain(db, parent=", when_exhausted => 'skip'")
    run = start(db, "f", [1, 2, 3])
    ranges(db)
    complete(db, run, "first", 0, [10, 20])
    assert ranges(db) == [("second", 0, 2, 1)]
    for again in range(1, 3):
        db.do("delete from pgflow.ranges where step_slug = 'second'")
        db.do("delete from pgflow.range_maps where step_slug = 'second'")
        for ahead in (False, True):
            db.do("savepoint anew")
            if ahead:
                db.do(
                    "update pgflow.step_states set status = 'created', started_at = null,"
                    " initial_tasks = null, remaining_tasks = null where step_slug = 'second'"
                )
                db.do("select pgflow._open_ahead('f', %s, 'first', 3)", run)
                db.do("select pgflow._pass_on(%s, 'first', '{0}', '{2}')", run)
            else:
                db.do("select pgflow._open_ranges('f', %s, 'second', 2, 0)", run)
            (lease,) = ranges(db)
            assert lease[:3] == ("second", 0, 2)
            assert lease[3] == again * 1_048_576 + 1
            assert complete(db, run, "second", 0, [100, 200], lease=1).accepted == 0
            assert complete(db, run, "second", 0, [100, 200], lease=lease[3]).accepted == 2
            db.do("rollback to savepoint anew")
        db.do("select pgflow._open_ranges('f', %s, 'second', 2, 0)", run)
    db.do("delete from pgflow.step_states where step_slug = 'second'")
    assert db.value("select count(*) from pgflow.withdrawn_maps") == 0


def test_a_skipped_parent_leaves_word_of_what_was_withdrawn_for_as_long_as_the_run_is_there(db: Db) -> None:
    chain(db, parent=", when_exhausted => 'skip'")
    run = start(db, "f", [1, 2])
    ranges(db)
    fail(db, run, "first", 1)
    assert db.column("select step_slug from pgflow.withdrawn_maps") == ["second"]
    db.do("delete from pgflow.step_tasks where run_id = %s", run)
    db.do("delete from pgflow.step_states where run_id = %s", run)
    db.do("delete from pgflow.runs where run_id = %s", run)
    assert db.value("select count(*) from pgflow.withdrawn_maps") == 0
