"""``cascade_complete_taskless_steps`` (contract 6.5)."""

from __future__ import annotations

import time

import pytest

from .helpers import (
    Db,
    claim,
    complete,
    drain,
    event,
    event_names,
    flow,
    in_sequence,
    map_step,
    queue,
    run_row,
    setup,
    start,
    state,
    statuses,
    step,
    task_statuses,
)


def cascade(db: Db, run: object) -> int:
    count: int = db.value("select pgflow.cascade_complete_taskless_steps(%s)", run)
    return count


def chain(db: Db, length: int) -> str:
    return flow(db, "chain", map_step("m0"), *[map_step(f"m{i}", f"m{i - 1}") for i in range(1, length)])


def test_an_empty_array_travels_down_a_chain_of_maps(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [])
    assert statuses(db, run) == {"m1": "completed", "m2": "completed", "m3": "completed", "total": "started"}
    for slug in ("m1", "m2", "m3"):
        found = state(db, run, slug)
        assert (found.initial_tasks, found.remaining_tasks, found.output) == (0, 0, [])
        assert found.started_at == found.completed_at
    assert state(db, run, "total").initial_tasks == 1
    assert run_row(db, run).remaining_steps == 1
    assert queue(db, "map_chain") == [("total", 0)]


def test_a_single_behind_empty_maps_gets_empty_arrays(db: Db) -> None:
    start(db, setup(db, "map_chain"), [])
    (task,) = claim(db, "map_chain")
    assert task.input == {"m3": []}


def test_events_of_taskless_steps_come_parent_first_and_without_a_start(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [])
    names = event_names(db, run, "step:")
    assert names == ["step:m1:completed", "step:m2:completed", "step:m3:completed", "step:total:started"]
    payload = event(db, run, "step:completed", "m2")
    assert (payload["output"], payload["remaining_tasks"], payload["remaining_deps"]) == ([], 0, 0)
    assert payload["started_at"]
    assert payload["completed_at"]
    assert payload["status"] == "completed"


def test_events_inside_a_wave_follow_the_definition(db: Db) -> None:
    flow(db, "f", map_step("z"), map_step("y"), map_step("a", "y"), map_step("x", "z"))
    run = start(db, "f", [])
    assert event_names(db, run, "step:") == [f"step:{s}:completed" for s in ("z", "y", "a", "x")]


def test_it_returns_how_many_it_completed(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1])
    assert cascade(db, run) == 0
    db.do(
        "update pgflow.step_states set remaining_deps = 0, initial_tasks = 0"
        " where run_id = %s and step_slug = 'm2'",
        run,
    )
    assert cascade(db, run) == 2
    assert statuses(db, run) == {"m1": "started", "m2": "completed", "m3": "completed", "total": "created"}
    assert state(db, run, "total").remaining_deps == 0
    assert run_row(db, run).remaining_steps == 2
    assert cascade(db, run) == 0


def test_completing_the_run_is_left_to_others(db: Db) -> None:
    flow(db, "f", "a", map_step("m", "a"))
    run = start(db, "f")
    db.do(
        "update pgflow.step_states set remaining_deps = 0, initial_tasks = 0 where run_id = %s and"
        " step_slug = 'm'",
        run,
    )
    db.do("update pgflow.runs set remaining_steps = 1 where run_id = %s", run)
    assert cascade(db, run) == 1
    assert (run_row(db, run).status, run_row(db, run).remaining_steps) == ("started", 0)


def test_on_a_failed_run_nothing_is_completed(db: Db) -> None:
    run = start(db, flow(db, "f", step("a", max_attempts=1), map_step("m", "a")))
    claim(db, "f")
    db.do("select pgflow.fail_task(%s, 'a', 0, 'boom')", run)
    assert cascade(db, run) == 0
    assert state(db, run, "m").status == "created"


def test_a_join_waits_for_its_other_parent(db: Db) -> None:
    flow(db, "f", map_step("m"), "a", step("join", "m", "a"))
    run = start(db, "f", [])
    assert (state(db, run, "join").status, state(db, run, "join").remaining_deps) == ("created", 1)
    claim(db, "f")
    complete(db, run, "a", 1)
    (task,) = claim(db, "f")
    assert task.input == {"m": [], "a": 1}


def test_two_empty_parents_of_one_wave_count_two(db: Db) -> None:
    flow(db, "f", map_step("m1"), map_step("m2"), step("join", "m1", "m2"))
    run = start(db, "f", [])
    assert (state(db, run, "join").status, state(db, run, "join").remaining_deps) == ("started", 0)


def test_a_wide_fan_of_empty_maps_completes(db: Db) -> None:
    leaves = [map_step(f"leaf{i}", "root") for i in range(30)]
    run = start(db, flow(db, "f", map_step("root"), *leaves), [])
    assert set(statuses(db, run).values()) == {"completed"}
    assert run_row(db, run).status == "completed"
    assert len(event_names(db, run, "step:")) == 31


def test_an_array_that_turns_out_empty_ends_the_branch(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    complete(db, run, "source", [])
    assert (state(db, run, "each").status, state(db, run, "each").output) == ("completed", [])
    assert state(db, run, "total").status == "started"
    assert task_statuses(db, run, "each") == []
    assert in_sequence(
        event_names(db, run), ["step:source:completed", "step:each:completed", "step:total:started"]
    )


def test_a_step_behind_an_empty_map_still_has_its_condition_checked(db: Db) -> None:
    flow(
        db,
        "f",
        map_step("m"),
        step("b", "m", required_input_pattern={"m": [1]}),
        step("c", "b"),
    )
    run = start(db, "f", [])
    assert statuses(db, run) == {"m": "completed", "b": "skipped", "c": "started"}
    assert state(db, run, "b").skip_reason == "condition_unmet"


def test_a_fail_condition_behind_an_empty_map_fails_the_run(db: Db) -> None:
    flow(
        db, "f", "a", map_step("m", "a"), step("b", "m", required_input_pattern={"m": [1]}, when_unmet="fail")
    )
    run = start(db, "f")
    claim(db, "f")
    complete(db, run, "a", [])
    assert run_row(db, run).status == "failed"
    assert (state(db, run, "b").status, state(db, run, "b").error_message) == ("failed", "Condition not met")
    assert queue(db, "f") == []


def test_skip_and_empty_alternate_until_nothing_changes(db: Db) -> None:
    flow(
        db,
        "f",
        map_step("m"),
        step("b", "m", required_input_pattern={"m": [1]}),
        map_step("n", "b"),
        step("d", "n", required_input_pattern={"n": [1]}),
        map_step("o", "d"),
        step("end_it", "o"),
    )
    run = start(db, "f", [])
    assert statuses(db, run) == {
        "m": "completed",
        "b": "skipped",
        "n": "completed",
        "d": "skipped",
        "o": "completed",
        "end_it": "started",
    }
    assert run_row(db, run).remaining_steps == 1


@pytest.mark.parametrize("length", [1, 10, 49])
def test_a_chain_up_to_the_limit_completes(db: Db, length: int) -> None:
    run = start(db, chain(db, length), [])
    assert run_row(db, run).status == "completed"
    assert set(statuses(db, run).values()) == {"completed"}


@pytest.mark.parametrize("length", [51, 60])
def test_a_chain_beyond_the_limit_is_refused_and_leaves_no_run(db: Db, length: int) -> None:
    chain(db, length)
    refusal = db.refused("select pgflow.start_flow('chain', '[]')")
    assert refusal.sqlstate == "P0001"
    assert refusal.message == "Cascade loop exceeded safety limit of 50 iterations"
    assert db.value("select count(*) from pgflow.runs") == 0


def test_a_long_chain_with_elements_is_not_limited(db: Db) -> None:
    chain(db, 60)
    run = start(db, "chain", [1])
    assert drain(db, "chain") == 60
    assert run_row(db, run).status == "completed"


def test_forty_nine_levels_cascade_quickly(db: Db) -> None:
    chain(db, 49)
    began = time.perf_counter()
    start(db, "chain", [])
    assert time.perf_counter() - began < 5
