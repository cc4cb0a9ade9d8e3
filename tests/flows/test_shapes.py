"""Shape and SQL text of a flow (contract: worker sections 6.1 and 6.2)."""

from __future__ import annotations

import json

import psycopg

from pgflow_mp import Flow


def handler() -> list[int]:
    return []


def full_flow() -> Flow:
    flow = Flow("demo", max_attempts=4, base_delay=2, timeout=30)
    flow.step("b", handler, when={"name": "O'Neil"}, when_unmet="skip-cascade")
    flow.array("a", handler, unless={}, when_exhausted="skip")
    flow.step("c", handler, depends_on=["b", "a"], max_attempts=1, base_delay=3, timeout=5, start_delay=0)
    return flow.map("m", handler, over="a")


def test_the_shape_has_the_contracts_keys_and_options_only_where_set() -> None:
    undefined = {"defined": False}
    modes = {"whenUnmet": "skip", "whenExhausted": "fail"}
    patterns = {"requiredInputPattern": undefined, "forbiddenInputPattern": undefined}
    assert full_flow().shape() == {
        "options": {"maxAttempts": 4, "baseDelay": 2, "timeout": 30},
        "steps": [
            {
                "slug": "b",
                "stepType": "single",
                "dependencies": [],
                "whenUnmet": "skip-cascade",
                "whenExhausted": "fail",
                "requiredInputPattern": {"defined": True, "value": {"name": "O'Neil"}},
                "forbiddenInputPattern": undefined,
            },
            {
                "slug": "a",
                "stepType": "single",
                "dependencies": [],
                "whenUnmet": "skip",
                "whenExhausted": "skip",
                "requiredInputPattern": undefined,
                "forbiddenInputPattern": {"defined": True, "value": {}},
            },
            {
                "slug": "c",
                "stepType": "single",
                "dependencies": ["a", "b"],
                **modes,
                **patterns,
                "options": {"maxAttempts": 1, "baseDelay": 3, "timeout": 5, "startDelay": 0},
            },
            {"slug": "m", "stepType": "map", "dependencies": ["a"], **modes, **patterns},
        ],
    }


def test_a_plain_flow_has_no_options_in_its_shape() -> None:
    assert Flow("demo").shape() == {"steps": []}


def test_dependencies_are_sorted_by_code_unit() -> None:
    flow = Flow("demo").step("a", handler).step("B", handler).step("X_c", handler)
    flow.step("d", handler, depends_on=["a", "X_c", "B"])
    assert flow.shape()["steps"][3]["dependencies"] == ["B", "X_c", "a"]


def test_sql_has_one_statement_a_line_with_quotes_doubled() -> None:
    assert full_flow().to_sql().splitlines() == [
        "SELECT pgflow.create_flow('demo', max_attempts => 4, base_delay => 2, timeout => 30);",
        (
            """SELECT pgflow.add_step('demo', 'b', required_input_pattern => '{"name":"O''Neil"}', """
            "when_unmet => 'skip-cascade');"
        ),
        "SELECT pgflow.add_step('demo', 'a', forbidden_input_pattern => '{}', when_exhausted => 'skip');",
        (
            "SELECT pgflow.add_step('demo', 'c', ARRAY['b', 'a'], "
            "max_attempts => 1, base_delay => 3, timeout => 5, start_delay => 0);"
        ),
        "SELECT pgflow.add_step('demo', 'm', ARRAY['a'], step_type => 'map');",
    ]


def test_the_sql_creates_what_the_start_up_check_accepts(tx: psycopg.Connection[tuple[object, ...]]) -> None:
    flow = full_flow()
    tx.execute(flow.to_sql().encode())
    query = "SELECT pgflow.ensure_flow_compiled('demo', %s::jsonb)"
    row = tx.execute(query, (json.dumps(flow.shape()),)).fetchone()
    assert row == ({"status": "verified", "differences": [], "mismatchKind": None},)


def test_the_sql_of_a_step_queued_flow_is_one_call(tx: psycopg.Connection[tuple[object, ...]]) -> None:
    flow = Flow("demo", queues="step", timeout=30).step("a", handler, when={"name": "O'Neil"})
    assert flow.to_sql().startswith('SELECT pgflow.ensure_flow_compiled(\'demo\', \'{"steps":[{"slug":"a",')
    tx.execute(flow.to_sql().encode())
    row = tx.execute("SELECT queue_mode, opt_timeout FROM pgflow.flows").fetchone()
    assert row == ("step", 30)
    assert tx.execute("SELECT queue_name FROM pgflow.steps").fetchone() == ("demo__a",)


def test_a_failure_policy_is_part_of_the_options_and_a_statement_of_its_own(
    tx: psycopg.Connection[tuple[object, ...]],
) -> None:
    flow = Flow("f")
    flow.map("m", abs, tolerate=0.01, stop_after_alike=20)
    flow.map("n", abs, over="m", tolerate=5)
    assert [step.get("options") for step in flow.shape()["steps"]] == [
        {"toleratedShare": 0.01, "stopAfterAlike": 20},
        {"toleratedFailures": 5},
    ]
    assert flow.to_sql().splitlines()[3:] == [
        "SELECT pgflow.set_step_policy('f', 'm', tolerated_share => 0.01, stop_after_alike => 20);",
        "SELECT pgflow.set_step_policy('f', 'n', tolerated_failures => 5);",
    ]
    for statement in flow.to_sql().splitlines():
        tx.execute(statement.encode())
    rows = tx.execute(
        "select step_slug, tolerated_failures, tolerated_share::float8, stop_after_alike "
        "from pgflow.step_policies order by step_slug"
    ).fetchall()
    assert rows == [("m", None, 0.01, 20), ("n", 5, None, None)]
