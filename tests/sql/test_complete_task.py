"""``complete_task`` (contract section 8)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import (
    Db,
    archive,
    claim,
    complete,
    complete_null,
    drain,
    event,
    event_names,
    events,
    flow,
    map_step,
    poll_and_complete,
    queue,
    run_row,
    setup,
    snapshot,
    start,
    state,
    statuses,
    step,
    task,
    task_statuses,
    tasks,
    work,
)


def test_a_started_task_is_completed_and_returned(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    (row,) = complete(db, run, "first", {"ok": True})
    assert (row.run_id, row.step_slug, row.task_index) == (run, "first", 0)
    assert (row.status, row.output, row.error_message) == ("completed", {"ok": True}, None)
    assert row == db.row("select * from pgflow.step_tasks where run_id = %s and step_slug = 'first'", run)
    assert db.value("select completed_at = now() from pgflow.step_tasks where step_slug = 'first'")


def test_it_is_called_by_name(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    row = db.row(
        "select * from pgflow.complete_task(run_id => %s, step_slug => 'only', task_index => 0,"
        " output => '1')",
        run,
    )
    assert row.status == "completed"


def test_the_step_completes_with_the_output_and_its_children_start(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    complete(db, run, "first", {"x": 1})
    first = state(db, run, "first")
    assert (first.status, first.remaining_tasks, first.output) == ("completed", 0, {"x": 1})
    assert db.value("select completed_at = now() from pgflow.step_states where step_slug = 'first'")
    second = state(db, run, "second")
    assert (second.status, second.remaining_deps, second.remaining_tasks) == ("started", 0, 1)
    assert (state(db, run, "last").status, state(db, run, "last").remaining_deps) == ("created", 1)
    assert run_row(db, run).remaining_steps == 2
    assert queue(db, "sequential") == [("second", 0)]
    assert archive(db, "sequential") == [("first", 0)]


def test_the_archived_message_is_the_task_s_own(db: Db) -> None:
    run = start(db, setup(db, "three_parallel"))
    claim(db, "three_parallel", 3)
    complete(db, run, "b")
    assert queue(db, "three_parallel") == [("a", 0), ("c", 0)]
    assert archive(db, "three_parallel") == [("b", 0)]


def test_a_run_of_one_step_completes(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    complete(db, run, "only", "done")
    assert (run_row(db, run).status, run_row(db, run).output) == ("completed", {"only": "done"})
    assert run_row(db, run).remaining_steps == 0


def test_a_whole_diamond_runs_to_its_end(db: Db) -> None:
    run = start(db, setup(db, "diamond"))
    assert drain(db, "diamond") == 4
    assert set(statuses(db, run).values()) == {"completed"}
    assert run_row(db, run).status == "completed"
    assert queue(db, "diamond") == []


def test_the_one_statement_helper_completes(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    for slug in ("first", "second", "last"):
        (row,) = poll_and_complete(db, "sequential")
        assert (row.step_slug, row.status) == (slug, "completed")
    assert run_row(db, run).status == "completed"


@pytest.mark.parametrize("output", [{}, [], "", 0, False, {"nested": {"deep": [None]}}])
def test_any_json_is_stored_as_given(db: Db, output: Any) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    complete(db, run, "only", output)
    assert task(db, run, "only").output == output
    assert state(db, run, "only").output == output


def test_json_null_and_sql_null_stay_apart(db: Db) -> None:
    run = start(db, setup(db, "three_parallel"))
    claim(db, "three_parallel", 3)
    complete(db, run, "a", None)
    complete_null(db, run, "b")
    assert (task(db, run, "a").output_text, state(db, run, "a").output_text) == ("null", "null")
    assert (task(db, run, "b").output_text, state(db, run, "b").output_text) == (None, None)
    assert (state(db, run, "a").status, state(db, run, "b").status) == ("completed", "completed")


def test_a_queued_task_is_not_completed_and_its_message_stays(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    before = snapshot(db, run)
    (row,) = complete(db, run, "first", 1)
    assert (row.status, row.output) == ("queued", None)
    assert snapshot(db, run) == before


@pytest.mark.parametrize(("slug", "index"), [("nope", 0), ("first", 5), ("first", -1), ("last", 0)])
def test_without_such_a_task_no_row_comes_back(db: Db, slug: str, index: int) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    before = snapshot(db, run)
    assert complete(db, run, slug, 1, index) == []
    assert snapshot(db, run) == before


def test_an_unknown_run_is_no_error(db: Db) -> None:
    assert complete(db, uuid.uuid4(), "first", 1) == []


def test_null_arguments_are_no_error(db: Db) -> None:
    assert db.rows("select * from pgflow.complete_task(null, null, null, null)") == []


def test_a_step_with_a_map_task_left_stays_started(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    complete(db, run, "items", "b", 1)
    found = state(db, run, "items")
    assert (found.status, found.remaining_tasks, found.initial_tasks, found.output) == ("started", 1, 2, None)
    assert run_row(db, run).remaining_steps == 2
    assert archive(db, "root_map") == [("items", 1)]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_a_map_s_output_is_in_index_order_whatever_the_order_of_completion(db: Db, order: list[int]) -> None:
    run = start(db, setup(db, "root_map"), list("abcd"))
    claim(db, "root_map", 4)
    for index in order:
        complete(db, run, "items", {"i": index}, index)
    assert state(db, run, "items").output == [{"i": i} for i in range(4)]


def test_more_than_ten_outputs_are_in_numeric_order(db: Db) -> None:
    run = start(db, setup(db, "root_map"), list(range(25)))
    for found in sorted(claim(db, "root_map", 25), key=lambda t: -t.task_index):
        complete(db, run, "items", found.task_index, found.task_index)
    assert state(db, run, "items").output == list(range(25))


def test_null_outputs_of_a_map_become_null_elements_in_place(db: Db) -> None:
    run = start(db, setup(db, "root_map"), list("abcd"))
    claim(db, "root_map", 4)
    complete(db, run, "items", "a", 0)
    complete_null(db, run, "items", 1)
    complete(db, run, "items", None, 2)
    complete(db, run, "items", "d", 3)
    assert state(db, run, "items").output_text == '["a", null, null, "d"]'


def test_array_outputs_of_a_map_stay_nested(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    complete(db, run, "items", [1, [2]], 0)
    complete(db, run, "items", [], 1)
    assert state(db, run, "items").output == [[1, [2]], []]


def test_a_map_of_one_gives_an_array_of_one(db: Db) -> None:
    run = start(db, setup(db, "root_map"), ["x"])
    claim(db, "root_map")
    complete(db, run, "items", {"r": 1}, 0)
    assert state(db, run, "items").output == [{"r": 1}]
    assert event(db, run, "step:completed", "items")["output"] == [{"r": 1}]


@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_a_dependent_map_gets_as_many_tasks_as_the_array_has_elements(db: Db, count: int) -> None:
    run = start(db, setup(db, "single_then_map"))
    assert state(db, run, "each").initial_tasks is None
    claim(db, "single_then_map")
    complete(db, run, "source", [{"n": i} for i in range(count)])
    found = state(db, run, "each")
    assert found.initial_tasks == count
    assert found.status == ("completed" if count == 0 else "started")
    assert len(tasks(db, run, "each")) == count


def test_a_map_over_a_map_gets_the_parent_s_count_once_it_is_done(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1, 2, 3])
    claim(db, "map_chain", 3)
    for index in range(2):
        complete(db, run, "m1", index, index)
        assert (state(db, run, "m2").initial_tasks, state(db, run, "m2").status) == (None, "created")
    complete(db, run, "m1", 2, 2)
    assert (state(db, run, "m2").initial_tasks, state(db, run, "m2").status) == (3, "started")
    assert state(db, run, "m3").initial_tasks is None


def test_one_array_feeds_several_maps_and_singles(db: Db) -> None:
    flow(db, "f", "a", map_step("m1", "a"), map_step("m2", "a"), step("s", "a"))
    run = start(db, "f")
    claim(db, "f")
    complete(db, run, "a", [1, 2])
    assert {s: len(tasks(db, run, s)) for s in ("m1", "m2", "s")} == {"m1": 2, "m2": 2, "s": 1}


def test_a_map_chain_runs_to_its_end(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), ["a", "b"])
    assert drain(db, "map_chain") == 7
    assert run_row(db, run).output == {"total": 0}


def test_a_completed_step_is_announced_before_its_children(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    complete(db, run, "first", {"x": 1})
    assert event_names(db, run, "step:") == [
        "step:first:started",
        "step:first:completed",
        "step:second:started",
    ]
    payload = event(db, run, "step:completed", "first")
    assert (payload["output"], payload["status"], payload["step_slug"]) == ({"x": 1}, "completed", "first")
    assert payload["completed_at"]


def test_no_event_is_sent_per_task_of_a_map(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    claim(db, "root_map", 3)
    complete(db, run, "items", 1, 0)
    complete(db, run, "items", 1, 1)
    assert events(db, run, "step:completed") == []
    complete(db, run, "items", 1, 2)
    assert len(events(db, run, "step:completed")) == 1


# -- replays ---------------------------------------------------------------------------------------------


def test_completing_a_single_step_twice_keeps_the_first_output(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    complete(db, run, "first", "one")
    before = snapshot(db, run)
    (row,) = complete(db, run, "first", "two")
    assert (row.status, row.output) == ("completed", "one")
    assert snapshot(db, run) == before


def test_completing_a_map_task_twice_counts_once(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    claim(db, "root_map", 3)
    complete(db, run, "items", "one", 0)
    before = snapshot(db, run)
    (row,) = complete(db, run, "items", "two", 0)
    assert (row.status, row.output) == ("completed", "one")
    assert snapshot(db, run) == before
    assert state(db, run, "items").remaining_tasks == 2


def test_completing_after_the_run_completed_changes_nothing(db: Db) -> None:
    run = start(db, setup(db, "one"))
    work(db, "one", {"only": 1})
    before = snapshot(db, run)
    (row,) = complete(db, run, "only", 2)
    assert row.output == 1
    assert snapshot(db, run) == before


def test_a_late_completion_archives_a_message_that_was_left(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    db.do("update pgflow.step_states set status = 'completed', remaining_tasks = 0 where step_slug = 'first'")
    (row,) = complete(db, run, "first", 1)
    assert row.status == "started"
    assert task(db, run, "first").output_is_null
    assert archive(db, "sequential") == [("first", 0)]
    assert state(db, run, "second").remaining_deps == 1


def test_a_task_without_a_message_can_be_completed(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    db.do("update pgflow.step_tasks set message_id = null")
    (row,) = complete(db, run, "first", 1)
    assert row.status == "completed"
    assert state(db, run, "second").status == "started"


def test_on_a_failed_run_nothing_at_all_changes(db: Db) -> None:
    run = start(db, setup(db, "three_parallel"))
    claim(db, "three_parallel", 3)
    db.do("update pgflow.runs set status = 'failed', failed_at = now() where run_id = %s", run)
    before = snapshot(db, run)
    (row,) = complete(db, run, "a", 1)
    assert (row.status, row.output) == ("started", None)
    assert snapshot(db, run) == before


# -- type violation --------------------------------------------------------------------------------------

VIOLATIONS = [({"a": 1}, "object"), ("text", "string"), (42, "number"), (True, "boolean"), (None, "null")]


def violate(db: Db, run: uuid.UUID, slug: str, output: Any) -> Any:
    return db.row("select * from pgflow.complete_task(%s, %s, 0, %s)", run, slug, Jsonb(output))


@pytest.mark.parametrize(("output", "kind"), VIOLATIONS)
def test_a_parent_of_a_map_must_give_an_array(db: Db, output: Any, kind: str) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    row = violate(db, run, "source", output)
    assert (row.status, row.output, row.completed_at) == ("failed", output, None)
    assert row.failed_at is not None
    assert row.error_message == f"[TYPE_VIOLATION] Produced {kind} instead of array"
    found = state(db, run, "source")
    assert found.status == "failed"
    assert found.error_message == (
        f"[TYPE_VIOLATION] Map step each expects array input but dependency source produced {kind}"
    )
    assert found.failed_at is not None
    assert found.output_is_null
    assert run_row(db, run).status == "failed"
    assert run_row(db, run).failed_at is not None
    each = state(db, run, "each")
    assert (each.status, each.initial_tasks) == ("created", None)
    assert tasks(db, run, "each") == []
    assert queue(db, "single_then_map") == []
    assert archive(db, "single_then_map") == [("source", 0)]


def test_no_output_at_all_violates_as_null(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    (row,) = complete_null(db, run, "source")
    assert (row.status, row.error_message) == ("failed", "[TYPE_VIOLATION] Produced null instead of array")
    assert task(db, run, "source").output_is_null
    assert "produced null" in state(db, run, "source").error_message


def test_json_null_is_kept_as_the_offending_value(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    violate(db, run, "source", None)
    assert task(db, run, "source").output_text == "null"


def test_a_violation_is_announced_with_its_text(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    violate(db, run, "source", "x")
    payload = event(db, run, "step:failed", "source")
    assert payload["error_message"] == (
        "[TYPE_VIOLATION] Map step each expects array input but dependency source produced string"
    )
    assert payload["status"] == "failed"
    assert payload["failed_at"]
    failed = event(db, run, "run:failed")
    assert failed["flow_slug"] == "single_then_map"
    assert failed["failed_at"]
    assert events(db, run, "step:completed") == []


def test_a_violation_is_not_retried_and_ignores_when_exhausted(db: Db) -> None:
    for mode in ("skip", "skip-cascade", "fail"):
        slug = "f_" + mode.replace("-", "_")
        flow(db, slug, step("a", when_exhausted=mode, max_attempts=5), map_step("m", "a"))
        run = start(db, slug)
        claim(db, slug)
        assert violate(db, run, "a", {}).status == "failed"
        assert (state(db, run, "a").status, run_row(db, run).status) == ("failed", "failed")


def test_a_violation_cancels_every_open_task_of_the_run_and_archives_its_message(db: Db) -> None:
    flow(db, "f", "bad", map_step("m", "bad"), "running", "waiting", step("child", "bad"))
    run = start(db, "f")
    found = {t.step_slug for t in claim(db, "f", 2)}
    assert found == {"bad", "running"}
    violate(db, run, "bad", 1)
    assert queue(db, "f") == []
    assert archive(db, "f") == [("bad", 0), ("running", 0), ("waiting", 0)]
    assert task_statuses(db, run, "running") == ["cancelled"]
    assert task_statuses(db, run, "waiting") == ["cancelled"]
    assert event_names(db, run)[-2:] == ["run:failed", "step:bad:failed"]
    assert "error_message" not in event(db, run, "run:failed")
    assert statuses(db, run) == {
        "bad": "failed",
        "m": "created",
        "running": "started",
        "waiting": "started",
        "child": "created",
    }
    assert tasks(db, run, "child") == []


def test_after_a_violation_other_completions_change_nothing(db: Db) -> None:
    flow(db, "f", "bad", map_step("m", "bad"), "other")
    run = start(db, "f")
    claim(db, "f", 2)
    violate(db, run, "bad", 1)
    before = snapshot(db, run)
    complete(db, run, "other", 1)
    complete(db, run, "bad", [1])
    assert snapshot(db, run) == before


def test_with_several_maps_one_is_named(db: Db) -> None:
    flow(db, "f", "a", map_step("m2", "a"), map_step("m1", "a"))
    run = start(db, "f")
    claim(db, "f")
    violate(db, run, "a", 7)
    message = state(db, run, "a").error_message
    assert message.startswith("[TYPE_VIOLATION] Map step m")
    assert message.endswith("expects array input but dependency a produced number")
    assert len(events(db, run, "step:failed")) == 1
    assert len(events(db, run, "run:failed")) == 1


@pytest.mark.parametrize("output", [{}, 1, None])
def test_without_a_waiting_map_any_output_is_fine(db: Db, output: Any) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    assert violate(db, run, "first", output).status == "completed"


def test_a_map_parent_may_give_any_elements(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1])
    claim(db, "map_chain")
    (row,) = complete(db, run, "m1", {"not": "array"}, 0)
    assert row.status == "completed"
    assert [t.input for t in claim(db, "map_chain")] == [{"not": "array"}]


def test_a_violation_on_a_skipped_map_is_none(db: Db) -> None:
    flow(db, "f", "a", map_step("m", "a"))
    run = start(db, "f")
    claim(db, "f")
    db.do(
        "update pgflow.step_states set status = 'skipped', skip_reason = 'x', skipped_at = now(),"
        " initial_tasks = 0"
        " where run_id = %s and step_slug = 'm'",
        run,
    )
    assert violate(db, run, "a", 1).status == "completed"
