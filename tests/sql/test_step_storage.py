"""How maps are stored: who says it, what stays, and what is refused."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgflow_mp.db.reads import storages as reads

from .helpers import Db, flow, map_step, step


def shape(maps: dict[str, dict[str, Any]], default: str | None = None) -> Jsonb:
    """Of the flow ``f``: maps one over the other with their options, and a new flow's default."""
    unset = {"defined": False}
    steps = [
        {
            "slug": slug,
            "stepType": "map",
            "dependencies": [*maps][max(0, n - 1) : n],
            "whenUnmet": "skip",
            "whenExhausted": "fail",
            "requiredInputPattern": unset,
            "forbiddenInputPattern": unset,
            "options": options,
        }
        for n, (slug, options) in enumerate(maps.items())
    ]
    single = {**steps[0], "slug": "s", "stepType": "single", "dependencies": [], "options": {"timeout": 9}}
    return Jsonb(
        {"steps": [*steps, single], "options": {} if default is None else {"defaultStorage": default}}
    )


def compiled(db: Db, given: Jsonb) -> str:
    return str(db.value("select pgflow.ensure_flow_compiled('f', %s) ->> 'status'", given))


def applied(db: Db, given: Jsonb) -> list[str]:
    changes: list[str] = db.value("select pgflow.apply_flow_options('f', %s)", given)
    return changes


def storages(db: Db) -> dict[str, str | None]:
    query = "select step_slug, storage from pgflow.step_policies order by step_slug"
    return {row.step_slug: row.storage for row in db.rows(query)}


NOTHING: dict[str, dict[str, Any]] = {"a": {}, "b": {}}


def test_a_new_flow_has_its_own_storages_and_the_default_of_its_code_for_the_others(db: Db) -> None:
    assert compiled(db, shape({"a": {}, "b": {"storage": "tasks"}}, "ranges")) == "compiled"
    assert storages(db) == {"a": "ranges", "b": "tasks"}


def test_without_a_word_about_it_maps_are_in_tasks(db: Db) -> None:
    compiled(db, shape(NOTHING))
    assert storages(db) == {}
    assert db.column(
        "select distinct was from pgflow._compare_flow_options('f', %s) where option = 'storage'",
        shape(NOTHING),
    ) == ["tasks", None]


@pytest.mark.parametrize("stored", [None, "tasks", "ranges"])
@pytest.mark.parametrize("default", [None, "tasks", "ranges"])
def test_a_stored_flow_keeps_its_storages_whatever_the_default(
    db: Db, stored: str | None, default: str | None
) -> None:
    options = {} if stored is None else {"storage": stored}
    compiled(db, shape({"a": options, "b": {}}))
    before = storages(db)
    later = shape({"a": {"batch": 4}, "b": {"stopAfterAlike": 2}}, default)
    assert compiled(db, later) == "verified"
    assert applied(db, later) == [
        'batch of step "a" is now 4, was not set',
        'stop_after_alike of step "b" is now 2, was not set',
    ]
    assert storages(db) == {"a": before.get("a"), "b": None}
    assert applied(db, shape(NOTHING, default)) == [
        'batch of step "a" is now not set, was 4',
        'stop_after_alike of step "b" is now not set, was 2',
    ]
    assert storages(db).get("a") == before.get("a")
    assert db.column("select batch from pgflow.step_policies where batch is not null") == []


def test_code_that_says_it_changes_the_storage_and_tells(db: Db) -> None:
    compiled(db, shape(NOTHING))
    both = shape({"a": {"storage": "ranges"}, "b": {"storage": "ranges", "barrier": False}})
    assert applied(db, both) == [
        'storage of step "a" is now ranges, was tasks',
        'storage of step "b" is now ranges, was tasks',
        'barrier of step "b" is now false, was true',
    ]
    assert storages(db) == {"a": "ranges", "b": "ranges"}
    assert applied(db, both) == []
    assert applied(db, shape({"a": {}, "b": {"storage": "tasks", "barrier": True}})) == [
        'storage of step "b" is now tasks, was ranges',
        'barrier of step "b" is now true, was false',
    ]
    assert storages(db) == {"a": "ranges", "b": "tasks"}


def test_a_flow_in_a_queue_for_each_step_has_storages_too(db: Db) -> None:
    db.do(
        "select pgflow.ensure_flow_compiled('f', %s, 'step')", shape({"a": {"batch": 2}, "b": {}}, "ranges")
    )
    assert storages(db) == {"a": "ranges", "b": "ranges"}
    assert db.column("select batch from pgflow.step_policies where step_slug = 'a'") == [2]


def test_a_client_that_knows_no_storages_leaves_them_as_they_are(db: Db) -> None:
    compiled(db, shape(NOTHING, "ranges"))
    bare = shape(NOTHING)
    assert compiled(db, bare) == "verified"
    assert db.value("select pgflow.ensure_flow_compiled('f', %s, false) ->> 'status'", bare) == "verified"
    assert storages(db) == {"a": "ranges", "b": "ranges"}


def test_a_policy_that_is_set_without_a_storage_leaves_it_as_it_is(db: Db) -> None:
    flow(db, "g", map_step("m"))
    db.do("select pgflow.set_step_policy('g', 'm', storage => 'ranges', batch => 5)")
    db.do("select pgflow.set_step_policy('g', 'm', 1)")
    (row,) = db.rows("select tolerated_failures, storage, batch from pgflow.step_policies")
    assert (row.tolerated_failures, row.storage, row.batch) == (1, "ranges", None)
    db.do("select pgflow.set_step_policy('g', 'm', storage => 'tasks')")
    assert db.column("select storage from pgflow.step_policies") == ["tasks"]


@pytest.mark.parametrize("given", ["storage => 'ranges'", "batch => 2", "barrier => true"])
def test_only_maps_have_a_storage(db: Db, given: str) -> None:
    flow(db, "g", step("s"))
    refused = db.refused(f"select pgflow.set_step_policy('g', 's', {given})")
    assert (refused.sqlstate, "is not a map step" in str(refused)) == ("PF005", True)


@pytest.mark.parametrize("given", ["storage => 'rows'", "batch => 0"])
def test_values_that_are_none_are_refused(db: Db, given: str) -> None:
    flow(db, "g", map_step("m"))
    assert db.refused(f"select pgflow.set_step_policy('g', 'm', {given})").sqlstate == "23514"


def test_only_a_map_over_a_map_without_conditions_begins_before_its_parent_is_done(db: Db) -> None:
    flow(db, "g", map_step("m"), map_step("n", "m"), step("s"), map_step("o", "s"))
    db.do("select pgflow.add_step('g', 'p', array['m'], step_type => 'map', required_input_pattern => '{}')")
    db.do("select pgflow.add_step('g', 'q', array['m'], step_type => 'map', forbidden_input_pattern => '{}')")
    for slug in ("m", "o", "p", "q"):
        refused = db.refused(f"select pgflow.set_step_policy('g', '{slug}', barrier => false)")
        assert refused.sqlstate == "PF005"
        assert f'Step "{slug}" cannot begin before its parent is done' in str(refused)
    db.do("select pgflow.set_step_policy('g', 'n', barrier => false)")
    assert db.column("select step_slug from pgflow.step_policies") == ["n"]


def test_the_storage_goes_with_its_flow(tx: psycopg.Connection[Any]) -> None:
    db = Db(tx)
    compiled(db, shape(NOTHING, "ranges"))
    db.do("select pgflow.delete_flow_and_data('f')")
    assert storages(db) == {}
    compiled(db, shape(NOTHING))
    assert storages(db) == {}


def test_a_client_that_knows_no_storages_is_told_of_maps_in_ranges(db: Db) -> None:
    told: list[str] = []
    db.do("set local client_min_messages = notice")
    db.conn.add_notice_handler(lambda notice: told.append(f"{notice.message_primary}\n{notice.message_hint}"))
    compiled(db, shape({"a": {}, "b": {"storage": "tasks"}}, "ranges"))
    compiled(db, shape(NOTHING, "ranges"))
    compiled(db, shape(NOTHING, "tasks"))
    compiled(db, shape({"a": {"storage": "ranges"}, "b": {}}))
    assert told == []
    assert compiled(db, shape(NOTHING)) == "verified"
    (said,) = told
    assert said.startswith(
        'maps of flow "f" are stored in ranges, whose items only workers of pgflow_mp get: "a"\n'
    )
    assert 'say storage="tasks" in the Python code of the flow' in said
    db.do("select pgflow.set_step_policy('f', 'a', storage => 'tasks')")
    compiled(db, shape(NOTHING))
    assert told == [said]


def test_a_change_is_for_maps_that_are_started_from_then_on(db: Db) -> None:
    compiled(db, shape(NOTHING))
    first = str(db.value("select run_id from pgflow.start_flow('f', '[1, 2]')"))
    assert reads.storages(db.conn, first) == {"a": "tasks", "b": "tasks"}
    applied(db, shape({"a": {"storage": "ranges"}, "b": {"storage": "ranges"}}))
    second = str(db.value("select run_id from pgflow.start_flow('f', '[1, 2]')"))
    applied(db, shape({"a": {"storage": "tasks"}, "b": {}}))
    assert reads.storages(db.conn, first) == {"a": "tasks", "b": "ranges"}
    assert reads.storages(db.conn, second) == {"a": "ranges", "b": "ranges"}
    assert db.column("select count(*) from pgflow.step_tasks where step_slug = 'a' group by run_id") == [2]
