"""Runs whose items are loaded page by page."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from .helpers import WORKER, Db, drain, flow, map_step, run_row, start
from .range_work import hired


def two_maps(db: Db, storage: str) -> None:
    flow(db, "f", map_step("a"), map_step("b"), "s", map_step("c", "a"))
    db.do(
        "insert into pgflow.step_policies (flow_slug, step_slug, storage) "
        "values ('f', 'a', %s), ('f', 'b', %s)",
        storage,
        storage,
    )
    hired(db)


def add(db: Db, run: uuid.UUID, first: int, *values: Any) -> int:
    items: int = db.value(
        "select pgflow.add_pages(%s, %s, %s, %s::jsonb[])", run, [first], [len(values)], [json.dumps(values)]
    )
    return items


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_root_maps_have_the_items_and_all_other_steps_the_parameters(db: Db, storage: str) -> None:
    two_maps(db, storage)
    run = db.value("select pgflow.open_load('f')")
    assert add(db, run, 0, "x", "y") == 2
    assert add(db, run, 2, "z") == 3
    assert db.value("select count(*) from pgflow.runs") == 0
    assert db.value("select pgflow.start_loaded_run(%s, %s, 4)", run, {"rate": 2}) == run
    assert db.value("select priority from pgflow.run_priorities where run_id = %s", run) == 4
    rows = db.rows("select * from pgflow.claim_work('f', %s, 100, 100)", WORKER)
    found: dict[str, list[Any]] = {}
    for row in rows:
        if row.items is None:
            found.setdefault(row.step_slug, []).append(row.input if row.step_slug != "s" else row.flow_input)
        elif row.msg_id is not None:
            found.setdefault(row.step_slug, []).extend(row.input)
    assert found == {"a": ["x", "y", "z"], "b": ["x", "y", "z"], "s": [{"rate": 2}]}


def test_pages_are_checked_as_they_come_and_have_to_follow_one_another(db: Db) -> None:
    two_maps(db, "ranges")
    run = db.value("select pgflow.open_load('f')")
    for first, count, body in (
        (0, 2, "[1]"),
        (0, 1, "{}"),
        (-1, 1, "[1]"),
        (2147483647, 1, "[1]"),
        (0, 0, "[]"),
    ):
        refusal = db.refused(
            "select pgflow.add_pages(%s, %s, %s, %s::jsonb[])", run, [first], [count], [body]
        )
        assert refusal.sqlstate == "22023"
    add(db, run, 1, 1)
    refusal = db.refused("select pgflow.start_loaded_run(%s)", run)
    assert "do not follow one another before item 1" in refusal.message
    add(db, run, 0, 0)
    refusal = db.refused("select pgflow.start_loaded_run(%s, '[]')", run)
    assert "are an object, not array" in refusal.message
    db.do("select pgflow.start_loaded_run(%s)", run)
    for call in ("start_loaded_run(%s)", "drop_load(%s)", "add_pages(%s, '{0}', '{1}', '{[1]}')"):
        refusal = db.refused(f"select pgflow.{call}", run)
        assert refusal.sqlstate == "PF003"


def test_what_was_never_started_is_dropped_after_a_day_or_when_asked(db: Db) -> None:
    two_maps(db, "ranges")
    old, run, other = (db.value("select pgflow.open_load('f')") for _ in range(3))
    for each in (old, run, other):
        add(db, each, 0, 1)
    db.do("select pgflow.drop_load(%s)", run)
    db.do("update pgflow.loads set touched_at = now() - interval '25 hours' where run_id = %s", old)
    db.do("select pgflow.open_load('f')")
    assert db.column("select distinct run_id from pgflow.pages") == [other]
    assert db.value("select count(*) from pgflow.loads") == 2
    db.do("select pgflow.delete_flow_and_data('f')")
    assert db.value("select count(*) from pgflow.pages") == db.value("select count(*) from pgflow.loads") == 0


def test_nothing_is_loaded_that_nobody_would_read(db: Db) -> None:
    flow(db, "single", "s", map_step("m", "s"))
    refusal = db.refused("select pgflow.open_load('single')")
    assert refusal.sqlstate == "PF006"
    two_maps(db, "ranges")
    run = start(db, "f", [1])
    refusal = db.refused("select pgflow.open_load('f', %s)", run)
    assert refusal.sqlstate == "23505"


def test_no_items_are_a_run_too_and_a_deleted_run_leaves_nothing(db: Db) -> None:
    flow(db, "g", map_step("m"))
    run = db.value("select pgflow.open_load('g')")
    db.do("select pgflow.start_loaded_run(%s)", run)
    assert run_row(db, run).output == {"m": []}
    two = db.value("select pgflow.open_load('g')")
    add(db, two, 0, 5, 6)
    db.do("select pgflow.start_loaded_run(%s)", two)
    assert drain(db, "g", {"m": 7}) == 2
    assert run_row(db, two).output == {"m": [7, 7]}
    db.do("select pgflow.prune_data_older_than('-1 hour')")
    assert db.value("select count(*) from pgflow.pages") == db.value("select count(*) from pgflow.loads") == 0
