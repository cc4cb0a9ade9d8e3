"""``get_run_with_states`` and ``start_flow_with_states`` (contract 6.2, 6.3)."""

from __future__ import annotations

import uuid

from .helpers import Db, flow, setup, start, work

RUN_KEYS = {
    "run_id",
    "flow_slug",
    "status",
    "input",
    "output",
    "remaining_steps",
    "started_at",
    "completed_at",
    "failed_at",
}
STEP_KEYS = {
    "flow_slug",
    "run_id",
    "step_slug",
    "status",
    "remaining_tasks",
    "initial_tasks",
    "remaining_deps",
    "output",
    "error_message",
    "skip_reason",
    "created_at",
    "started_at",
    "completed_at",
    "failed_at",
    "skipped_at",
}


def test_it_gives_the_run_and_its_steps_by_column_name(db: Db) -> None:
    run = start(db, setup(db, "sequential"), {"x": 1})
    found = db.value("select pgflow.get_run_with_states(%s)", run)
    assert set(found) == {"run", "steps"}
    assert set(found["run"]) == RUN_KEYS
    assert (found["run"]["run_id"], found["run"]["input"]) == (str(run), {"x": 1})
    assert {s["step_slug"]: s["status"] for s in found["steps"]} == {
        "first": "started",
        "second": "created",
        "last": "created",
    }
    for step in found["steps"]:
        assert set(step) == STEP_KEYS


def test_it_follows_the_run(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    work(db, "sequential", {"first": {"done": 1}})
    found = db.value("select pgflow.get_run_with_states(run_id => %s)", run)
    steps = {s["step_slug"]: s for s in found["steps"]}
    assert (steps["first"]["status"], steps["first"]["output"]) == ("completed", {"done": 1})
    assert steps["second"]["status"] == "started"
    assert found["run"]["remaining_steps"] == 2


def test_an_unknown_run_is_null(db: Db) -> None:
    assert db.value("select pgflow.get_run_with_states(%s) is null", uuid.uuid4()) is True


def test_a_run_without_steps_has_an_empty_list(db: Db) -> None:
    run = start(db, flow(db, "f"))
    assert db.value("select pgflow.get_run_with_states(%s)", run)["steps"] == []


def test_another_run_of_the_flow_does_not_mix_in(db: Db) -> None:
    setup(db, "sequential")
    start(db, "sequential")
    run = start(db, "sequential")
    assert len(db.value("select pgflow.get_run_with_states(%s)", run)["steps"]) == 3


def test_start_with_states_gives_the_same_after_the_start(db: Db) -> None:
    setup(db, "two_roots")
    found = db.value("select pgflow.start_flow_with_states('two_roots', '{\"a\": 1}')")
    assert {s["step_slug"]: s["status"] for s in found["steps"]} == {
        "root_a": "started",
        "root_b": "started",
        "last": "created",
    }
    assert found["run"]["status"] == "started"
    assert found == db.value("select pgflow.get_run_with_states(%s)", uuid.UUID(found["run"]["run_id"]))


def test_start_with_states_honours_a_given_id(db: Db) -> None:
    setup(db, "one")
    given = uuid.uuid4()
    found = db.value(
        "select pgflow.start_flow_with_states(flow_slug => 'one', input => '{}', run_id => %s)", given
    )
    assert found["run"]["run_id"] == str(given)
    assert db.value("select count(*) from pgflow.runs where run_id = %s", given) == 1


def test_start_with_states_makes_one_run_only(db: Db) -> None:
    setup(db, "one")
    db.do("select pgflow.start_flow_with_states('one', '{}')")
    assert db.value("select count(*) from pgflow.runs") == 1
    assert db.value("select count(*) from pgmq.q_one") == 1


def test_start_with_states_refuses_as_start_flow_does(db: Db) -> None:
    assert db.refused("select pgflow.start_flow_with_states('nope', '{}')").sqlstate == "23503"
