"""Runs that get the steps which came to their flow after they had been started."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import WORKER, Db, complete, event_names, reasons, run_row, start, state, statuses
from .range_work import claim_work, complete_parts, hired, parts_of
from .test_extend_flow import sound, take_over
from .test_get_flow_shape import shape_step

STORAGES = pytest.mark.parametrize("storage", ["tasks", "ranges"])
A = shape_step("a")
M = shape_step("m", stepType="map", dependencies=["a"])
T = shape_step("t", dependencies=["m"])
OUTPUTS = {"a": [1, 2, 3], "c": [5], "y": {}}


def begin(db: Db, *steps: dict[str, Any], storage: str = "ranges", input: Any = None) -> uuid.UUID:
    take_over(db, *steps, defaultStorage=storage)
    hired(db)
    return start(db, "f", input)


def work_off(db: Db, outputs: dict[str, Any] | None = None) -> None:
    """Complete everything, tasks and ranges; an item's output is its input times ten where it is a number."""
    while (got := claim_work(db)).tasks or got.leases:
        for task in got.tasks:
            default = 10 * task.input if isinstance(task.input, int) else task.input
            complete(
                db,
                task.run_id,
                task.step_slug,
                (outputs or OUTPUTS).get(task.step_slug, default),
                task.task_index,
            )
        for lease in got.leases:
            items = db.column(
                "select input from pgflow._items(%s, %s, %s, %s) order by item_index",
                *(lease.run, lease.step, *lease.bounds),
            )
            out = [10 * item if isinstance(item, int) else item for item in items]
            complete_parts(db, lease.run, parts_of(lease), [out], step=lease.step)


def added(db: Db, run: uuid.UUID) -> list[str]:
    found: list[str] = db.value("select pgflow.add_new_steps(%s)", run)
    return found


@STORAGES
def test_a_completed_run_goes_on_with_the_new_steps_and_completes_with_their_outputs(
    db: Db, storage: str
) -> None:
    run = begin(db, A, M, storage=storage)
    work_off(db)
    assert run_row(db, run).output == {"m": [10, 20, 30]}
    take_over(
        db,
        A,
        M,
        T,
        shape_step("n", stepType="map", dependencies=["m"]),
        shape_step("r"),
        shape_step("j", dependencies=["t", "n", "r"]),
        defaultStorage=storage,
    )
    assert added(db, run) == ["t", "n", "r", "j"]
    assert statuses(db, run) == {
        "a": "completed",
        "m": "completed",
        "t": "started",
        "n": "started",
        "r": "started",
        "j": "created",
    }
    row = run_row(db, run)
    assert (row.status, row.remaining_steps, row.completed_at, row.output) == ("started", 4, None, None)
    sound(db, run)
    assert added(db, run) == []
    work_off(db)
    row = run_row(db, run)
    assert (row.status, row.remaining_steps) == ("completed", 0)
    assert row.output == {
        "j": {"t": {"m": [10, 20, 30]}, "n": [100, 200, 300], "r": {}},
    }
    sound(db, run)
    assert event_names(db, run).count("run:completed") == 2
    assert event_names(db, run).count("step:a:completed") == 1
    assert added(db, run) == []
    assert run_row(db, run).status == "completed"


@STORAGES
def test_a_failed_run_gets_them_and_goes_on_where_it_failed(db: Db, storage: str) -> None:
    run = begin(db, A, M, storage=storage)
    assert len(claim_work(db).tasks) == 1
    complete(db, run, "a", [1, 2])
    db.do("select pgflow.cancel_run(%s)", run)
    take_over(db, A, M, T, shape_step("b", dependencies=["a"]), defaultStorage=storage)
    assert set(added(db, run)) == {"t", "b"}
    assert run_row(db, run).status == "started"
    assert statuses(db, run) == {"a": "completed", "m": "started", "t": "created", "b": "started"}
    sound(db, run)
    work_off(db)
    assert run_row(db, run).output == {"t": {"m": [10, 20]}, "b": {"a": [1, 2]}}
    sound(db, run)


@STORAGES
def test_a_run_under_way_gets_them_too(db: Db, storage: str) -> None:
    run = begin(db, A, M, storage=storage)
    take_over(db, A, M, T, shape_step("n", stepType="map", dependencies=["m"]), defaultStorage=storage)
    complete(db, claim_work(db).tasks[0].run_id, "a", [1, 2])
    assert state(db, run, "m").status == "started"
    assert added(db, run) == ["t", "n"]
    assert (state(db, run, "t").remaining_deps, state(db, run, "n").initial_tasks) == (1, None)
    work_off(db)
    assert run_row(db, run).output == {"t": {"m": [10, 20]}, "n": [100, 200]}
    sound(db, run)


@STORAGES
@pytest.mark.parametrize("loaded", [None, {"rate": 2}, "input"])
def test_new_root_maps_have_the_items_of_the_input(db: Db, storage: str, loaded: Any) -> None:
    root = shape_step("m", stepType="map")
    if loaded:
        take_over(db, root, defaultStorage=storage)
        hired(db)
        run = db.value("select pgflow.open_load('f')")
        db.do("select pgflow.add_pages(%s, '{0}', '{2}', array['[1, 2]'::jsonb])", run)
        db.do("select pgflow.start_loaded_run(%s, %s)", run, None if loaded == "input" else Jsonb(loaded))
    else:
        run = begin(db, root, storage=storage, input=[1, 2])
    work_off(db)
    take_over(db, root, shape_step("n", stepType="map"), shape_step("s"), defaultStorage=storage)
    assert added(db, run) == ["n", "s"]
    inputs = {task.step_slug: task.flow_input for task in claim_work(db, 0).tasks}
    assert inputs["s"] == ({"rate": 2} if isinstance(loaded, dict) else [1, 2])
    for index in range(2 * (storage == "tasks")):
        complete(db, run, "n", 10 * (index + 1), index)
    complete(db, run, "s", "done")
    work_off(db)
    assert run_row(db, run).output == {"m": [10, 20], "n": [10, 20], "s": "done"}
    sound(db, run)


def test_conditions_of_new_steps_are_tested(db: Db) -> None:
    run = begin(db, A)
    work_off(db)
    no, yes = ({"defined": True, "value": {"a": value}} for value in ([9], [2]))
    take_over(
        db,
        A,
        shape_step("n", dependencies=["a"], requiredInputPattern=no),
        shape_step("y", dependencies=["a"], requiredInputPattern=yes),
        shape_step("d", dependencies=["n", "y"]),
        shape_step("c", dependencies=["a"], requiredInputPattern=no, whenUnmet="skip-cascade"),
        shape_step("e", dependencies=["c"]),
        shape_step("o", stepType="map", dependencies=["n"]),
    )
    assert len(added(db, run)) == 6
    assert reasons(db, run) == {
        "a": None,
        "n": "condition_unmet",
        "y": None,
        "d": None,
        "c": "condition_unmet",
        "e": "dependency_skipped",
        "o": None,
    }
    assert state(db, run, "o").output == []
    work_off(db)
    assert run_row(db, run).output == {"d": {"y": {}}, "o": []}
    sound(db, run)
    take_over(
        db,
        *db.value("select pgflow._get_flow_shape('f')")["steps"],
        shape_step("x", dependencies=["d"], requiredInputPattern=no, whenUnmet="fail"),
    )
    assert added(db, run) == ["x"]
    assert run_row(db, run).status == "failed"
    assert added(db, run) == []


def test_what_follows_from_a_step_that_was_skipped_is_what_it_would_have_been(db: Db) -> None:
    no = {"defined": True, "value": {"a": 1}}
    old = [
        A,
        shape_step("s", dependencies=["a"], requiredInputPattern=no),
        shape_step("c", dependencies=["a"], requiredInputPattern=no, whenUnmet="skip-cascade"),
        shape_step("d", dependencies=["c"]),
    ]
    new = [
        shape_step("s1", dependencies=["s"]),
        shape_step("sm", stepType="map", dependencies=["s"]),
        shape_step("c1", dependencies=["c"]),
        shape_step("d1", dependencies=["d", "a"]),
        shape_step("d2", dependencies=["d1", "s1"]),
    ]
    run = begin(db, *old)
    work_off(db)
    take_over(db, *old, *new)
    added(db, run)
    later = start(db, "f")
    work_off(db)
    assert reasons(db, run) == reasons(db, later)
    assert statuses(db, run) == statuses(db, later)
    assert run_row(db, run).output == run_row(db, later).output
    sound(db, run)


@pytest.mark.parametrize("exhausted", ["skip", "skip-cascade"])
def test_the_same_of_a_step_whose_attempts_were_used_up(db: Db, exhausted: str) -> None:
    bad = shape_step("b", dependencies=["a"], whenExhausted=exhausted, options={"maxAttempts": 1})
    run = begin(db, A, bad)
    complete(db, claim_work(db).tasks[0].run_id, "a", 1)
    claim_work(db)
    db.do("select pgflow.fail_task(%s, 'b', 0, 'no')", run)
    assert run_row(db, run).status == "completed"
    take_over(db, A, bad, shape_step("c", dependencies=["b"]))
    added(db, run)
    assert reasons(db, run)["c"] == (None if exhausted == "skip" else "dependency_skipped")
    work_off(db)
    assert run_row(db, run).status == "completed"


def test_tolerated_failures_are_passed_on_as_ever(db: Db) -> None:
    few = M | {"options": {"toleratedFailures": 1, "maxAttempts": 1, "storage": "ranges"}}
    run = begin(db, A, few)
    complete(db, claim_work(db).tasks[0].run_id, "a", [1, 2])
    (lease,) = claim_work(db).leases
    complete_parts(db, run, [(lease.lease_no, 0, 1)], [[7]])
    db.do(
        "select pgflow.fail_range_items(%s, 'm', %s, array[%s], '{1}', '{no}', '{t}')",
        run,
        WORKER,
        lease.lease_no,
    )
    assert run_row(db, run).output == {"m": [7, None]}
    take_over(db, A, few, T)
    added(db, run)
    work_off(db)
    assert run_row(db, run).output == {"t": {"m": [7, None]}}
    sound(db, run)


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (shape_step("n", stepType="map"), "the input of the run is no array"),
        (shape_step("n", stepType="map", dependencies=["a"]), 'the output of step "a" is no array'),
    ],
)
def test_a_map_over_what_is_no_array_is_refused_and_nothing_changes(
    db: Db, new: dict[str, Any], why: str
) -> None:
    run = begin(db, A)
    work_off(db, {"a": 1})
    take_over(db, A, shape_step("o"), new)
    refusal = db.refused("select pgflow.add_new_steps(%s)", run)
    assert refusal.sqlstate == "PF007"
    assert refusal.message == f'Run {run} cannot get the new step "n": it maps over items, and {why}'
    assert run_row(db, run).output == {"a": 1}
    assert statuses(db, run) == {"a": "completed"}


def test_a_run_that_is_not_there_is_refused(db: Db) -> None:
    assert db.refused("select pgflow.add_new_steps(gen_random_uuid())").sqlstate == "PF003"


def test_a_new_step_can_have_a_queue_of_its_own(db: Db) -> None:
    steps = {"steps": [A]}
    db.do("select pgflow.take_over_flow('f', %s, 'step')", Jsonb(steps))
    hired(db, "f__a")
    run = start(db, "f")
    work_off(db)
    steps["steps"].append(shape_step("b", dependencies=["a"]))
    db.do("select pgflow.take_over_flow('f', %s, 'step')", Jsonb(steps))
    assert added(db, run) == ["b"]
    db.do("update pgflow.workers set queue_name = 'f__b'")
    work_off(db)
    assert run_row(db, run).status == "completed"
