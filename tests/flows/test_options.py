"""The table of options, and what has to agree with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgflow_mp import Flow
from pgflow_mp.flows.options import (
    ANY_STEP,
    DEFAULT_STORAGE,
    FLOW,
    KEYS,
    MINIMUM,
    OPTIONS,
    POLICY_MINIMUM,
    STORAGES,
    names,
    table,
)
from pgflow_mp.flows.steps import FlowOptions, MapOptions, StepOptions

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("kind", "typed"),
    [(FLOW, FlowOptions), ("step", StepOptions), ("array", StepOptions), ("map", MapOptions)],
)
def test_type_checkers_know_the_options_of_the_table(kind: str, typed: type) -> None:
    assert sorted(typed.__annotations__) == sorted(names(kind))


def test_the_page_shows_the_table() -> None:
    assert table() in (DOCS / "options.md").read_text(encoding="utf-8")


def test_every_option_that_the_database_keeps_reaches_it(tx: psycopg.Connection[tuple[object, ...]]) -> None:
    values: Any = {spec.name: 7 for spec in OPTIONS if spec.columns} | {
        "storage": "ranges",
        "barrier": False,
        "requires": ["gpu"],
    }
    flow = Flow("kept").map("before", len).map("items", len, over="before", **values)
    share = Flow("shared").map("items", len, tolerate=0.5)
    for each in (flow, share):
        for statement in each.to_sql().splitlines():
            tx.execute(statement.encode())
    query = (
        "select s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay, "
        "p.tolerated_failures, p.stop_after_alike, p.batch, p.storage, p.barrier "
        "from pgflow.steps s join pgflow.step_policies p using (flow_slug, step_slug) "
        "where flow_slug = 'kept' and step_slug = 'items'"
    )
    assert tx.execute(query).fetchone() == (*(7,) * 7, "ranges", False)
    query = "select at_once, rate, burst from pgflow.limits where (flow_slug, step_slug) = ('kept', 'items')"
    assert tx.execute(query).fetchone() == (7, 7.0, 7)
    assert tx.execute("select step_slug, labels from pgflow.step_requirements").fetchall() == [
        ("items", ["gpu"])
    ]
    shape = flow.shape()["steps"][1]["options"]
    others = {"storage": "ranges", "barrier": False, "requires": ["gpu"]}
    assert shape == {KEYS[column]: 7 for column in KEYS if column != "tolerated_share"} | others
    assert share.shape()["steps"][0]["options"] == {"toleratedShare": 0.5}


def test_the_group_of_an_integer_says_which_function_of_the_database_takes_it() -> None:
    bounded = {spec.name: spec.group for spec in OPTIONS if spec.minimum is not None}
    assert set(bounded.values()) == {"integers", "policy", "limits"}
    assert set(MINIMUM) == {name for name, group in bounded.items() if group == "integers"}
    assert set(POLICY_MINIMUM) == {name for name, group in bounded.items() if group == "policy"} != set()


def test_every_kind_of_step_has_a_place_in_the_table() -> None:
    assert {kind for spec in OPTIONS for kind in spec.kinds} == {FLOW, *ANY_STEP}
    assert all(spec.minimum is not None for spec in OPTIONS if spec.group == "integers")


def test_the_storages_of_the_table_are_those_of_the_database(
    tx: psycopg.Connection[tuple[object, ...]],
) -> None:
    assert DEFAULT_STORAGE in STORAGES
    query = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'storage_is_known'"
    (said,) = tx.execute(query).fetchone() or ("",)
    assert set(re.findall(r"'(\w+)'", str(said))) == set(STORAGES)
