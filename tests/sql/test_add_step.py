"""``add_step`` (contract 4.2)."""

from __future__ import annotations

from typing import Any

import pytest

from .helpers import Db, Row, flow, map_step, start, state, step, work


def edges(db: Db, slug: str) -> list[tuple[str, str]]:
    rows = db.rows("select dep_slug, step_slug from pgflow.deps where flow_slug = %s order by 1, 2", slug)
    return [(r.dep_slug, r.step_slug) for r in rows]


def stored(db: Db, slug: str) -> Row:
    return db.row("select * from pgflow.steps where flow_slug = 'f' and step_slug = %s", slug)


def test_it_returns_the_stored_step_with_defaults(plain_db: Db) -> None:
    flow(plain_db, "f")
    row = plain_db.row("select *, created_at = now() as fresh from pgflow.add_step('f', 'a')")
    del row.created_at
    assert row == Row(
        flow_slug="f",
        step_slug="a",
        step_type="single",
        step_index=0,
        deps_count=0,
        opt_max_attempts=None,
        opt_base_delay=None,
        opt_timeout=None,
        opt_start_delay=None,
        required_input_pattern=None,
        forbidden_input_pattern=None,
        when_unmet="skip",
        when_exhausted="fail",
        queue_name="f",
        fresh=True,
    )


def test_the_twelve_arguments_are_in_the_contract_order(plain_db: Db) -> None:
    flow(plain_db, "f", "a")
    row = plain_db.row(
        "select * from pgflow.add_step('f', 'b', array['a'], 1, 2, 3, 4, 'map', '{\"r\": 1}', '{\"f\": 1}',"
        " 'fail', 'skip')"
    )
    del row.created_at
    assert row == Row(
        flow_slug="f",
        step_slug="b",
        step_type="map",
        step_index=1,
        deps_count=1,
        opt_max_attempts=1,
        opt_base_delay=2,
        opt_timeout=3,
        opt_start_delay=4,
        required_input_pattern={"r": 1},
        forbidden_input_pattern={"f": 1},
        when_unmet="fail",
        when_exhausted="skip",
        queue_name="f",
    )


def test_options_can_be_given_by_name(plain_db: Db) -> None:
    flow(plain_db, "f", step("a", max_attempts=0, base_delay=0, timeout=30, start_delay=0))
    row = stored(plain_db, "a")
    assert (row.opt_max_attempts, row.opt_base_delay, row.opt_timeout, row.opt_start_delay) == (0, 0, 30, 0)


@pytest.mark.parametrize("call", ["'f', 'a', null", "'f', 'a', '{}'", "'f', 'a', deps_slugs => null"])
def test_null_dependencies_mean_none(plain_db: Db, call: str) -> None:
    flow(plain_db, "f")
    assert plain_db.row(f"select * from pgflow.add_step({call})").deps_count == 0
    assert edges(plain_db, "f") == []


def test_a_null_type_means_single(plain_db: Db) -> None:
    flow(plain_db, "f")
    assert plain_db.row("select * from pgflow.add_step('f', 'a', step_type => null)").step_type == "single"


def test_indexes_count_from_zero_within_each_flow(plain_db: Db) -> None:
    flow(plain_db, "f", "a", "b", step("c", "a", "b"))
    flow(plain_db, "g", "a", "b")
    rows = plain_db.rows("select flow_slug, step_slug, step_index from pgflow.steps order by 1, 3")
    assert [(r.flow_slug, r.step_slug, r.step_index) for r in rows] == [
        ("f", "a", 0),
        ("f", "b", 1),
        ("f", "c", 2),
        ("g", "a", 0),
        ("g", "b", 1),
    ]


def test_the_next_index_follows_the_highest(plain_db: Db) -> None:
    flow(plain_db, "f", "a")
    plain_db.do("update pgflow.steps set step_index = 10")
    assert plain_db.row("select * from pgflow.add_step('f', 'b')").step_index == 11


def test_edges_and_their_count_are_stored(plain_db: Db) -> None:
    flow(plain_db, "f", "a", "b", step("c", "a", "b"), step("d", "c"))
    assert edges(plain_db, "f") == [("a", "c"), ("b", "c"), ("c", "d")]
    assert [stored(plain_db, s).deps_count for s in "abcd"] == [0, 0, 2, 1]


def test_adding_a_step_again_changes_nothing_and_returns_the_stored_row(plain_db: Db) -> None:
    flow(plain_db, "f", "a", "b", step("c", "a", max_attempts=2, step_type="map", when_unmet="fail"))
    before = stored(plain_db, "c")
    row = plain_db.row(
        "select * from pgflow.add_step('f', 'c', array['a'], 9, 9, 9, 9, 'single', '{\"x\": 1}',"
        " '{\"y\": 1}',"
        " 'skip', 'skip')"
    )
    assert row == before
    assert stored(plain_db, "c") == before
    assert plain_db.row("select * from pgflow.add_step('f', 'd')").step_index == 3


def test_further_dependencies_of_a_known_step_are_ignored(plain_db: Db) -> None:
    flow(plain_db, "f", "a", "b", step("c", "a"))
    plain_db.do("select pgflow.add_step('f', 'c', array['a', 'b'])")
    assert edges(plain_db, "f") == [("a", "c")]
    assert stored(plain_db, "c").deps_count == 1


def test_a_dependency_named_twice_counts_once(db: Db) -> None:
    flow(db, "f", "a", "b", step("c", "b", "a", "b", "a"))
    assert edges(db, "f") == [("a", "c"), ("b", "c")]
    assert stored(db, "c").deps_count == 2
    run = start(db, "f")
    work(db, "f")
    assert state(db, run, "c").status == "started"


def test_a_map_may_name_its_one_dependency_twice(db: Db) -> None:
    flow(db, "f", "a", map_step("m", "a", "a"))
    assert (stored(db, "m").step_type, stored(db, "m").deps_count) == ("map", 1)
    assert edges(db, "f") == [("a", "m")]
    run = start(db, "f")
    work(db, "f", {"a": [1, 2]})
    assert state(db, run, "m").remaining_tasks == 2


@pytest.mark.parametrize(
    ("call", "sqlstate", "message"),
    [
        (
            "'nope', 'a'",
            "23503",
            'insert or update on table "steps" violates foreign key constraint "steps_flow_slug_fkey"',
        ),
        (
            "'f', 'b', array['nope']",
            "23503",
            'insert or update on table "deps" violates foreign key constraint "deps_flow_slug_dep_slug_fkey"',
        ),
        (
            "'f', 'b', array['a', 'nope']",
            "23503",
            'insert or update on table "deps" violates foreign key constraint "deps_flow_slug_dep_slug_fkey"',
        ),
        (
            "'f', 'b', array['b']",
            "23514",
            'new row for relation "deps" violates check constraint "deps_check"',
        ),
        (
            "'f', 'b', array['a', 'b']",
            "23514",
            'new row for relation "deps" violates check constraint "deps_check"',
        ),
        (
            "'f', 'b-c'",
            "23514",
            'new row for relation "steps" violates check constraint "steps_step_slug_check"',
        ),
        (
            "'f', 'run'",
            "23514",
            'new row for relation "steps" violates check constraint "steps_step_slug_check"',
        ),
        (
            "'f', ''",
            "23514",
            'new row for relation "steps" violates check constraint "steps_step_slug_check"',
        ),
        (
            "'f', 'b', start_delay => -1",
            "23514",
            'new row for relation "steps" violates check constraint "opt_start_delay_is_nonnegative"',
        ),
        (
            "'f', 'b', step_type => 'foo'",
            "23514",
            'new row for relation "steps" violates check constraint "steps_step_type_check"',
        ),
        (
            "'f', 'b', step_type => ''",
            "23514",
            'new row for relation "steps" violates check constraint "steps_step_type_check"',
        ),
        (
            "'f', 'b', when_unmet => 'x'",
            "23514",
            'new row for relation "steps" violates check constraint "when_unmet_is_valid"',
        ),
        (
            "'f', 'b', when_exhausted => 'x'",
            "23514",
            'new row for relation "steps" violates check constraint "when_exhausted_is_valid"',
        ),
        (
            "'f', 'b', required_input_pattern => '[]'",
            "23514",
            'new row for relation "steps" violates check constraint "required_input_pattern_is_object"',
        ),
        (
            "'f', 'b', required_input_pattern => '\"s\"'",
            "23514",
            'new row for relation "steps" violates check constraint "required_input_pattern_is_object"',
        ),
        (
            "'f', 'b', forbidden_input_pattern => '1'",
            "23514",
            'new row for relation "steps" violates check constraint "forbidden_input_pattern_is_object"',
        ),
        (
            "'f', 'b', max_attempts => -1",
            "23514",
            'new row for relation "steps" violates check constraint "opt_max_attempts_is_nonnegative"',
        ),
        (
            "'f', 'b', base_delay => -1",
            "23514",
            'new row for relation "steps" violates check constraint "opt_base_delay_is_nonnegative"',
        ),
        (
            "'f', 'b', timeout => 0",
            "23514",
            'new row for relation "steps" violates check constraint "opt_timeout_is_positive"',
        ),
    ],
)
def test_a_bad_step_is_refused_with_the_contract_text(
    plain_db: Db, call: str, sqlstate: str, message: str
) -> None:
    flow(plain_db, "f", "a")
    refusal = plain_db.refused(f"select pgflow.add_step({call})")
    assert (refusal.sqlstate, refusal.message) == (sqlstate, message)
    assert plain_db.value("select count(*) from pgflow.steps") == 1


@pytest.mark.parametrize(
    ("deps", "text"),
    [
        (["a", "b"], 'Map step "m" can have at most one dependency, but 2 were provided: a, b'),
        (["b", "a"], 'Map step "m" can have at most one dependency, but 2 were provided: b, a'),
        (["a", "b", "c"], 'Map step "m" can have at most one dependency, but 3 were provided: a, b, c'),
        (["b", "a", "b"], 'Map step "m" can have at most one dependency, but 2 were provided: b, a'),
    ],
)
def test_a_map_takes_at_most_one_dependency(plain_db: Db, deps: list[str], text: str) -> None:
    flow(plain_db, "f", "a", "b", "c")
    refusal = plain_db.refused("select pgflow.add_step('f', 'm', %s, step_type => 'map')", deps)
    assert (refusal.sqlstate, refusal.message) == ("P0001", text)


@pytest.mark.parametrize("deps", [[], ["a"]])
def test_a_map_with_no_or_one_dependency_is_stored(plain_db: Db, deps: list[str]) -> None:
    flow(plain_db, "f", "a", map_step("m", *deps))
    assert (stored(plain_db, "m").step_type, stored(plain_db, "m").deps_count) == ("map", len(deps))


@pytest.mark.parametrize("mode", ["fail", "skip", "skip-cascade"])
def test_each_mode_is_stored(plain_db: Db, mode: str) -> None:
    flow(plain_db, "f", step("a", when_unmet=mode, when_exhausted=mode))
    assert (stored(plain_db, "a").when_unmet, stored(plain_db, "a").when_exhausted) == (mode, mode)


@pytest.mark.parametrize("pattern", [{}, {"a": {"b": [1, None]}}])
def test_an_object_pattern_is_stored_as_given(plain_db: Db, pattern: dict[str, Any]) -> None:
    flow(plain_db, "f", step("a", required_input_pattern=pattern, forbidden_input_pattern=pattern))
    assert stored(plain_db, "a").required_input_pattern == pattern
    assert stored(plain_db, "a").forbidden_input_pattern == pattern


def test_a_step_may_bear_the_flow_s_name_and_a_long_slug(db: Db) -> None:
    flow(db, "f", "f", step("x" * 128, "f"))
    run = start(db, "f")
    work(db, "f")
    assert state(db, run, "x" * 128).status == "started"


def test_a_big_diamond_is_built_in_order(plain_db: Db) -> None:
    middle = [f"m{i}" for i in range(20)]
    flow(plain_db, "f", "root", *[step(m, "root") for m in middle], step("join", *middle))
    assert stored(plain_db, "join").deps_count == 20
    assert stored(plain_db, "join").step_index == 21
