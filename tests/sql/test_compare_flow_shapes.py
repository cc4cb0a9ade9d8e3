"""``_compare_flow_shapes`` (contract 4.4): the texts are interface."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import Db, flow, step
from .test_get_flow_shape import UNDEFINED, shape_step


def compare(db: Db, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> Any:
    return db.value(
        "select pgflow._compare_flow_shapes(%s, %s)", Jsonb({"steps": first}), Jsonb({"steps": second})
    )


A = shape_step("a")
B = shape_step("b")


@pytest.mark.parametrize("steps", [[], [A], [A, B], [shape_step("a", dependencies=["x", "y"])]])
def test_equal_shapes_give_an_empty_array_and_not_null(plain_db: Db, steps: list[dict[str, Any]]) -> None:
    assert compare(plain_db, steps, steps) == []


def required(value: Any) -> dict[str, Any]:
    return {"requiredInputPattern": {"defined": True, "value": value}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"slug": "z"}, "Step at index 0: slug differs 'a' vs 'z'"),
        ({"stepType": "map"}, "Step at index 0: type differs 'single' vs 'map'"),
        ({"dependencies": ["x"]}, "Step at index 0: dependencies differ [] vs [x]"),
        ({"dependencies": ["y", "x"]}, "Step at index 0: dependencies differ [] vs [x, y]"),
        ({"whenUnmet": "fail"}, "Step at index 0: whenUnmet differs 'skip' vs 'fail'"),
        (
            {"whenExhausted": "skip-cascade"},
            "Step at index 0: whenExhausted differs 'fail' vs 'skip-cascade'",
        ),
        (
            required({"role": "admin"}),
            (
                "Step at index 0: requiredInputPattern differs '{\"defined\": false}' vs"
                ' \'{"value": {"role": "admin"}, "defined": true}\''
            ),
        ),
        (
            {"forbiddenInputPattern": {"defined": True, "value": {"x": 1}}},
            (
                "Step at index 0: forbiddenInputPattern differs '{\"defined\": false}' vs"
                ' \'{"value": {"x": 1}, "defined": true}\''
            ),
        ),
    ],
)
def test_a_difference_of_one_key_gives_its_one_text(plain_db: Db, change: dict[str, Any], text: str) -> None:
    assert compare(plain_db, [A], [{**A, **change}]) == [text]


def test_operands_are_given_first_shape_first(plain_db: Db) -> None:
    assert compare(plain_db, [{**A, "whenUnmet": "fail"}], [A]) == [
        "Step at index 0: whenUnmet differs 'fail' vs 'skip'"
    ]
    assert compare(plain_db, [{**A, **required({"a": 1})}], [{**A, **required({"a": 2})}]) == [
        (
            'Step at index 0: requiredInputPattern differs \'{"value": {"a": 1}, "defined": true}\' vs'
            ' \'{"value": {"a": 2}, "defined": true}\''
        )
    ]


def test_dependencies_are_compared_sorted(plain_db: Db) -> None:
    one = shape_step("c", dependencies=["b", "a"])
    other = shape_step("c", dependencies=["a", "b"])
    assert compare(plain_db, [one], [other]) == []
    assert compare(plain_db, [one], [shape_step("c", dependencies=["c", "a"])]) == [
        "Step at index 0: dependencies differ [a, b] vs [a, c]"
    ]


def test_a_missing_step_is_counted_and_named(plain_db: Db) -> None:
    assert compare(plain_db, [A], [A, B]) == [
        "Step count differs: 1 vs 2",
        "Step at index 1: missing in first shape (second has 'b')",
    ]
    assert compare(plain_db, [A, B], [A]) == [
        "Step count differs: 2 vs 1",
        "Step at index 1: missing in second shape (first has 'b')",
    ]
    assert compare(plain_db, [A, B], []) == [
        "Step count differs: 2 vs 0",
        "Step at index 0: missing in second shape (first has 'a')",
        "Step at index 1: missing in second shape (first has 'b')",
    ]


def test_differences_come_by_index_and_then_in_the_contract_order(plain_db: Db) -> None:
    other = shape_step(
        "z",
        stepType="map",
        dependencies=["q"],
        whenUnmet="fail",
        whenExhausted="skip",
        requiredInputPattern={"defined": True, "value": {}},
        forbiddenInputPattern={"defined": True, "value": {}},
    )
    found = compare(plain_db, [A, B], [other, {**B, "stepType": "map"}])
    keys = ["slug", "type", "dependencies", "whenUnmet", "whenExhausted"]
    keys += ["requiredInputPattern", "forbiddenInputPattern"]
    assert [f.split(": ")[1].split(" differ")[0] for f in found[:7]] == keys
    assert found[7:] == ["Step at index 1: type differs 'single' vs 'map'"]


def test_swapped_steps_differ_at_both_indexes(plain_db: Db) -> None:
    assert compare(plain_db, [A, B], [B, A]) == [
        "Step at index 0: slug differs 'a' vs 'b'",
        "Step at index 1: slug differs 'b' vs 'a'",
    ]


@pytest.mark.parametrize("key", ["whenUnmet", "whenExhausted"])
def test_a_missing_mode_counts_as_equal(plain_db: Db, key: str) -> None:
    without = {k: v for k, v in A.items() if k != key}
    assert compare(plain_db, [without], [{**A, key: "skip-cascade"}]) == []
    assert compare(plain_db, [A], [without]) == []


@pytest.mark.parametrize("key", ["requiredInputPattern", "forbiddenInputPattern"])
def test_a_missing_pattern_is_reported_with_an_empty_operand(plain_db: Db, key: str) -> None:
    without = {k: v for k, v in A.items() if k != key}
    assert compare(plain_db, [without], [A]) == [
        f"Step at index 0: {key} differs '' vs '{{\"defined\": false}}'"
    ]
    assert compare(plain_db, [A], [without]) == [
        f"Step at index 0: {key} differs '{{\"defined\": false}}' vs ''"
    ]
    assert compare(plain_db, [without], [without]) == []


def test_options_and_key_order_do_not_matter(plain_db: Db) -> None:
    reordered = dict(reversed(list(A.items())))
    assert compare(plain_db, [{**A, "options": {"timeout": 3}}], [reordered]) == []
    assert (
        plain_db.value(
            "select pgflow._compare_flow_shapes(%s, %s)",
            Jsonb({"steps": [A], "options": {"maxAttempts": 1}}),
            Jsonb({"steps": [A]}),
        )
        == []
    )


def test_the_minimal_shapes_of_older_clients_compare(plain_db: Db) -> None:
    minimal = {"slug": "a", "stepType": "single", "dependencies": []}
    assert compare(plain_db, [minimal], [minimal]) == []


def test_a_stored_flow_equals_its_own_shape(plain_db: Db) -> None:
    flow(plain_db, "f", "b", "A", step("j", "b", "A"))
    assert (
        plain_db.value(
            "select pgflow._compare_flow_shapes(pgflow._get_flow_shape('f'), pgflow._get_flow_shape('f'))"
        )
        == []
    )


def test_undefined_is_what_a_null_pattern_reads_back_as() -> None:
    assert A["requiredInputPattern"] == UNDEFINED
