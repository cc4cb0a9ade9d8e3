"""``cancel_run``, ``retry_failed_tasks``, ``run_progress``, ``run_results`` (ours)."""

from __future__ import annotations

import uuid

import pytest

from .helpers import (
    Db,
    claim,
    complete,
    drain,
    event,
    event_names,
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
    statuses,
    step,
    task,
    task_statuses,
    tasks,
)


def cancel(db: Db, run: uuid.UUID, reason: str | None = None) -> str:
    call = (
        "select status from pgflow.cancel_run(%s)"
        if reason is None
        else "select status from pgflow.cancel_run(%s, %s)"
    )
    status: str = db.value(call, *([run] if reason is None else [run, reason]))
    return status


def retry(db: Db, run: uuid.UUID) -> int:
    count: int = db.value("select pgflow.retry_failed_tasks(%s)", run)
    return count


# -- cancel ------------------------------------------------------------------------------------------------


def test_cancelling_fails_the_run_and_empties_its_queue(db: Db) -> None:
    flow(db, "f", map_step("m"), "a", step("z", "m"))
    run, other = start(db, "f", [1, 2, 3]), start(db, "f", [1])
    claim(db, "f")
    assert cancel(db, run, "not needed") == "failed"
    assert statuses(db, run) == {"m": "failed", "a": "failed", "z": "created"}
    assert state(db, run, "m").error_message == "not needed"
    assert run_row(db, run).failed_at is not None
    assert len(queue(db, "f")) == 2
    assert run_row(db, other).status == "started"
    assert event(db, run, "run:failed")["error_message"] == "not needed"


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_a_finished_run_cannot_be_cancelled_any_more(db: Db, end: str) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=1))
    claim(db, "f")
    if end == "completed":
        complete(db, run, "a", 1)
    else:
        fail(db, run, "a")
    before = snapshot(db, run)
    assert cancel(db, run) == end
    assert snapshot(db, run) == before


def test_after_a_cancel_nothing_is_claimed_or_settled(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map")
    cancel(db, run)
    before = snapshot(db, run)
    assert start_tasks(db, "root_map", [2]) == []
    complete(db, run, "items", 1, 0)
    assert snapshot(db, run) == before


def test_an_unknown_run_is_an_error_of_ours(db: Db) -> None:
    assert db.refused("select pgflow.cancel_run(gen_random_uuid())").sqlstate == "PF003"
    assert db.refused("select pgflow.retry_failed_tasks(gen_random_uuid())").sqlstate == "PF003"


# -- retry -------------------------------------------------------------------------------------------------


def test_a_failed_run_goes_on_where_it_failed(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1), step("z", "m"))
    run = start(db, "f", [1, 2, 3, 4])
    claim(db, "f", 3)
    complete(db, run, "m", "one", 0)
    fail(db, run, "m", "boom", 1)
    assert retry(db, run) == 3
    found = run_row(db, run)
    assert (found.status, found.failed_at, found.remaining_steps) == ("started", None, 2)
    assert [(t.status, t.attempts_count, t.error_message) for t in tasks(db, run)] == [
        ("completed", 1, None),
        ("queued", 0, None),
        ("queued", 0, None),
        ("queued", 0, None),
    ]
    assert (state(db, run, "m").status, state(db, run, "m").remaining_tasks) == ("started", 3)
    assert queue(db, "f") == [("m", 1), ("m", 2), ("m", 3)]
    assert drain(db, "f", {"m": "again"}) == 4
    assert run_row(db, run).status == "completed"
    assert state(db, run, "m").output == ["one", "again", "again", "again"]


def test_other_open_branches_go_on_too(db: Db) -> None:
    flow(db, "f", step("bad", max_attempts=1), "running", "waiting", step("z", "bad", "running", "waiting"))
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "bad")
    assert retry(db, run) == 3
    assert drain(db, "f") == 4
    assert run_row(db, run).status == "completed"


def test_a_type_violation_can_be_retried(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    complete(db, run, "source", "no array")
    assert retry(db, run) == 1
    assert task(db, run, "source").output_is_null
    claim(db, "single_then_map")
    complete(db, run, "source", [1])
    assert drain(db, "single_then_map") == 2
    assert run_row(db, run).status == "completed"


def test_a_cancelled_run_can_be_resumed(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1, 2])
    claim(db, "map_chain")
    cancel(db, run)
    assert retry(db, run) == 2
    assert drain(db, "map_chain") == 7
    assert run_row(db, run).status == "completed"


def test_a_run_that_failed_by_a_condition_fails_by_it_again(db: Db) -> None:
    never = {"required_input_pattern": {"never": 1}, "when_unmet": "fail"}
    flow(db, "f", "other", step("a", **never))
    run = start(db, "f")
    retry(db, run)
    assert run_row(db, run).status == "failed"
    db.do("update pgflow.steps set required_input_pattern = null where step_slug = 'a'")
    retry(db, run)
    assert drain(db, "f") == 2
    assert run_row(db, run).status == "completed"


@pytest.mark.parametrize("status", ["started", "completed"])
def test_only_a_failed_run_can_be_retried(db: Db, status: str) -> None:
    run = start(db, setup(db, "one"))
    if status == "completed":
        drain(db, "one")
    before = snapshot(db, run)
    refusal = db.refused("select pgflow.retry_failed_tasks(%s)", run)
    assert (refusal.sqlstate, status in refusal.message) == ("PF004", True)
    assert snapshot(db, run) == before


def test_a_result_from_before_the_retry_is_stale(db: Db) -> None:
    flow(db, "f", step("bad", max_attempts=1), "slow")
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "bad")
    retry(db, run)
    complete(db, run, "slow", "from before")
    assert task_statuses(db, run, "slow") == ["queued"]


def test_completed_steps_are_not_run_again(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", max_attempts=1))
    run = start(db, "f")
    claim(db, "f")
    complete(db, run, "a", {"kept": 1})
    claim(db, "f")
    fail(db, run, "b")
    assert retry(db, run) == 1
    (found,) = claim(db, "f")
    assert (found.step_slug, found.input) == ("b", {"a": {"kept": 1}})
    complete(db, run, "b", 2)
    assert run_row(db, run).output == {"b": 2}
    assert event_names(db, run).count("run:completed") == 1


# -- reading -----------------------------------------------------------------------------------------------


def test_progress_lists_steps_in_definition_order_with_counters(db: Db) -> None:
    flow(db, "f", map_step("z"), step("a", "z"))
    run = start(db, "f", [1, 2, 3])
    claim(db, "f", 3)
    complete(db, run, "z", 1, 0)
    rows = db.rows("select * from pgflow.run_progress(%s)", run)
    assert [(r.step_slug, r.step_type, r.status, r.initial_tasks, r.remaining_tasks) for r in rows] == [
        ("z", "map", "started", 3, 2),
        ("a", "single", "created", 1, None),
    ]


def test_results_are_paged_in_index_order(db: Db) -> None:
    run = start(db, setup(db, "root_map"), list(range(10)))
    drain(db, "root_map")
    rows = db.rows("select * from pgflow.run_results(%s, 'items', 3, 4)", run)
    assert [(r.task_index, r.status, r.output) for r in rows] == [(i, "completed", i) for i in range(3, 7)]
    assert len(db.rows("select * from pgflow.run_results(%s, 'items')", run)) == 10
