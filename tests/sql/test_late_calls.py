"""Late calls and replays (contract section 11), cell by cell."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from .helpers import (
    Db,
    archive,
    claim,
    complete,
    fail,
    flow,
    map_step,
    queue,
    run_row,
    setup,
    snapshot,
    start,
    start_tasks,
    state,
    step,
    task,
    tasks,
    worker,
)

Call = Callable[[Db, uuid.UUID, str], object]


def late_complete(db: Db, run: uuid.UUID, slug: str) -> object:
    return complete(db, run, slug, "late")


def late_fail(db: Db, run: uuid.UUID, slug: str) -> object:
    return fail(db, run, slug, "late")


def late_start(db: Db, run: uuid.UUID, slug: str) -> object:
    worker(db, run_row(db, run).flow_slug)
    found = start_tasks(db, run_row(db, run).flow_slug, [task(db, run, slug).message_id])
    assert found == []
    return found


CALLS = [late_complete, late_fail, late_start]


@pytest.mark.parametrize("call", [late_complete, late_fail])
def test_a_queued_task_is_not_settled(db: Db, call: Call) -> None:
    run = start(db, setup(db, "sequential"))
    before = snapshot(db, run)
    call(db, run, "first")
    assert snapshot(db, run) == before


def test_a_started_task_is_not_started_again(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    before = snapshot(db, run)["tasks"]
    late_start(db, run, "first")
    assert snapshot(db, run)["tasks"] == before


@pytest.mark.parametrize("call", CALLS)
def test_a_completed_task_of_an_open_map_stays(db: Db, call: Call) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    complete(db, run, "items", "first", 0)
    before = snapshot(db, run)
    call(db, run, "items")
    assert snapshot(db, run) == before


@pytest.mark.parametrize("call", CALLS)
def test_a_completed_step_stays(db: Db, call: Call) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    complete(db, run, "first", "first")
    before = snapshot(db, run)
    call(db, run, "first")
    assert snapshot(db, run) == before


def skipped_map(db: Db) -> uuid.UUID:
    """A map skipped by the exhaustion of one task while another task is held by a worker."""
    flow(db, "f", map_step("m", max_attempts=1, when_exhausted="skip"), "other", step("join", "m", "other"))
    run = start(db, "f", [1, 2, 3])
    claim(db, "f", 2)
    fail(db, run, "m", "first", 1)
    assert state(db, run, "m").status == "skipped"
    return run


@pytest.mark.parametrize("call", CALLS)
def test_a_skipped_step_stays(db: Db, call: Call) -> None:
    run = skipped_map(db)
    before = snapshot(db, run)
    call(db, run, "m")
    assert snapshot(db, run) == before


@pytest.mark.parametrize("call", [late_complete, late_fail])
def test_a_late_call_on_a_skipped_step_archives_a_message_that_is_still_there(db: Db, call: Call) -> None:
    run = start(db, setup(db, "two_roots"))
    claim(db, "two_roots")
    db.do(
        "update pgflow.step_states set status = 'skipped', skip_reason = 'condition_unmet',"
        " skipped_at = now(),"
        " remaining_tasks = null where step_slug = 'root_a'"
    )
    before = snapshot(db, run)
    call(db, run, "root_a")
    after = snapshot(db, run)
    assert {k: after[k] for k in ("run", "steps", "tasks", "events")} == {
        k: before[k] for k in ("run", "steps", "tasks", "events")
    }
    assert queue(db, "two_roots") == [("root_b", 0)]
    assert archive(db, "two_roots") == [("root_a", 0)]


def failed_run(db: Db) -> uuid.UUID:
    flow(db, "f", step("bad", max_attempts=1), "other", "waiting", step("child", "other"))
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "bad", "first")
    assert run_row(db, run).status == "failed"
    return run


@pytest.mark.parametrize("call", CALLS)
def test_the_failed_step_of_a_failed_run_stays(db: Db, call: Call) -> None:
    run = failed_run(db)
    before = snapshot(db, run)
    call(db, run, "bad")
    assert snapshot(db, run) == before


@pytest.mark.parametrize("call", CALLS)
def test_another_step_of_a_failed_run_stays(db: Db, call: Call) -> None:
    run = failed_run(db)
    before = snapshot(db, run)
    call(db, run, "other")
    assert snapshot(db, run) == before
    assert (task(db, run, "other").status, task(db, run, "other").output) == ("cancelled", None)
    assert state(db, run, "other").status == "started"


@pytest.mark.parametrize("call", CALLS)
def test_a_queued_task_of_a_failed_run_stays(db: Db, call: Call) -> None:
    run = failed_run(db)
    before = snapshot(db, run)
    call(db, run, "waiting")
    assert snapshot(db, run) == before


@pytest.mark.parametrize("call", [late_complete, late_fail])
def test_a_completed_run_stays(db: Db, call: Call) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    complete(db, run, "only", 1)
    before = snapshot(db, run)
    call(db, run, "only")
    assert snapshot(db, run) == before


@pytest.mark.parametrize("call", [late_complete, late_fail])
def test_a_step_by_hand_put_back_to_created_only_loses_its_message(db: Db, call: Call) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    db.do("update pgflow.step_states set status = 'created', remaining_tasks = null")
    call(db, run, "only")
    assert task(db, run, "only").status == "started"
    assert archive(db, "one") == [("only", 0)]


def test_the_siblings_of_a_failed_map_task_are_cancelled(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1))
    run = start(db, "f", [1, 2, 3])
    claim(db, "f")
    fail(db, run, "m")
    assert [t.status for t in tasks(db, run)] == ["failed", "cancelled", "cancelled"]
    assert start_tasks(db, "f", [2, 3]) == []
