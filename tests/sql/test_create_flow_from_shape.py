"""``_create_flow_from_shape`` (contract 4.5)."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from .helpers import Db
from .test_get_flow_shape import shape, shape_step


def build(db: Db, given: dict[str, Any], slug: str = "f") -> None:
    db.do("select pgflow._create_flow_from_shape(%s, %s)", slug, Jsonb(given))


def test_a_compiled_shape_reads_back_equal(plain_db: Db) -> None:
    given = {
        "steps": [
            shape_step("root", stepType="map", requiredInputPattern={"defined": True, "value": {"a": [1]}}),
            shape_step("other", whenUnmet="fail", forbiddenInputPattern={"defined": True, "value": {}}),
            shape_step("each", stepType="map", dependencies=["root"], whenExhausted="skip-cascade"),
            shape_step(
                "join", dependencies=["each", "other"], whenUnmet="skip-cascade", whenExhausted="skip"
            ),
        ]
    }
    build(plain_db, given)
    assert shape(plain_db, "f") == given
    assert (
        plain_db.value("select pgflow._compare_flow_shapes(%s, pgflow._get_flow_shape('f'))", Jsonb(given))
        == []
    )


def test_a_shape_that_names_a_dependency_twice_reads_back_equal(plain_db: Db) -> None:
    given = {"steps": [shape_step("a"), shape_step("b"), shape_step("c", dependencies=["b", "a", "b"])]}
    build(plain_db, given)
    assert (
        plain_db.value("select pgflow._compare_flow_shapes(%s, pgflow._get_flow_shape('f'))", Jsonb(given))
        == []
    )


def test_flow_options_are_taken_and_missing_ones_default(plain_db: Db) -> None:
    build(plain_db, {"steps": [], "options": {"maxAttempts": 7, "timeout": 9}})
    row = plain_db.row("select * from pgflow.flows")
    assert (row.opt_max_attempts, row.opt_base_delay, row.opt_timeout) == (7, 5, 9)


def test_no_options_at_all_means_the_defaults(plain_db: Db) -> None:
    build(plain_db, {"steps": [{"slug": "a", "stepType": "single", "dependencies": []}]})
    row = plain_db.row("select * from pgflow.flows")
    assert (row.opt_max_attempts, row.opt_base_delay, row.opt_timeout) == (3, 5, 60)
    step = plain_db.row("select * from pgflow.steps")
    assert (step.opt_max_attempts, step.opt_base_delay, step.opt_timeout, step.opt_start_delay) == (None,) * 4
    assert (step.when_unmet, step.when_exhausted) == ("skip", "fail")
    assert (step.required_input_pattern, step.forbidden_input_pattern) == (None, None)


def test_step_options_are_taken_and_missing_ones_inherit(plain_db: Db) -> None:
    options = {"maxAttempts": 1, "baseDelay": 2, "timeout": 3, "startDelay": 4}
    build(
        plain_db,
        {"steps": [{**shape_step("a"), "options": options}, {**shape_step("b"), "options": {"timeout": 8}}]},
    )
    a, b = plain_db.rows("select * from pgflow.steps order by step_index")
    assert (a.opt_max_attempts, a.opt_base_delay, a.opt_timeout, a.opt_start_delay) == (1, 2, 3, 4)
    assert (b.opt_max_attempts, b.opt_base_delay, b.opt_timeout, b.opt_start_delay) == (None, None, 8, None)


def test_missing_dependencies_mean_none(plain_db: Db) -> None:
    build(plain_db, {"steps": [{"slug": "a", "stepType": "map"}]})
    row = plain_db.row("select * from pgflow.steps")
    assert (row.step_type, row.deps_count) == ("map", 0)


def test_a_pattern_that_is_not_defined_is_not_stored_even_with_a_value(plain_db: Db) -> None:
    build(
        plain_db,
        {"steps": [shape_step("a", requiredInputPattern={"defined": False, "value": {"x": 1}})]},
    )
    assert plain_db.value("select required_input_pattern from pgflow.steps") is None


def test_steps_keep_the_order_of_the_shape(plain_db: Db) -> None:
    build(plain_db, {"steps": [shape_step("z"), shape_step("a"), shape_step("m", dependencies=["z", "a"])]})
    assert plain_db.column("select step_slug from pgflow.steps order by step_index") == ["z", "a", "m"]


def test_the_queue_is_created(plain_db: Db) -> None:
    build(plain_db, {"steps": []}, "g")
    assert plain_db.column("select queue_name::text from pgmq.list_queues()") == ["g"]
