"""``ensure_flow_compiled`` (contract 4.6)."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from .helpers import LOCAL_SECRET, Db, flow, start, step
from .test_get_flow_shape import shape, shape_step

ONE = {"steps": [shape_step("a")]}
TWO = {"steps": [shape_step("a"), shape_step("b", dependencies=["a"])]}
ADDED = ["Step count differs: 2 vs 1", "Step at index 1: missing in second shape (first has 'b')"]


def ensure(db: Db, given: dict[str, Any], *flags: bool) -> Any:
    extra = ", %s" * len(flags)
    return db.value(f"select pgflow.ensure_flow_compiled('f', %s{extra})", Jsonb(given), *flags)


def answer(status: str, *differences: str, kind: str | None = None) -> dict[str, Any]:
    return {"status": status, "differences": list(differences), "mismatchKind": kind}


def test_an_unknown_flow_is_compiled(plain_db: Db) -> None:
    assert ensure(plain_db, TWO) == answer("compiled")
    assert shape(plain_db, "f") == TWO


def test_an_equal_flow_is_verified(plain_db: Db) -> None:
    ensure(plain_db, TWO)
    assert ensure(plain_db, TWO) == answer("verified")


def test_a_different_flow_is_a_mismatch_and_nothing_changes(db: Db) -> None:
    ensure(db, ONE)
    run = start(db, "f")
    assert ensure(db, TWO, False) == answer("mismatch", *ADDED, kind="shape")
    routes = "Step routes differ: database has [a -> f], worker expects [a -> f, b -> f]"
    assert ensure(db, TWO) == answer("mismatch", *ADDED, routes, kind="shape")
    assert shape(db, "f") == ONE
    assert db.value("select count(*) from pgflow.runs where run_id = %s", run) == 1


def test_with_leave_to_lose_data_it_is_recompiled(db: Db) -> None:
    ensure(db, ONE)
    start(db, "f")
    assert ensure(db, TWO, True) == answer("recompiled", *ADDED)
    assert shape(db, "f") == TWO
    assert db.value("select count(*) from pgflow.runs") == 0
    assert db.value("select count(*) from pgmq.q_f") == 0


def test_on_a_local_database_it_is_recompiled_without_leave(plain_db: Db) -> None:
    ensure(plain_db, ONE)
    plain_db.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)
    assert ensure(plain_db, TWO)["status"] == "recompiled"
    assert shape(plain_db, "f") == TWO


def test_elsewhere_the_setting_changes_nothing(plain_db: Db) -> None:
    ensure(plain_db, ONE)
    plain_db.do("select set_config('app.settings.jwt_secret', 'production', true)")
    assert ensure(plain_db, TWO, False)["status"] == "mismatch"


def test_leave_to_lose_data_loses_nothing_when_equal(db: Db) -> None:
    ensure(db, ONE)
    start(db, "f")
    assert ensure(db, ONE, True)["status"] == "verified"
    assert db.value("select count(*) from pgflow.runs") == 1


def test_it_is_called_by_name(plain_db: Db) -> None:
    result = plain_db.value(
        "select pgflow.ensure_flow_compiled(flow_slug => 'f', shape => %s, allow_data_loss => false)",
        Jsonb(ONE),
    )
    assert result["status"] == "compiled"


def test_options_are_neither_compared_nor_applied(plain_db: Db) -> None:
    ensure(plain_db, {**ONE, "options": {"timeout": 5}})
    plain_db.do("update pgflow.flows set opt_timeout = 99")
    assert ensure(plain_db, {**ONE, "options": {"timeout": 7}})["status"] == "verified"
    assert plain_db.value("select opt_timeout from pgflow.flows") == 99


def test_recompiling_takes_the_new_options(plain_db: Db) -> None:
    ensure(plain_db, {**ONE, "options": {"timeout": 5}})
    ensure(plain_db, {**TWO, "options": {"timeout": 7}}, True)
    assert plain_db.value("select opt_timeout from pgflow.flows") == 7


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"whenUnmet": "fail"}, "Step at index 0: whenUnmet differs 'fail' vs 'skip'"),
        ({"stepType": "map"}, "Step at index 0: type differs 'map' vs 'single'"),
        (
            {"requiredInputPattern": {"defined": True, "value": {"k": 1}}},
            (
                'Step at index 0: requiredInputPattern differs \'{"value": {"k": 1}, "defined": true}\''
                " vs '{\"defined\": false}'"
            ),
        ),
    ],
)
def test_the_given_shape_comes_first_in_the_texts(plain_db: Db, change: dict[str, Any], text: str) -> None:
    ensure(plain_db, ONE)
    changed = {"steps": [{**ONE["steps"][0], **change}]}
    assert ensure(plain_db, changed) == answer("mismatch", text, kind="shape")


def test_a_flow_made_by_sql_calls_is_verified_by_its_shape(plain_db: Db) -> None:
    flow(plain_db, "f", "a", step("b", "a"))
    assert ensure(plain_db, TWO)["status"] == "verified"


def test_a_known_flow_with_a_lost_queue_is_still_verified(plain_db: Db) -> None:
    ensure(plain_db, ONE)
    plain_db.do("select pgmq.drop_queue('f')")
    assert ensure(plain_db, ONE)["status"] == "verified"


def test_workers_that_compile_at_once_wait_for_each_other(conn: psycopg.Connection[Any], dsn: str) -> None:
    statuses: list[str] = []

    def second() -> None:
        with psycopg.connect(conn.info.dsn, password=conn.info.password or None, autocommit=True) as other:
            statuses.append(ensure(Db(other), ONE)["status"])

    with conn.transaction():
        assert ensure(Db(conn), ONE)["status"] == "compiled"
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        assert statuses == []
    thread.join(10)
    assert statuses == ["verified"]
