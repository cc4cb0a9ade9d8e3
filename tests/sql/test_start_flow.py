"""``start_flow`` (contract 6.1)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import (
    Db,
    Row,
    event,
    event_names,
    flow,
    map_step,
    queue,
    run_row,
    setup,
    start,
    state,
    statuses,
    step,
    task_statuses,
    tasks,
)


def test_it_returns_exactly_one_run_row(db: Db) -> None:
    setup(db, "sequential")
    row = db.row("select *, started_at = now() as fresh from pgflow.start_flow('sequential', '{\"a\": 1}')")
    assert isinstance(row.run_id, uuid.UUID)
    assert (row.flow_slug, row.status, row.input, row.output) == ("sequential", "started", {"a": 1}, None)
    assert (row.remaining_steps, row.fresh, row.completed_at, row.failed_at) == (3, True, None, None)


def test_a_given_id_is_used(db: Db) -> None:
    setup(db, "one")
    given = uuid.uuid4()
    row = db.row("select * from pgflow.start_flow(flow_slug => 'one', input => '{}', run_id => %s)", given)
    assert row.run_id == given


def test_a_null_id_means_a_new_one(db: Db) -> None:
    setup(db, "one")
    assert db.row("select * from pgflow.start_flow('one', '{}', null)").run_id is not None


def test_every_step_has_a_state_and_only_roots_are_started(db: Db) -> None:
    run = start(db, setup(db, "two_roots_left_right"))
    assert statuses(db, run) == {
        "connected_root": "started",
        "disconnected_root": "started",
        "left": "created",
        "right": "created",
    }
    assert run_row(db, run).remaining_steps == 4


def test_states_carry_their_counts(db: Db) -> None:
    flow(
        db,
        "f",
        "a",
        "b",
        step("c", "a", "b"),
        map_step("m", "a"),
        map_step("n", "m"),
    )
    run = start(db, "f")
    found = {
        r.step_slug: (r.remaining_deps, r.initial_tasks, r.remaining_tasks)
        for r in db.rows("select * from pgflow.step_states where run_id = %s", run)
    }
    assert found == {
        "a": (0, 1, 1),
        "b": (0, 1, 1),
        "c": (2, 1, None),
        "m": (1, None, None),
        "n": (1, None, None),
    }


def test_root_steps_get_one_queued_task_each(db: Db) -> None:
    run = start(db, setup(db, "two_roots"))
    assert [(t.step_slug, t.task_index, t.status, t.attempts_count) for t in tasks(db, run)] == [
        ("root_a", 0, "queued", 0),
        ("root_b", 0, "queued", 0),
    ]
    assert queue(db, "two_roots") == [("root_a", 0), ("root_b", 0)]


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ([1, 2, 3], 3),
        (["only"], 1),
        ([[1, 2], [3], []], 3),
        ([1, "two", {"three": 3}, None, True, [6]], 6),
        ([None, None], 2),
        ([{}], 1),
        ([[]], 1),
        (list(range(150)), 150),
    ],
)
def test_a_root_map_gets_one_task_per_top_level_element(db: Db, given: list[Any], count: int) -> None:
    run = start(db, setup(db, "root_map"), given)
    found = state(db, run, "items")
    assert (found.status, found.initial_tasks, found.remaining_tasks) == ("started", count, count)
    assert [t.task_index for t in tasks(db, run, "items")] == list(range(count))
    assert state(db, run, "total").initial_tasks == 1


def test_a_root_map_over_an_empty_array_completes_at_once(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), [])
    found = state(db, run, "m")
    assert (found.status, found.initial_tasks, found.remaining_tasks, found.output) == ("completed", 0, 0, [])
    assert run_row(db, run).status == "completed"
    assert run_row(db, run).output == {"m": []}
    assert tasks(db, run) == []
    assert queue(db, "f") == []


def test_the_returned_row_is_the_run_as_it_is_now(db: Db) -> None:
    flow(db, "f", map_step("m"))
    row = db.row("select * from pgflow.start_flow('f', '[]')")
    assert (row.status, row.remaining_steps, row.output) == ("completed", 0, {"m": []})
    assert row.completed_at is not None


def test_several_root_maps_share_the_input(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m1"), map_step("m2"), "single"), ["a", "b"])
    assert {s: len(tasks(db, run, s)) for s in ("m1", "m2", "single")} == {"m1": 2, "m2": 2, "single": 1}


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"a": 1}, "object"),
        ({}, "object"),
        ("text", "string"),
        (42, "number"),
        (True, "boolean"),
        (None, "null"),
    ],
)
def test_a_root_map_refuses_an_input_that_is_no_array(db: Db, given: Any, kind: str) -> None:
    setup(db, "root_map")
    refusal = db.refused("select pgflow.start_flow('root_map', %s)", Jsonb(given))
    assert refusal.sqlstate == "P0001"
    assert refusal.message == f"Flow root_map has root map steps but input is not an array (got {kind})"
    assert db.value("select count(*) from pgflow.runs") == 0


def test_a_root_map_refuses_no_input(db: Db) -> None:
    setup(db, "root_map")
    refusal = db.refused("select pgflow.start_flow('root_map', null)")
    assert (refusal.sqlstate, refusal.message) == (
        "P0001",
        "Flow root_map has root map steps but input is NULL",
    )


def test_one_root_map_beside_single_roots_is_enough_to_ask_for_an_array(db: Db) -> None:
    flow(db, "f", "single", map_step("m"))
    assert db.refused("select pgflow.start_flow('f', '{}')").sqlstate == "P0001"


def test_a_dependent_map_does_not_ask_for_an_array(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"), {"not": "an array"})
    assert run_row(db, run).status == "started"


def test_without_a_root_map_a_null_input_violates_not_null(db: Db) -> None:
    setup(db, "one")
    assert db.refused("select pgflow.start_flow('one', null)").sqlstate == "23502"


@pytest.mark.parametrize("given", [{}, [], "x", 0, False, None, [1, 2]])
def test_without_a_root_map_any_json_is_an_input(db: Db, given: Any) -> None:
    setup(db, "one")
    row = db.row("select status, input::text as input from pgflow.start_flow('one', %s)", Jsonb(given))
    assert row.status == "started"


def test_an_unknown_flow_is_refused(db: Db) -> None:
    refusal = db.refused("select pgflow.start_flow('nope', '{}')")
    assert (refusal.sqlstate, refusal.constraint) == ("23503", "runs_flow_slug_fkey")


def test_an_id_cannot_be_used_twice(db: Db) -> None:
    setup(db, "one")
    run = start(db, "one")
    refusal = db.refused("select pgflow.start_flow('one', '{}', %s)", run)
    assert (refusal.sqlstate, refusal.constraint) == ("23505", "runs_pkey")


def test_a_flow_without_steps_completes_at_once_with_null_output(db: Db) -> None:
    flow(db, "f")
    row = db.row("select *, output is null as no_output from pgflow.start_flow('f', '{}')")
    assert (row.status, row.remaining_steps, row.no_output) == ("completed", 0, True)
    assert event_names(db, row.run_id) == ["run:started", "run:completed"]


def test_two_runs_of_a_flow_are_independent(db: Db) -> None:
    setup(db, "sequential")
    one, two = start(db, "sequential", {"n": 1}), start(db, "sequential", {"n": 2})
    assert one != two
    assert run_row(db, one).input == {"n": 1}
    assert task_statuses(db, two, "first") == ["queued"]


def test_the_start_is_announced_before_its_steps(db: Db) -> None:
    run = start(db, setup(db, "two_roots"), {"x": 1})
    names = event_names(db, run)
    assert names[0] == "run:started"
    assert sorted(names[1:]) == ["step:root_a:started", "step:root_b:started"]
    payload = event(db, run, "run:started")
    assert (payload["flow_slug"], payload["input"], payload["remaining_steps"]) == ("two_roots", {"x": 1}, 3)
    assert payload["started_at"]


def test_an_unmet_fail_condition_returns_the_failed_run(db: Db) -> None:
    flow(db, "f", step("a", required_input_pattern={"go": True}, when_unmet="fail"), step("b", "a"))
    row = db.row("select * from pgflow.start_flow('f', '{}')")
    assert row.status == "failed"
    assert row.failed_at is not None
    assert queue(db, "f") == []
    assert statuses(db, row.run_id) == {"a": "failed", "b": "created"}


def test_a_run_that_only_skips_completes_at_once(db: Db) -> None:
    flow(db, "f", step("a", required_input_pattern={"go": True}))
    row = db.row("select *, output is null as no_output from pgflow.start_flow('f', '{}')")
    assert (row.status, row.remaining_steps, row.no_output) == ("completed", 0, True)


def test_it_can_start_inside_a_bigger_statement(db: Db) -> None:
    setup(db, "one")
    found = db.row(
        "with started as (select * from pgflow.start_flow('one', '{}'))"
        " select s.status, (select count(*) from started) as n from started s"
    )
    assert found == Row(status="started", n=1)
