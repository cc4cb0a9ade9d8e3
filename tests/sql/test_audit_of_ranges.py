"""What audit_run finds in a map in ranges: nothing where all is right, and each thing that is wrong."""

from __future__ import annotations

import json
import uuid

import pytest

from pgflow_mp.testing import audit_run

from .helpers import Db
from .range_rows import advance, complete_items, exception, lease, ranges_run, write_page


def state_under_way(db: Db) -> uuid.UUID:
    """A run with items in every place: pages, tasks, ranges, and beyond the cursor."""
    run = ranges_run(db, [*range(14)])
    complete_items(db, run, 0, [0, 10])
    exception(db, run, 2, "completed", output="20", error_message=None)
    exception(db, run, 3, "failed")
    exception(db, run, 4, "queued")
    lease(db, run, 5, 8)
    lease(db, run, 8, 10, None)
    db.do("update pgflow.step_states set remaining_tasks = 10, failed_tasks = 1 where step_slug = 'm'")
    return run


def completed(db: Db) -> uuid.UUID:
    """A run whose map is completed."""
    run = ranges_run(db, [*range(6)])
    complete_items(db, run, 0, [0, 10])
    exception(db, run, 2, "failed")
    write_page(db, run, "m", 2, [None])
    complete_items(db, run, 3, [30, 40, 50])
    db.do("update pgflow.range_maps set is_open = false")
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, failed_tasks = 1,"
        " completed_at = now(), output = %s::jsonb where step_slug = 'm'",
        json.dumps([0, 10, None, 30, 40, 50]),
    )
    db.do("update pgflow.runs set remaining_steps = 1")
    return run


@pytest.mark.parametrize("state", [state_under_way, completed])
def test_nothing_is_wrong(db: Db, state: object) -> None:
    assert callable(state)
    assert audit_run(db.conn, str(state(db))) == []


def test_nothing_is_wrong_with_what_was_left_by_an_end(db: Db) -> None:
    run = state_under_way(db)
    db.do("update pgflow.ranges set worker_id = null")
    db.do("update pgflow.range_maps set is_open = false")
    db.do("update pgflow.step_tasks set status = 'cancelled' where status = 'queued'")
    db.do("update pgflow.step_states set status = 'failed', failed_at = now() where step_slug = 'm'")
    db.do("update pgflow.runs set status = 'failed', failed_at = now()")
    assert audit_run(db.conn, str(run)) == []


def page(first: int, items: int, body: str, is_result: bool = True) -> str:
    return (
        "insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)"
        f" select run_id, 'm', {is_result}, {first}, {items}, '{body}' from pgflow.range_maps"
    )


WRONG_UNDER_WAY = {
    "a range is lost": ("delete from pgflow.ranges where worker_id is null", "items {[8,10)} are nowhere"),
    "a page is lost": ("delete from pgflow.pages where is_result", "items {[0,2)} are nowhere"),
    "a task is lost": ("delete from pgflow.step_tasks where task_index = 4", "items {[4,5)} are nowhere"),
    "a page over a range": (page(9, 1, "[1]"), "1 items in two places"),
    "a task over a range": (
        "update pgflow.step_tasks set task_index = 9 where task_index = 4",
        "1 items in two places",
    ),
    "a range over the rest": (
        "update pgflow.ranges set end_index = 11 where first_index = 8",
        "1 items in two",
    ),
    "a page over the rest": (page(13, 2, "[1, 2]"), "items {[14,15)} are more than there are"),
    "an open task with a page": (page(4, 1, "[1]"), "1 open tasks with a result"),
    "another output in the page": (page(2, 1, "[1]"), "1 tasks whose output is another in their page"),
    "a page of another length": (
        "update pgflow.pages set body = '[1]' where is_result",
        "1 pages of another",
    ),
    "elements are lost": (
        "delete from pgflow.pages where first_index = 4 and not is_result",
        "items {[4,8)} have no element",
    ),
    "elements twice": (page(1, 2, "[1, 2]", False), "2 elements in two pages"),
    "counted wrong": (
        "update pgflow.step_states set remaining_tasks = 9 where step_slug = 'm'",
        "remaining_tasks is 9, recounted 10",
    ),
    "failures counted wrong": (
        "update pgflow.step_states set failed_tasks = 0",
        "failed_tasks is 0, recounted 1",
    ),
    "closed": ("update pgflow.range_maps set is_open = false", "closed with items to be leased"),
    "another size": ("update pgflow.step_states set initial_tasks = 15", "15 tasks, 14 items"),
    "spawned": ("update pgflow.step_states set spawned_tasks = 2", "2 tasks spawned"),
    "leased in a failed run": (
        "update pgflow.runs set status = 'failed', failed_at = now()",
        "over with 3 items leased",
    ),
    "of no map": ("update pgflow.ranges set step_slug = 's'", "2 pages and ranges of no map"),
    "silent": ("update pgflow.step_tasks set error_message = null", "1 tasks failed without an error"),
}
WRONG_AT_THE_END = {
    "a page is lost": (
        "delete from pgflow.pages where is_result and first_index = 2",
        "completed with 5 results of 6",
    ),
    "a range is left": (
        "insert into pgflow.ranges select run_id, 'm', 5, 6 from pgflow.runs",
        "completed with 1 items in ranges",
    ),
    "open": ("update pgflow.range_maps set is_open = true", "over and open"),
    "another array": (
        "update pgflow.step_states set output = '[1]' where step_slug = 'm'",
        "its output is not that of its pages",
    ),
    "another output": (
        "update pgflow.runs set output = '{\"m\": [1]}'",
        "the run's output is not that of its",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_UNDER_WAY)
def test_what_is_wrong_under_way_is_found(db: Db, wrong: str) -> None:
    run = state_under_way(db)
    spoil, problem = WRONG_UNDER_WAY[wrong]
    db.do(spoil)
    found = audit_run(db.conn, str(run))
    assert [text for text in found if problem in text], found


@pytest.mark.parametrize("wrong", WRONG_AT_THE_END)
def test_what_is_wrong_at_the_end_is_found(db: Db, wrong: str) -> None:
    run = completed(db)
    spoil, problem = WRONG_AT_THE_END[wrong]
    db.do(spoil)
    found = audit_run(db.conn, str(run))
    assert [text for text in found if problem in text], found


def test_a_map_that_does_not_wait_has_what_its_parent_has(db: Db) -> None:
    run = state_under_way(db)
    db.do("select pgflow.add_step('r', 'c', array['m'], step_type => 'map')")
    db.do("update pgflow.runs set remaining_steps = 3")
    db.do(
        "insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks,"
        " remaining_tasks, remaining_deps, started_at) values ('r', %s, 'c', 'started', 14, 14, 1, now())",
        run,
    )
    db.do(
        "insert into pgflow.range_maps (run_id, step_slug, flow_slug, items, next_index, source_step)"
        " values (%s, 'c', 'r', 14, 14, 'm')",
        run,
    )
    assert audit_run(db.conn, str(run)) == ["c: items {[0,2)} are nowhere"]
    db.do("insert into pgflow.ranges (run_id, step_slug, first_index, end_index) values (%s, 'c', 0, 2)", run)
    assert audit_run(db.conn, str(run)) == []
    advance(db, run, 11)
    assert audit_run(db.conn, str(run)) == ["m: items {[10,11)} are nowhere"]


@pytest.mark.slow
def test_outputs_that_make_no_array_together_are_counted(db: Db) -> None:
    run = ranges_run(db, [*range(56)])
    db.do(
        "insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body) "
        "select %s, 'm', true, i, 1, jsonb_build_array(repeat('x', 5000000)) from generate_series(0, 55) i",
        run,
    )
    db.do("update pgflow.range_maps set is_open = false, next_index = 56")
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, completed_at = now()"
        " where step_slug = 'm'"
    )
    db.do("update pgflow.runs set remaining_steps = 1")
    assert audit_run(db.conn, str(run)) == []
