"""``start_ready_steps`` (contract 6.4)."""

from __future__ import annotations

import pytest

from .helpers import (
    Db,
    claim,
    complete,
    event,
    event_names,
    flow,
    lease,
    map_step,
    queue,
    setup,
    snapshot,
    start,
    state,
    step,
    tasks,
)


def ready(db: Db, run: object) -> None:
    db.do("select pgflow.start_ready_steps(%s)", run)


def test_calling_it_again_changes_nothing(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1, 2, 3])
    before = snapshot(db, run)
    ready(db, run)
    ready(db, run)
    assert snapshot(db, run) == before


@pytest.mark.parametrize("status", ["failed", "completed"])
def test_it_does_nothing_on_a_finished_run(db: Db, status: str) -> None:
    run = start(db, setup(db, "sequential"))
    db.do("update pgflow.step_states set remaining_deps = 0 where run_id = %s", run)
    db.do("update pgflow.runs set status = %s where run_id = %s", status, run)
    before = snapshot(db, run)
    ready(db, run)
    assert snapshot(db, run) == before


def test_a_step_made_ready_by_hand_is_started(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do("update pgflow.step_states set remaining_deps = 0 where run_id = %s and step_slug = 'second'", run)
    ready(db, run)
    found = state(db, run, "second")
    assert (found.status, found.remaining_tasks) == ("started", 1)
    assert db.value("select started_at = now() from pgflow.step_states where step_slug = 'second'")
    assert queue(db, "sequential") == [("first", 0), ("second", 0)]
    assert event(db, run, "step:started", "second")["remaining_tasks"] == 1


def test_a_step_with_open_dependencies_waits(db: Db) -> None:
    run = start(db, setup(db, "two_roots"))
    claim(db, "two_roots")
    complete(db, run, "root_a")
    assert state(db, run, "last").status == "created"
    claim(db, "two_roots")
    complete(db, run, "root_b")
    assert state(db, run, "last").status == "started"


def test_an_unknown_number_of_tasks_waits(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    db.do("update pgflow.step_states set remaining_deps = 0 where run_id = %s and step_slug = 'each'", run)
    ready(db, run)
    assert state(db, run, "each").status == "created"


def test_a_step_with_zero_tasks_is_left_to_the_cascade(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    db.do(
        "update pgflow.step_states set remaining_deps = 0, initial_tasks = 0"
        " where run_id = %s and step_slug = 'each'",
        run,
    )
    ready(db, run)
    assert state(db, run, "each").status == "created"


def test_conditions_are_not_looked_at(db: Db) -> None:
    flow(db, "f", "a", step("b", "a", required_input_pattern={"never": 1}, when_unmet="fail"))
    run = start(db, "f")
    db.do("update pgflow.step_states set remaining_deps = 0 where run_id = %s and step_slug = 'b'", run)
    ready(db, run)
    assert state(db, run, "b").status == "started"


def test_a_map_gets_indices_from_zero(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    complete(db, run, "source", ["a", "b", "c"])
    assert [(t.task_index, t.status) for t in tasks(db, run, "each")] == [
        (0, "queued"),
        (1, "queued"),
        (2, "queued"),
    ]


@pytest.mark.parametrize("delay", [0, 5, 300])
def test_a_start_delay_hides_the_first_attempt(db: Db, delay: int) -> None:
    flow(db, "f", step("a", start_delay=delay))
    start(db, "f")
    left = lease(db, "f", 1)
    assert delay - 2 < left <= delay
    assert len(claim(db, "f")) == (1 if delay == 0 else 0)


def test_a_start_delay_holds_for_dependent_and_map_steps(db: Db) -> None:
    flow(db, "f", "a", map_step("m", "a", start_delay=60), step("b", "a"))
    run = start(db, "f")
    claim(db, "f")
    complete(db, run, "a", [1, 2])
    delays = {t.step_slug: lease(db, "f", t.message_id) for t in tasks(db, run) if t.step_slug != "a"}
    assert delays["b"] <= 0
    assert 58 < delays["m"] <= 60


def test_each_step_is_announced_once_with_its_counts(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    payload = event(db, run, "step:started", "items")
    assert payload["remaining_tasks"] == 3
    assert payload["remaining_deps"] == 0
    assert payload["started_at"]
    assert payload["status"] == "started"
    ready(db, run)
    assert event_names(db, run, "step:items") == ["step:items:started"]


def test_an_unknown_run_is_no_error(db: Db) -> None:
    db.do("select pgflow.start_ready_steps(gen_random_uuid())")
