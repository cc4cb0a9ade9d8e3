"""Flows that the code's has outgrown are taken over with their runs."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgflow_mp.testing.audit import audit_run

from .helpers import (
    LOCAL_SECRET,
    WORKER,
    Db,
    complete,
    drain,
    flow,
    map_step,
    run_row,
    start,
    state,
    statuses,
    step,
    work,
    worker,
)
from .test_get_flow_shape import shape, shape_step

A = shape_step("a")
B = shape_step("b", dependencies=["a"])
C = shape_step("c", dependencies=["b"])
MAP = shape_step("m", stepType="map", dependencies=["a"])


def take_over(
    db: Db, *steps: dict[str, Any], mode: str = "flow", conditions: bool = False, **options: Any
) -> Any:
    given = {"steps": list(steps), "options": options}
    return db.value("select pgflow.take_over_flow('f', %s, %s, %s)", Jsonb(given), mode, conditions)


def ensure(db: Db, *steps: dict[str, Any], mode: str = "flow") -> str:
    given = Jsonb({"steps": list(steps)})
    return str(db.value("select pgflow.ensure_flow_compiled('f', %s, %s) ->> 'status'", given, mode))


def sound(db: Db, run: Any) -> None:
    assert audit_run(db.conn, str(run)) == []


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([A, B, C], id="a last step"),
        pytest.param([A, shape_step("x", dependencies=["a"]), B], id="a branch in the midst"),
        pytest.param([shape_step("x"), A, B], id="a first step"),
        pytest.param([A, B, shape_step("x", dependencies=["a", "b"]), MAP], id="two"),
    ],
)
def test_a_flow_is_extended_by_the_steps_that_only_the_code_has(db: Db, steps: list[dict[str, Any]]) -> None:
    take_over(db, A, B)
    run = start(db, "f")
    added = [s["slug"] for s in steps if s not in (A, B)]
    assert take_over(db, *steps) == {
        "status": "extended",
        "differences": [],
        "mismatchKind": None,
        "added": added,
        "changed": [],
    }
    assert shape(db, "f") == {"steps": steps}
    assert ensure(db, *steps) == "verified"
    assert take_over(db, *steps)["status"] == "verified"
    assert db.column("select pgflow.steps_added('f')") == sorted(added)
    drain(db, "f")
    assert statuses(db, run) == {"a": "completed", "b": "completed"}
    assert run_row(db, run).output == {"b": 0}
    sound(db, run)
    later = start(db, "f")
    drain(db, "f", {"a": [1]})
    assert set(statuses(db, later).values()) == {"completed"}
    sound(db, later)


def test_a_runs_output_is_that_of_the_leaves_that_it_has(db: Db) -> None:
    take_over(db, A, B)
    done, under_way = start(db, "f"), start(db, "f")
    drain(db, "f")
    take_over(db, A, B, C)
    leaves = "select step_slug from pgflow.run_leaves(%s)"
    assert db.column(leaves, done) == db.column(leaves, under_way) == ["b"]
    fresh = start(db, "f")
    drain(db, "f")
    assert db.column(leaves, fresh) == ["c"]


def test_a_failed_run_goes_on_with_the_steps_that_it_began_with(db: Db) -> None:
    flow(db, "f", "a", step("b", "a"), max_attempts=1)
    run = start(db, "f")
    worker(db, "f")
    (task,) = db.rows("select * from pgflow.claim_tasks('f', %s, 5)", WORKER)
    db.do("select pgflow.fail_task(%s, 'a', 0, 'no')", task.run_id)
    take_over(db, A, B, C)
    db.do("select pgflow.retry_failed_tasks(%s)", run)
    drain(db, "f")
    assert run_row(db, run).output == {"b": 0}
    sound(db, run)


def test_new_steps_have_the_options_of_the_code_and_old_maps_keep_their_storage(db: Db) -> None:
    flow(db, "f", "a", map_step("m", "a"))
    grown = {**MAP, "slug": "n", "options": {"timeout": 7, "toleratedFailures": 2}}
    assert take_over(db, A, MAP, grown, defaultStorage="ranges")["added"] == ["n"]
    policies = "select step_slug, storage, tolerated_failures from pgflow.step_policies order by 1"
    assert [tuple(vars(row).values()) for row in db.rows(policies)] == [("n", "ranges", 2)]
    assert db.value("select opt_timeout from pgflow.steps where step_slug = 'n'") == 7


def test_queues_of_new_steps_are_made_and_those_of_old_ones_have_to_stay(db: Db) -> None:
    assert take_over(db, A, B, mode="step")["status"] == "compiled"
    run = start(db, "f")
    assert take_over(db, A, B, C, mode="step")["added"] == ["c"]
    assert db.column("select queue_name from pgflow.flow_queues('f')") == ["f__a", "f__b", "f__c"]
    assert take_over(db, A, B, C, C | {"slug": "d"})["words"] == [
        "the code has one queue for the flow, the database a queue for each step",
        'the code has step "d", the database has not',
    ]
    worker(db, "f__a")
    for queue in "abc":
        for task in db.rows("select * from pgmq.read(%s, 5, 5)", f"f__{queue}"):
            db.do(
                "select pgflow.start_tasks('f', %s, %s, %s, %s)", [task.msg_id], WORKER, f"f__{queue}", queue
            )
            complete(db, task.message["run_id"], queue)
    assert run_row(db, run).status == "completed"


def test_a_queue_that_goes_by_the_steps_place_keeps_the_flow_from_being_reordered(db: Db) -> None:
    long = shape_step("s" * 45)
    assert take_over(db, A, long, mode="step")["status"] == "compiled"
    found = take_over(db, A, B, long, mode="step")
    assert found["status"] == "mismatch"
    assert f'step "{long["slug"]}" has the queue "f__2" in the code, "f__1" in the database' in found["words"]
    assert take_over(db, A, long, B, mode="step")["status"] == "extended"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([A], ['the database has step "b", the code has not']),
        (
            [A, C],
            ['the code has step "c", the database has not', 'the database has step "b", the code has not'],
        ),
        ([A, shape_step("b")], ['step "b" depends on nothing in the code, on a in the database']),
        (
            [A, B | {"stepType": "map"}, C],
            [
                'the code has step "c", the database has not',
                'step "b" is a map in the code, no map in the database',
            ],
        ),
        (
            [B | {"dependencies": []}, A | {"dependencies": ["b"]}],
            [
                'step "b" comes before "a" in the code, after it in the database',
                'step "b" depends on nothing in the code, on a in the database',
                'step "a" depends on b in the code, on nothing in the database',
            ],
        ),
        (
            [A, B | {"requiredInputPattern": {"defined": True, "value": {"a": 1}}, "whenUnmet": "fail"}],
            [
                'when of step "b" is {"a": 1} in the code, not set in the database',
                'when_unmet of step "b" is fail in the code, skip in the database',
            ],
        ),
    ],
)
def test_what_is_no_extension_is_refused_in_words_that_say_which_side_is_which(
    db: Db, steps: list[dict[str, Any]], words: list[str]
) -> None:
    take_over(db, A, B)
    run = start(db, "f")
    found = take_over(db, *steps)
    assert (found["status"], found["mismatchKind"]) == ("mismatch", "shape")
    assert sorted(found["words"]) == sorted(words)
    assert found["conditionsOnly"] is any("when" in word for word in words)
    texts = db.value("select pgflow.ensure_flow_compiled('f', %s) -> 'differences'", Jsonb({"steps": steps}))
    assert found["differences"] == texts
    assert shape(db, "f") == {"steps": [A, B]}
    assert statuses(db, run) == {"a": "started", "b": "created"}


def test_conditions_are_taken_over_if_asked_for_and_hold_for_what_is_not_decided(db: Db) -> None:
    take_over(db, A, B)
    run = start(db, "f")
    changed = B | {"requiredInputPattern": {"defined": True, "value": {"a": {"go": True}}}}
    assert take_over(db, A, changed, C, conditions=False)["status"] == "mismatch"
    found = take_over(db, A, changed, C, conditions=True)
    assert found["changed"] == [
        'when of step "b" is {"a": {"go": true}} in the code, not set in the database'
    ]
    assert ensure(db, A, changed, C) == "verified"
    drain(db, "f", {"a": {"go": False}})
    assert statuses(db, run) == {"a": "completed", "b": "skipped"}


def test_a_local_database_keeps_runs_that_it_can_keep(plain_db: Db) -> None:
    take_over(plain_db, A, B)
    run = start(plain_db, "f")
    plain_db.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)
    assert take_over(plain_db, A, B, C)["status"] == "extended"
    assert statuses(plain_db, run) == {"a": "started", "b": "created"}
    assert take_over(plain_db, A)["status"] == "recompiled"


def test_wrong_slugs_and_maps_change_nothing(db: Db) -> None:
    take_over(db, A, B)
    two = "select pgflow.take_over_flow('f', %s)"
    wrong = Jsonb({"steps": [A, B, shape_step("B2__")]})
    assert 'Step slug "B2__" in flow "f" is not valid.' in db.refused(two, wrong).message
    wrong = Jsonb({"steps": [A, B, shape_step("B")]})
    assert 'Steps "b" and "B" in flow "f" conflict' in db.refused(two, wrong).message
    wrong = Jsonb({"steps": [A, B, MAP | {"dependencies": ["a", "b"]}]})
    assert "can have at most one dependency" in db.refused(two, wrong).message
    assert shape(db, "f") == {"steps": [A, B]}


def test_starts_and_extensions_that_meet_leave_whole_runs(dsn: str) -> None:
    """Each run has the steps of one moment, and ends."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        db = Db(conn)
        take_over(db, A)
        stop = threading.Event()
        errors: list[BaseException] = []

        def starting() -> None:
            try:
                with psycopg.connect(dsn, autocommit=True) as other:
                    while not stop.is_set():
                        other.execute("select pgflow.start_flow('f', '[1, 2]')")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=starting) for _ in range(2)]
        for thread in threads:
            thread.start()
        steps = [A]
        for n in range(12):
            new = shape_step(
                f"r{n}", stepType="map" if n % 2 else "single", dependencies=["a"] * (n % 3 == 0)
            )
            steps.insert(n % 4 % len(steps), new) if not new["dependencies"] else steps.append(new)
            assert take_over(db, *steps)["status"] == "extended"
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        wrong = db.rows(
            "select r.run_id from pgflow.runs r join pgflow.step_states ss using (run_id)"
            " group by 1 having count(*) <> r.remaining_steps"
        )
        assert wrong == []
        sizes = db.column("select count(*) from pgflow.step_states group by run_id")
        assert len(set(sizes)) > 2
        assert (
            db.value(
                "select count(*) from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug)"
                " where s.step_type = 'map' and s.deps_count = 0 and ss.initial_tasks is distinct from 2"
            )
            == 0
        )


def test_a_worker_gets_nothing_of_steps_that_it_does_not_know(db: Db) -> None:
    from .range_work import claim_work, hired, ranges_flow

    ranges_flow(db, "f", "a", map_step("m"), map_step("t"), tasks=["t"])
    hired(db)
    start(db, "f", [1, 2])
    start(db, "f", [1, 2])
    query = "select step_slug from pgflow.claim_work('f', %s, 100, 100, '{}', 30, %s)"
    assert db.column(query, WORKER, ["m", "t", "a"]) == []
    assert set(db.column(query, WORKER, ["m", "t"])) == {"a"}
    assert set(db.column(query, WORKER, ["t"])) == {"m"}
    assert {task.step_slug for task in claim_work(db).tasks} == {"t"}
    assert state(db, db.value("select run_id from pgflow.runs limit 1"), "t").status == "started"
    assert work(db, "f") == []
