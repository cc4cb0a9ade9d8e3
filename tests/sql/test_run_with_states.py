"""``get_run_with_states`` and ``start_flow_with_states`` (contract 6.2, 6.3)."""

from __future__ import annotations

import uuid

from psycopg.types.json import Jsonb

from .helpers import Db, events, flow, map_step, setup, start, step, work
from .range_work import claim_work, finish, mapped, ranges_flow, replace_limit

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
    for row in found["steps"]:
        assert set(row) == STEP_KEYS


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


def found_with(db: Db, run: uuid.UUID) -> tuple[dict[str, object], dict[str, object]]:
    """The run, and its steps' outputs by slug, as a client of the contract reads them."""
    found = db.value("select pgflow.get_run_with_states(%s)", run)
    return found["run"], {s["step_slug"]: s["output"] for s in found["steps"]}


def test_outputs_that_are_only_in_pages_are_told_where_they_fit(db: Db) -> None:
    run = mapped(db, ["a", "b", "c"], map_step("n", "m"), map_step("o", "m"), step("s", "o"))
    finish(db, *claim_work(db).leases)
    tens = [0, 10, 20]
    assert found_with(db, run)[1] == {"m": tens, "n": None, "o": None, "s": None}
    finish(db, *claim_work(db).leases)
    work(db, "f", {"s": 7})
    assert [e.payload["output"] for e in events(db, run) if e.event.endswith(":completed")] == [
        *(tens, tens, tens, 7),
        {"n": tens, "s": 7},
    ]
    for largest, copied in ((1 << 20, tens), (8, None)):
        replace_limit(db, "_largest_leaf", largest)
        output = db.value("select pgflow._run_output(%s)", run)
        assert output == {"n": copied, "s": 7}
        db.do("update pgflow.runs set output = %s", Jsonb(output))
        head, outputs = found_with(db, run)
        assert (head["status"], head["output"]) == ("completed", {"n": tens, "s": 7})
        assert outputs == {"m": tens, "n": tens, "o": tens, "s": 7}
    replace_limit(db, "_claim_bytes", db.value("select pgflow._result_bytes(%s, 'm')", run))
    head, outputs = found_with(db, run)
    assert head["output"] == {"n": None, "s": 7}
    assert outputs == {"m": tens, "n": None, "o": tens, "s": 7}


def test_a_step_over_a_map_whose_array_is_kept_once_is_claimed_with_it(db: Db) -> None:
    replace_limit(db, "_largest_leaf", 8)
    run = mapped(db, 3, step("s", "m"))
    finish(db, *claim_work(db).leases)
    assert db.value("select output from pgflow.step_states where step_slug = 'm'") is None
    assert [e.payload["output"] for e in events(db, run) if e.event == "step:m:completed"] == [None]
    (task,) = claim_work(db).tasks
    assert (task.run_id, task.step_slug, task.input) == (run, "s", {"m": [0, 10, 20]})


def test_items_that_are_the_input_are_told_as_it(db: Db) -> None:
    ranges_flow(db, "f", map_step("m"))
    run = db.value("select pgflow.open_load('f')")
    db.do("select pgflow.add_pages(%s, '{0,1}', '{1,2}', %s::jsonb[])", run, ['["a"]', '["b", {"c": 1}]'])
    db.do("select pgflow.start_loaded_run(%s, null)", run)
    items = ["a", "b", {"c": 1}]
    assert db.value("select input from pgflow.runs") == {}
    assert found_with(db, run)[0]["input"] == items
    assert db.value("select pgflow.run_input(%s)", run) == items
    replace_limit(db, "_largest_json", 8)
    assert db.value("select pgflow.run_input(%s)", run) == {}
