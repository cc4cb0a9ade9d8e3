"""Runs that take work of an earlier run instead of doing it again."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import WORKER, Db, complete, event_names, run_row, state, statuses, tasks
from .range_work import claim_work, hired
from .test_extend_flow import sound, take_over
from .test_get_flow_shape import shape_step
from .test_new_steps import work_off

STORAGES = pytest.mark.parametrize("storage", ["tasks", "ranges"])
ROOT = shape_step("m", stepType="map")
A = shape_step("a")
M = shape_step("m", stepType="map", dependencies=["a"])
T = shape_step("t", dependencies=["m"])


def begin(
    db: Db, input: Any, source: uuid.UUID, *steps: str, slug: str = "f", reads: Any = None
) -> uuid.UUID:
    run: uuid.UUID = db.value(
        "select pgflow.start_run_from(%s, %s, %s, %s, %s)", slug, Jsonb(input), source, list(steps), reads
    )
    return run


def finished(db: Db, input: Any, outputs: dict[str, Any] | None = None, slug: str = "f") -> uuid.UUID:
    run: uuid.UUID = db.value("select run_id from pgflow.start_flow(%s, %s)", slug, Jsonb(input))
    work_off(db, outputs)
    return run


def defined(db: Db, *steps: dict[str, Any], storage: str = "ranges") -> None:
    take_over(db, *steps, defaultStorage=storage)
    hired(db)


def taken(db: Db, run: uuid.UUID) -> list[tuple[Any, ...]]:
    rows = db.rows("select step_slug, taken, items, indexes::text from pgflow.run_reuses(%s)", run)
    return [tuple(vars(row).values()) for row in rows]


@STORAGES
@pytest.mark.parametrize("source_storage", ["tasks", "ranges"])
def test_items_with_the_same_element_are_taken_and_the_rest_is_done(
    db: Db, storage: str, source_storage: str
) -> None:
    defined(db, ROOT, T, storage=source_storage)
    source = finished(db, [1, 2, 3, "x", {"k": [1]}], {"t": "sum"})
    db.do("update pgflow.step_policies set storage = %s", storage)
    run = begin(db, [9, 3, 1.0, {"k": [1]}, 1, 7, 3], source, "m")
    assert taken(db, run) == [("m", 4, 7, "{[1,2),[3,5),[6,7)}")]
    assert state(db, run, "m").remaining_tasks == 3
    sound(db, run)
    got = claim_work(db)
    assert len(got.tasks) + got.items == 3
    assert event_names(db, run) == ["run:started", "step:m:started"]
    db.do("select pgflow.cancel_run(%s)", run)
    db.do("select pgflow.retry_failed_tasks(%s)", run)
    sound(db, run)
    work_off(db, {"t": "sum"})
    assert db.value("select pgflow.step_output(%s, 'm')", run) == [90, 30, 1.0, {"k": [1]}, 10, 70, 30]
    assert run_row(db, run).output == {"t": "sum"}
    sound(db, run)
    db.do("select pgflow.cancel_run(%s)", source)
    db.do("delete from pgflow.step_tasks where run_id = %s", source)
    db.do("delete from pgflow.step_states where run_id = %s", source)
    db.do("delete from pgflow.runs where run_id = %s", source)
    assert db.value("select pgflow.step_output(%s, 'm')", run)[4] == 10
    sound(db, run)
    assert taken(db, run) == [("m", 4, 7, "{[1,2),[3,5),[6,7)}")]


@STORAGES
def test_a_map_of_which_all_is_there_is_completed_at_once_and_what_follows_goes_on(
    db: Db, storage: str
) -> None:
    defined(db, A, M, T, storage=storage)
    source = finished(db, {}, {"a": [1, 2], "t": "first"})
    run = begin(db, {}, source, "m", "t", "a", reads=[False, False, False])
    assert run_row(db, run).status == "completed"
    assert run_row(db, run).output == {"t": "first"}
    assert taken(db, run) == [(slug, n, n, f"{{[0,{n})}}") for slug, n in (("a", 1), ("m", 2), ("t", 1))]
    assert event_names(db, run) == [
        "run:started",
        *(f"step:{slug}:{what}" for slug in "amt" for what in ("started", "completed")),
        "run:completed",
    ]
    assert claim_work(db).tasks == []
    sound(db, run)


@STORAGES
def test_later_steps_are_looked_for_when_their_input_is_known(db: Db, storage: str) -> None:
    defined(db, A, M, T, storage=storage)
    source = finished(db, {}, {"a": [1, 2, 3], "t": "first"})
    run = begin(db, {}, source, "m", "t", reads=[False, False])
    assert taken(db, run) == [("m", None, None, None), ("t", None, None, None)]
    complete(db, claim_work(db).tasks[0].run_id, "a", [3, 4, 1])
    assert taken(db, run) == [("m", 2, 3, "{[0,1),[2,3)}"), ("t", None, None, None)]
    work_off(db, {"t": "second"})
    assert taken(db, run)[1] == ("t", 0, 1, "{}")
    assert run_row(db, run).output == {"t": "second"}
    sound(db, run)
    again = begin(db, {}, run, "t", reads=[False])
    work_off(db, {"a": [3, 4, 1], "t": "third"})
    assert run_row(db, again).output == {"t": "second"}
    sound(db, again)


def test_a_step_whose_input_differs_to_the_last_digit_is_done_again(db: Db) -> None:
    defined(db, A, shape_step("b", dependencies=["a"]))
    source = finished(db, {"x": 1}, {"a": 1, "b": "first"})
    for input, expected in (({"x": 1}, 1), ({"x": 1.0}, 0), ({"x": 1, "y": None}, 0)):
        run = begin(db, input, source, "a")
        assert taken(db, run)[0][1] == expected
        db.do("select pgflow.cancel_run(%s)", run)
    run = begin(db, {"x": 2}, source, "b", reads=[False])
    work_off(db, {"a": 1})
    assert (run_row(db, run).output, taken(db, run)[0][1]) == ({"b": "first"}, 1)
    run = begin(db, {"x": 2}, source, "b")  # perhaps it reads the run's input
    work_off(db, {"a": 1, "b": "again"})
    assert run_row(db, run).output == {"b": "again"}


@STORAGES
def test_failed_and_unfinished_items_are_not_taken_of_whatever_run(db: Db, storage: str) -> None:
    few = ROOT | {"options": {"toleratedFailures": 1, "maxAttempts": 1, "storage": storage}}
    defined(db, few, storage=storage)
    source = db.value("select run_id from pgflow.start_flow('f', '[1, 2, 3, 4]')")
    if storage == "tasks":
        for task in claim_work(db, 0, qty=3).tasks:
            (
                complete(db, source, "m", 10, 0)
                if task.task_index == 0
                else db.do("select pgflow.fail_task(%s, 'm', 1, 'no')", source)
                if task.task_index == 1
                else None
            )
    else:
        (lease,) = claim_work(db, 3).leases
        db.do(
            "select pgflow.complete_ranges(%s, 'm', %s, array[%s], '{0}', '{1}', array['[10]'::jsonb])",
            source,
            WORKER,
            lease.lease_no,
        )
        db.do(
            "select pgflow.fail_range_items(%s, 'm', %s, array[%s], '{1}', '{no}', '{t}')",
            source,
            WORKER,
            lease.lease_no,
        )
    run = begin(db, [1, 2, 3, 4], source, "m")
    assert taken(db, run) == [("m", 1, 4, "{[0,1)}")]
    sound(db, run)


def test_loaded_items_are_taken_where_the_parameters_are_the_same(db: Db) -> None:
    defined(db, ROOT)

    def load(rate: int | None, source: uuid.UUID | None) -> uuid.UUID:
        run: uuid.UUID = db.value("select pgflow.open_load('f')")
        db.do("select pgflow.add_pages(%s, '{0}', '{3}', array['[1, 2, 3]'::jsonb])", run)
        params = None if rate is None else Jsonb({"rate": rate})
        if source is None:
            db.do("select pgflow.start_loaded_run(%s, %s)", run, params)
        else:
            db.do("select pgflow.start_loaded_run_from(%s, %s, %s, '{m}')", run, params, source)
        return run

    source = load(1, None)
    work_off(db)
    for rate, expected in ((1, 3), (2, 0)):
        run = load(rate, source)
        assert taken(db, run)[0][1] == expected
        work_off(db)
        assert run_row(db, run).output == {"m": [10, 20, 30]}
        sound(db, run)


def test_a_map_that_does_not_wait_gets_what_was_taken_and_waits_where_it_is_to_be_taken_itself(
    db: Db,
) -> None:
    ahead = shape_step(
        "n", stepType="map", dependencies=["m"], options={"storage": "ranges", "barrier": False}
    )
    defined(db, ROOT, ahead)
    source = finished(db, [1, 2, 3])
    run = begin(db, [1, 5, 3], source, "m")
    assert statuses(db, run) == {"m": "started", "n": "started"}
    sound(db, run)
    work_off(db)
    assert run_row(db, run).output == {"n": [100, 500, 300]}
    sound(db, run)
    run = begin(db, [1, 5, 3], source, "m", "n", reads=[False, False])
    assert statuses(db, run) == {"m": "started", "n": "created"}
    work_off(db)
    assert [row[1] for row in taken(db, run)] == [2, 2]
    sound(db, run)
    run = begin(db, [3, 1], source, "m", "n", reads=[False, False])
    assert run_row(db, run).output == {"n": [300, 100]}
    sound(db, run)


@STORAGES
def test_conditions_are_tested_all_the_same(db: Db, storage: str) -> None:
    go = {"defined": True, "value": {"a": [1]}}
    only = shape_step("m", stepType="map", dependencies=["a"], requiredInputPattern=go)
    defined(db, A, only, T, storage=storage)
    source = finished(db, {}, {"a": [1, 2], "t": 1})
    run = begin(db, {}, source, "m", reads=[False])
    work_off(db, {"a": [2], "t": 2})
    assert statuses(db, run) == {"a": "completed", "m": "skipped", "t": "completed"}
    assert tasks(db, run, "m") == []
    sound(db, run)


def test_what_cannot_be_is_refused_and_nothing_is_started(db: Db) -> None:
    defined(db, ROOT)
    source = finished(db, [1])
    start = "select pgflow.start_run_from('f', '[1]', %s, %s)"
    assert db.refused(start, uuid.uuid4(), ["m"]).sqlstate == "PF003"
    assert db.refused(start, source, ["x"]).message == 'Step "x" does not exist in flow "f"'
    take_over(db, ROOT, shape_step("y"))
    assert db.refused(start, source, ["y"]).message == f'Step "y" does not exist in run {source} of flow "f"'
    assert (
        db.refused("select pgflow.start_run_from('f', '[1]', %s, '{m}', null, %s)", source, source).sqlstate
        == "23505"
    )
    assert db.value("select count(*) from pgflow.reuses") == 0
    assert db.value("select count(*) from pgflow.runs") == 1


def test_a_run_may_be_of_another_flow_that_one_may_read_and_of_none_other(db: Db) -> None:
    defined(db, ROOT)
    source = finished(db, [1, 2])
    db.do("select pgflow.create_flow('g'), pgflow.add_step('g', 'm', step_type => 'map')")
    run = begin(db, [2, 5], source, "m", slug="g")
    assert taken(db, run) == [("m", 1, 2, "{[0,1)}")]
    db.do("create role pgflow_reuser")
    db.do("select pgflow.grant_access('pgflow_reuser', 'starter', array['g'])")
    db.do("set local role pgflow_reuser")
    query = "select pgflow.start_run_from('g', '[1]', %s, '{m}')"
    assert db.refused(query, source).sqlstate == "42501"
    assert db.refused("select pgflow.start_run_from('f', '[1]', %s, '{m}')", run).sqlstate == "42501"
    assert db.value(query, run)
    assert db.column("select taken from pgflow.run_reuses(%s)", run) == [1]
    db.do("reset role")


@pytest.mark.parametrize("many", [60])
def test_a_long_chain_is_taken_whole(db: Db, many: int) -> None:
    steps = [shape_step("s0"), *(shape_step(f"s{n}", dependencies=[f"s{n - 1}"]) for n in range(1, many))]
    defined(db, *steps)
    source = finished(db, {})
    run = begin(db, {}, source, *(f"s{n}" for n in range(many)))
    assert run_row(db, run).status == "completed"
    sound(db, run)


@STORAGES
def test_what_was_pruned_before_the_step_began_is_done_by_the_run_itself(db: Db, storage: str) -> None:
    defined(db, A, M, storage=storage)
    source = finished(db, {}, {"a": [1, 2]})
    run = begin(db, {}, source, "m", reads=[False])
    again = begin(db, {}, run, "m", reads=[False])
    db.do(
        "update pgflow.runs set started_at = '2020-01-01', completed_at = '2020-01-02' where run_id = %s",
        source,
    )
    db.do("select pgflow.prune_data_older_than('1 day')")
    work_off(db, {"a": [1, 2]})
    assert run_row(db, run).output == run_row(db, again).output == {"m": [10, 20]}
    assert taken(db, run) == [("m", 0, 2, "{}")]
    sound(db, run)
    gone = "select g from pgflow.gone_runs('f', array[%s, gen_random_uuid()]) g"
    assert source not in db.column(gone, source)  # its files may be named by what others took
    assert len(db.column(gone, source)) == 1
    db.do("delete from pgflow.step_tasks; delete from pgflow.step_states; delete from pgflow.runs")
    assert len(db.column(gone, source)) == 2
