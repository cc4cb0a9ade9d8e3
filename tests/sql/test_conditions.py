"""Conditions and skips: ``cascade_resolve_conditions`` (contract section 10)."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest

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
    fail,
    flow,
    map_step,
    queue,
    reasons,
    run_row,
    setup,
    snapshot,
    start,
    state,
    statuses,
    step,
    tasks,
    work,
)

NEVER = {"required_input_pattern": {"never": 1}}


def resolve(db: Db, run: uuid.UUID) -> bool:
    answer: bool = db.value("select pgflow.cascade_resolve_conditions(%s)", run)
    return answer


# -- containment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("required", "forbidden", "given", "met"),
    [
        ({"a": 1}, None, {"a": 1}, True),
        ({"a": 1}, None, {"a": 1, "b": 2}, True),
        ({"a": 1}, None, {"a": 2}, False),
        ({"a": 1}, None, {}, False),
        ({"a": {"b": 1}}, None, {"a": {"b": 1, "c": 2}}, True),
        ({"a": [1]}, None, {"a": [1, 2]}, True),
        ({"a": [3]}, None, {"a": [1, 2]}, False),
        ({"a": None}, None, {"a": None}, True),
        ({"a": None}, None, {}, False),
        ({"a": True}, None, {"a": "true"}, False),
        ({}, None, {}, True),
        ({}, None, {"x": 1}, True),
        ({}, None, [1], False),
        ({}, None, "text", False),
        ({"a": 1}, None, [{"a": 1}], False),
        (None, {"a": 1}, {"a": 1}, False),
        (None, {"a": 1}, {"a": 2}, True),
        (None, {"a": 1}, {}, True),
        (None, {}, {"x": 1}, False),
        (None, {}, [1], True),
        ({"a": 1}, {"b": 1}, {"a": 1}, True),
        ({"a": 1}, {"b": 1}, {"a": 1, "b": 1}, False),
        ({"a": 1}, {"b": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1}, {"a": 1}, False),
    ],
)
def test_a_root_step_s_condition_is_containment_in_the_flow_input(
    db: Db, required: Any, forbidden: Any, given: Any, met: bool
) -> None:
    flow(db, "f", step("a", required_input_pattern=required, forbidden_input_pattern=forbidden), "other")
    run = start(db, "f", given)
    assert state(db, run, "a").status == ("started" if met else "skipped")
    assert len(tasks(db, run, "a")) == (1 if met else 0)
    assert run_row(db, run).remaining_steps == (2 if met else 1)


def test_a_required_pattern_on_a_root_map_can_only_be_unmet(db: Db) -> None:
    flow(db, "f", map_step("m", required_input_pattern={}), map_step("n", forbidden_input_pattern={}))
    run = start(db, "f", [{"a": 1}])
    assert statuses(db, run) == {"m": "skipped", "n": "started"}


@pytest.mark.parametrize(
    ("required", "output", "met"),
    [
        ({"a": {"ok": True}}, {"ok": True, "more": 1}, True),
        ({"a": {"ok": True}}, {"ok": False}, False),
        ({"a": {}}, {}, True),
        ({"a": {}}, [1], False),
        ({"a": 5}, 5, True),
        ({"a": [1]}, [1, 2], True),
        ({"ok": True}, {"ok": True}, False),
    ],
)
def test_a_dependent_step_s_condition_looks_at_its_parents_outputs_by_slug(
    db: Db, required: Any, output: Any, met: bool
) -> None:
    flow(db, "f", "a", step("b", "a", required_input_pattern=required))
    run = start(db, "f", required)
    claim(db, "f")
    complete(db, run, "a", output)
    assert state(db, run, "b").status == ("started" if met else "skipped")


def test_the_flow_input_is_not_what_a_dependent_step_is_tested_with(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", required_input_pattern={"go": 1}))
    run = start(db, "f", {"go": 1})
    work(db, "f")
    assert state(db, run, "b").status == "skipped"


def test_all_parents_are_tested_together(db: Db) -> None:
    flow(db, "f", "a", "b", step("c", "a", "b", required_input_pattern={"a": 1, "b": 2}))
    run = start(db, "f")
    claim(db, "f", 2)
    complete(db, run, "a", 1)
    assert state(db, run, "c").status == "created"
    complete(db, run, "b", 2)
    assert state(db, run, "c").status == "started"


def test_a_dependent_map_is_tested_with_its_parent_s_array(db: Db) -> None:
    flow(
        db,
        "f",
        "a",
        map_step("m", "a", required_input_pattern={"a": [1]}),
        map_step("n", "a", required_input_pattern={"a": [9]}),
    )
    run = start(db, "f")
    claim(db, "f")
    complete(db, run, "a", [1, 2])
    assert statuses(db, run) == {"a": "completed", "m": "started", "n": "skipped"}


def test_a_step_behind_a_map_is_tested_with_the_map_s_array(db: Db) -> None:
    flow(db, "f", map_step("m"), step("b", "m", required_input_pattern={"m": [{"bad": True}]}))
    run = start(db, "f", [1, 2])
    claim(db, "f", 2)
    complete(db, run, "m", {"bad": True}, 1)
    complete(db, run, "m", {"bad": False}, 0)
    assert state(db, run, "b").status == "started"


def test_a_parent_with_null_output_is_there_as_null(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", required_input_pattern={"a": None}))
    run = start(db, "f")
    claim(db, "f")
    complete_null(db, run, "a")
    assert state(db, run, "b").status == "started"


def test_forbidding_a_parent_means_run_only_when_it_was_skipped(db: Db) -> None:
    for skip in (True, False):
        slug = f"f_{skip}"
        options: dict[str, Any] = NEVER if skip else {}
        flow(db, slug, step("a", **options), step("b", "a", forbidden_input_pattern={"a": {}}))
        run = start(db, slug)
        work(db, slug, {"a": {}})
        assert state(db, run, "b").status == ("completed" if skip else "skipped")


def test_a_required_pattern_that_names_a_skipped_parent_is_unmet(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", "a", required_input_pattern={"a": {}}))
    run = start(db, "f")
    assert reasons(db, run) == {"a": "condition_unmet", "b": "condition_unmet"}


def test_with_all_parents_skipped_an_empty_object_is_tested(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", "a", required_input_pattern={}))
    run = start(db, "f")
    assert state(db, run, "b").status == "started"


# -- skip ------------------------------------------------------------------------------------------------


def test_skip_marks_the_step_and_lets_its_children_run(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", "a"))
    run = start(db, "f")
    found = state(db, run, "a")
    assert (found.status, found.skip_reason, found.remaining_tasks) == ("skipped", "condition_unmet", None)
    assert (found.started_at, found.error_message, found.output) == (None, None, None)
    assert db.value("select skipped_at = now() from pgflow.step_states where step_slug = 'a'")
    assert (state(db, run, "b").status, state(db, run, "b").remaining_deps) == ("started", 0)
    assert run_row(db, run).remaining_steps == 1
    assert queue(db, "f") == [("b", 0)]
    payload = event(db, run, "step:skipped", "a")
    assert (payload["skip_reason"], payload["flow_slug"]) == ("condition_unmet", "f")
    assert payload["status"] == "skipped"
    assert payload["skipped_at"]


def test_a_skipped_step_s_child_waits_for_its_other_parent(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), "b", step("c", "a", "b"))
    run = start(db, "f")
    assert (state(db, run, "c").status, state(db, run, "c").remaining_deps) == ("created", 1)
    work(db, "f", {"b": 1})
    assert claim(db, "f")[0].input == {"b": 1}


def test_two_parents_skipped_at_once_count_two(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", **NEVER), step("c", **NEVER), step("d", "a", "b", "c"))
    run = start(db, "f")
    assert (state(db, run, "d").status, state(db, run, "d").remaining_deps) == ("started", 0)
    assert run_row(db, run).remaining_steps == 1


def test_a_chain_of_conditions_is_resolved_turn_by_turn(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", "a", required_input_pattern={"a": {}}), step("c", "b"))
    run = start(db, "f")
    assert reasons(db, run) == {"a": "condition_unmet", "b": "condition_unmet", "c": None}
    assert state(db, run, "c").status == "started"
    assert event_names(db, run, "step:") == ["step:a:skipped", "step:b:skipped", "step:c:started"]


def test_a_map_over_a_skipped_step_becomes_empty(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), map_step("m", "a"), step("b", "m"))
    run = start(db, "f")
    found = state(db, run, "m")
    assert (found.status, found.initial_tasks, found.output) == ("completed", 0, [])
    assert claim(db, "f")[0].input == {"m": []}


def test_a_conditional_map_over_a_skipped_step_is_skipped_and_not_completed(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), map_step("m", "a", required_input_pattern={"a": [1]}), step("b", "m"))
    run = start(db, "f")
    assert statuses(db, run) == {"a": "skipped", "m": "skipped", "b": "started"}
    assert claim(db, "f")[0].input == {}


def test_a_skipped_root_map_empties_the_map_over_it(db: Db) -> None:
    flow(db, "f", map_step("m", **NEVER), map_step("n", "m"), step("end_it", "n"))
    run = start(db, "f", [1, 2, 3])
    assert statuses(db, run) == {"m": "skipped", "n": "completed", "end_it": "started"}


def test_a_run_can_end_through_skips_alone(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", **NEVER))
    run = start(db, "f")
    found = run_row(db, run)
    assert (found.status, found.remaining_steps, found.output_is_null) == ("completed", 0, True)
    assert event_names(db, run) == ["run:started", "step:a:skipped", "step:b:skipped", "run:completed"]


def test_the_last_step_skipped_after_a_completion_ends_the_run(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", **NEVER))
    run = start(db, "f")
    work(db, "f")
    assert run_row(db, run).status == "completed"
    assert archive(db, "f") == [("a", 0)]


def test_a_long_chain_of_skips_within_the_limit_resolves(db: Db) -> None:
    names = [f"s{i}" for i in range(45)]
    flow(db, "f", step(names[0], **NEVER), *[step(b, a, **NEVER) for a, b in itertools.pairwise(names)])
    run = start(db, "f")
    assert run_row(db, run).status == "completed"
    assert len(events(db, run, "step:skipped")) == 45


def test_a_chain_of_skips_beyond_the_limit_is_refused_or_resolves(db: Db) -> None:
    """The limit of 50 turns is contract text; a chain of 60 needs more turns than that."""
    names = [f"s{i}" for i in range(60)]
    flow(db, "f", step(names[0], **NEVER), *[step(b, a, **NEVER) for a, b in itertools.pairwise(names)])
    refusal = db.refused("select pgflow.start_flow('f', '{}')")
    assert refusal.sqlstate == "P0001"
    assert refusal.message == "cascade_resolve_conditions exceeded safety limit of 50 iterations"


# -- skip-cascade ----------------------------------------------------------------------------------------


def test_skip_cascade_skips_every_descendant(db: Db) -> None:
    flow(
        db,
        "f",
        step("a", when_unmet="skip-cascade", **NEVER),
        "free",
        step("b", "a"),
        map_step("c", "b"),
        step("join", "b", "free"),
        step("other", "free"),
    )
    run = start(db, "f")
    assert reasons(db, run) == {
        "a": "condition_unmet",
        "free": None,
        "b": "dependency_skipped",
        "c": "dependency_skipped",
        "join": "dependency_skipped",
        "other": None,
    }
    assert run_row(db, run).remaining_steps == 2
    assert event_names(db, run, "step:") == [
        "step:a:skipped",
        "step:b:skipped",
        "step:c:skipped",
        "step:join:skipped",
        "step:free:started",
    ]
    drain(db, "f")
    assert run_row(db, run).output == {"other": 0}


def test_skip_cascade_of_everything_completes_the_run(db: Db) -> None:
    flow(db, "f", step("a", when_unmet="skip-cascade", **NEVER), step("b", "a"), step("c", "b"))
    run = start(db, "f")
    found = run_row(db, run)
    assert (found.status, found.remaining_steps, found.output_is_null) == ("completed", 0, True)


def test_two_cascades_over_one_descendant_count_it_once(db: Db) -> None:
    cascade = {"when_unmet": "skip-cascade", **NEVER}
    flow(db, "f", step("a", **cascade), step("b", **cascade), step("c", "a", "b"), "d")
    run = start(db, "f")
    assert run_row(db, run).remaining_steps == 1
    assert len(events(db, run, "step:skipped")) == 3
    assert reasons(db, run) == {
        "a": "condition_unmet",
        "b": "condition_unmet",
        "c": "dependency_skipped",
        "d": None,
    }


def test_skip_cascade_after_a_completion_leaves_started_branches(db: Db) -> None:
    flow(
        db,
        "f",
        "a",
        "other",
        step("b", "a", when_unmet="skip-cascade", **NEVER),
        step("c", "b"),
        step("d", "a"),
    )
    run = start(db, "f")
    claim(db, "f", 2)
    complete(db, run, "a", 1)
    assert statuses(db, run) == {
        "a": "completed",
        "other": "started",
        "b": "skipped",
        "c": "skipped",
        "d": "started",
    }


def test_skip_and_skip_cascade_in_one_turn(db: Db) -> None:
    flow(
        db,
        "f",
        step("a", **NEVER),
        step("b", when_unmet="skip-cascade", **NEVER),
        step("c", "a", "b"),
        step("d", "a"),
    )
    run = start(db, "f")
    assert reasons(db, run) == {
        "a": "condition_unmet",
        "b": "condition_unmet",
        "c": "dependency_skipped",
        "d": None,
    }
    assert run_row(db, run).remaining_steps == 1
    assert state(db, run, "d").status == "started"


# -- fail ------------------------------------------------------------------------------------------------


def test_an_unmet_fail_condition_fails_step_and_run(db: Db) -> None:
    flow(db, "f", "before", step("a", when_unmet="fail", **NEVER), step("b", "a"))
    run = start(db, "f")
    found = state(db, run, "a")
    assert (found.status, found.error_message, found.skip_reason) == ("failed", "Condition not met", None)
    assert found.failed_at is not None
    assert found.started_at is None
    assert run_row(db, run).status == "failed"
    assert run_row(db, run).failed_at is not None
    assert run_row(db, run).remaining_steps == 3
    assert statuses(db, run) == {"before": "created", "a": "failed", "b": "created"}
    assert tasks(db, run) == []
    assert queue(db, "f") == []
    for payload in (event(db, run, "step:failed", "a"), event(db, run, "run:failed")):
        assert (payload["error_message"], payload["status"]) == ("Condition not met", "failed")
        assert payload["failed_at"]
    assert event(db, run, "run:failed")["flow_slug"] == "f"
    assert event_names(db, run) == ["run:started", "step:a:failed", "run:failed"]


def test_a_fail_condition_met_later_fails_the_run_and_archives_what_is_open(db: Db) -> None:
    flow(db, "f", "a", "running", "waiting", step("b", "a", when_unmet="fail", **NEVER), step("c", "a"))
    run = start(db, "f")
    claim(db, "f", 2)
    (row,) = complete(db, run, "a", 5)
    assert (row.status, row.output) == ("completed", 5)
    assert statuses(db, run) == {
        "a": "completed",
        "running": "started",
        "waiting": "started",
        "b": "failed",
        "c": "created",
    }
    assert run_row(db, run).remaining_steps == 4
    assert queue(db, "f") == []
    assert archive(db, "f") == [("a", 0), ("running", 0), ("waiting", 0)]
    assert tasks(db, run, "b") == []
    assert event_names(db, run, "step:")[-2:] == ["step:a:completed", "step:b:failed"]


def test_of_several_fail_conditions_the_first_by_definition_is_named(db: Db) -> None:
    flow(db, "f", step("z", when_unmet="fail", **NEVER), step("a", when_unmet="fail", **NEVER))
    run = start(db, "f")
    assert statuses(db, run) == {"z": "failed", "a": "created"}
    assert len(events(db, run, "step:failed")) == 1
    assert len(events(db, run, "run:failed")) == 1


def test_fail_comes_before_skip_in_one_turn(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", when_unmet="fail", **NEVER))
    run = start(db, "f")
    assert statuses(db, run) == {"a": "created", "b": "failed"}


def test_a_fail_condition_behind_a_skip_fails_the_run(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), step("b", "a", when_unmet="fail", required_input_pattern={"a": {}}))
    run = start(db, "f")
    assert statuses(db, run) == {"a": "skipped", "b": "failed"}
    assert run_row(db, run).status == "failed"


def test_a_fail_condition_that_holds_lets_the_step_run(db: Db) -> None:
    flow(db, "f", step("a", when_unmet="fail", required_input_pattern={"go": True}))
    run = start(db, "f", {"go": True})
    assert state(db, run, "a").status == "started"


# -- the function itself -----------------------------------------------------------------------------------


def test_it_answers_true_when_there_is_nothing_to_do(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    before = snapshot(db, run)
    assert resolve(db, run) is True
    assert snapshot(db, run) == before


@pytest.mark.parametrize(("status", "answer"), [("failed", False), ("completed", True)])
def test_on_a_finished_run_it_only_says_whether_it_failed(db: Db, status: str, answer: bool) -> None:
    flow(db, "f", "a", step("b", "a", **NEVER))
    run = start(db, "f")
    db.do("update pgflow.step_states set remaining_deps = 0 where step_slug = 'b'")
    db.do("update pgflow.runs set status = %s where run_id = %s", status, run)
    before = snapshot(db, run)
    assert resolve(db, run) is answer
    assert snapshot(db, run) == before


def test_called_by_hand_it_skips_what_became_ready(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", **NEVER), step("c", "b"))
    run = start(db, "f")
    db.do("update pgflow.step_states set remaining_deps = 0 where step_slug = 'b'")
    assert resolve(db, run) is True
    assert statuses(db, run) == {"a": "started", "b": "skipped", "c": "created"}
    assert state(db, run, "c").remaining_deps == 0


def test_called_by_hand_it_fails_what_became_ready(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", when_unmet="fail", **NEVER))
    run = start(db, "f")
    db.do("update pgflow.step_states set remaining_deps = 0 where step_slug = 'b'")
    assert resolve(db, run) is False
    assert run_row(db, run).status == "failed"
    assert queue(db, "f") == []


def test_a_step_that_is_not_ready_is_not_judged(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", when_unmet="fail", **NEVER))
    run = start(db, "f")
    assert state(db, run, "b").status == "created"
    assert resolve(db, run) is True


def test_conditions_are_judged_again_after_a_retry_succeeds(db: Db) -> None:
    flow(db, "f", step("a", base_delay=0), step("b", "a", required_input_pattern={"a": {"ok": True}}))
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    claim(db, "f")
    complete(db, run, "a", {"ok": True})
    assert state(db, run, "b").status == "started"
