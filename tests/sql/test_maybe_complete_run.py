"""``maybe_complete_run`` and the output of a run (contract 6.7)."""

from __future__ import annotations

import pytest

from .helpers import (
    Db,
    claim,
    complete,
    complete_null,
    drain,
    event,
    events,
    flow,
    map_step,
    run_row,
    setup,
    snapshot,
    start,
    step,
    work,
)


def finish(db: Db, run: object) -> None:
    db.do("select pgflow.maybe_complete_run(%s)", run)


def test_the_output_holds_every_leaf(db: Db) -> None:
    run = start(db, setup(db, "two_roots_left_right"))
    outputs = {"connected_root": 1, "disconnected_root": {"d": 1}, "left": "l", "right": None}
    drain(db, "two_roots_left_right", outputs)
    found = run_row(db, run)
    assert (found.status, found.remaining_steps) == ("completed", 0)
    assert found.output == {"disconnected_root": {"d": 1}, "left": "l", "right": None}
    assert db.value("select completed_at = now() from pgflow.runs where run_id = %s", run)


def test_a_map_leaf_gives_its_array(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), ["a", "b"])
    for task in claim(db, "f", 2):
        complete(db, run, "m", task.input.upper(), task.task_index)
    assert run_row(db, run).output == {"m": ["A", "B"]}


def test_a_leaf_with_null_output_appears_as_json_null(db: Db) -> None:
    run = start(db, flow(db, "f", "a", "b"))
    claim(db, "f", 2)
    complete_null(db, run, "a")
    complete(db, run, "b", None)
    assert run_row(db, run).output_text == '{"a": null, "b": null}'


def test_a_skipped_leaf_is_left_out(db: Db) -> None:
    flow(db, "f", "a", step("b", required_input_pattern={"never": 1}))
    run = start(db, "f")
    work(db, "f", {"a": 5})
    assert run_row(db, run).output == {"a": 5}


def test_a_step_whose_children_were_all_skipped_is_no_leaf(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", required_input_pattern={"never": 1}))
    run = start(db, "f")
    work(db, "f", {"a": 5})
    assert (run_row(db, run).status, run_row(db, run).output_is_null) == ("completed", True)


def test_it_waits_while_steps_remain(db: Db) -> None:
    run = start(db, setup(db, "one"))
    finish(db, run)
    assert run_row(db, run).status == "started"


def test_calling_it_again_is_a_no_op(db: Db) -> None:
    run = start(db, setup(db, "one"))
    work(db, "one")
    before = snapshot(db, run)
    finish(db, run)
    assert snapshot(db, run) == before
    assert len(events(db, run, "run:completed")) == 1


def test_a_failed_run_is_never_completed(db: Db) -> None:
    run = start(db, setup(db, "one"))
    db.do(
        "update pgflow.runs set status = 'failed', failed_at = now(), remaining_steps = 0 where run_id = %s",
        run,
    )
    before = snapshot(db, run)
    finish(db, run)
    assert snapshot(db, run) == before


def test_it_takes_the_stored_step_outputs(db: Db) -> None:
    run = start(db, setup(db, "one"))
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, output = '[7]'"
        " where run_id = %s",
        run,
    )
    db.do("update pgflow.runs set remaining_steps = 0 where run_id = %s", run)
    finish(db, run)
    assert run_row(db, run).output == {"only": [7]}


def test_the_completion_is_announced_once_with_the_output(db: Db) -> None:
    run = start(db, setup(db, "one"))
    work(db, "one", {"only": {"deep": [1, None]}})
    payload = event(db, run, "run:completed")
    assert payload["output"] == {"only": {"deep": [1, None]}}
    assert (payload["flow_slug"], payload["status"]) == ("one", "completed")
    assert payload["completed_at"]


@pytest.mark.parametrize("count", [1, 12])
def test_many_leaves_are_all_there(db: Db, count: int) -> None:
    run = start(db, flow(db, "f", *[f"s{i}" for i in range(count)]))
    drain(db, "f", {f"s{i}": i for i in range(count)})
    assert run_row(db, run).output == {f"s{i}": i for i in range(count)}
