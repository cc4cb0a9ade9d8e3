"""Limits of flows and steps, as they are written in Python."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgflow_mp import Flow
from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.limits import per_second


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("100/s", 100),
        ("30/min", 0.5),
        (" 36 / Hour ", 0.01),
        ("2.5", 2.5),
        (".5/s", 0.5),
        (7, 7),
        (0.25, 0.25),
    ],
)
def test_a_rate_is_so_many_in_a_time(given: object, rate: float) -> None:
    assert per_second(given) == rate


@pytest.mark.parametrize(
    "given",
    [
        "",
        "many",
        "1/d",
        "-1/s",
        "1e3/s",
        "0/s",
        0,
        -1,
        float("nan"),
        float("inf"),
        2e9,
        10**400,
        True,
        b"1/s",
        [1],
    ],
)
def test_what_is_no_rate_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"rate like|at most 1,000,000,000 a second"):
        per_second(given)


def test_limits_are_kept_apart_from_other_options_and_reach_shape_and_sql(
    tx: psycopg.Connection[tuple[object, ...]],
) -> None:
    flow = Flow("f", limit=8, timeout=9).map("m", abs, rate="30/min", burst=5).step("s", len, limit=1)
    assert (dict(flow.limits), dict(flow.options)) == ({"at_once": 8}, {"timeout": 9})
    assert flow.shape()["options"] == {"timeout": 9, "limit": 8}
    assert [step.get("options") for step in flow.shape()["steps"]] == [
        {"rate": 0.5, "burst": 5},
        {"limit": 1},
    ]
    statements = flow.to_sql().splitlines()
    assert statements[-3:] == [
        "SELECT pgflow.define_limit('f', at_once => 8);",
        "SELECT pgflow.define_limit('f', 'm', rate => 0.5, burst => 5);",
        "SELECT pgflow.define_limit('f', 's', at_once => 1);",
    ]
    for statement in statements:
        tx.execute(statement.encode())
    rows = tx.execute("select step_slug, at_once, rate, burst from pgflow.limits order by 1").fetchall()
    assert rows == [("", 8, None, None), ("m", None, 0.5, 5), ("s", 1, None, None)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, "limit must be from 1 to 2147483647"),
        ({"limit": 2**31}, "limit must be from 1 to 2147483647"),
        ({"limit": "8"}, "limit must be an integer, not str"),
        ({"limit": True}, "limit must be an integer, not bool"),
        ({"rate": "fast"}, r"rate of .*: 'fast' is not a rate like 100/s, 30/min or 1000/h"),
        ({"rate": 5, "burst": 0}, "burst must be from 1"),
        ({"burst": 3}, "burst of .* has no rate"),
    ],
)
def test_what_is_no_limit_is_refused_where_it_is_written(options: dict[str, Any], says: str) -> None:
    with pytest.raises(FlowDefinitionError, match=says) as caught:
        Flow("f", **options)
    assert 'Flow "f"' in f"{caught.value} {caught.value.hint}"
    with pytest.raises(FlowDefinitionError, match=says) as caught:
        Flow("f").map("m", abs, **options)
    assert 'step "m"' in f"{caught.value} {caught.value.hint}"
