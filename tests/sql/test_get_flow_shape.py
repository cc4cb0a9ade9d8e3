"""``_get_flow_shape`` (contract 4.3)."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from pgflow_mp.db import schema

from .helpers import Db, flow, map_step, step

UNDEFINED = {"defined": False}


def shape(db: Db, slug: str) -> Any:
    return db.value("select pgflow._get_flow_shape(%s)", slug)


def shape_step(slug: str, **other: Any) -> dict[str, Any]:
    return {
        "slug": slug,
        "stepType": "single",
        "dependencies": [],
        "whenUnmet": "skip",
        "whenExhausted": "fail",
        "requiredInputPattern": UNDEFINED,
        "forbiddenInputPattern": UNDEFINED,
        **other,
    }


def test_an_unknown_flow_has_no_steps(plain_db: Db) -> None:
    assert shape(plain_db, "nope") == {"steps": []}


def test_a_flow_without_steps_has_no_steps(plain_db: Db) -> None:
    assert shape(plain_db, flow(plain_db, "f")) == {"steps": []}


def test_a_step_has_exactly_the_seven_keys(plain_db: Db) -> None:
    flow(plain_db, "f", step("a", max_attempts=2, base_delay=3, timeout=4, start_delay=5), max_attempts=9)
    assert shape(plain_db, "f") == {"steps": [shape_step("a")]}


def test_steps_come_in_definition_order(plain_db: Db) -> None:
    flow(plain_db, "f", "zebra", "apple", step("mango", "zebra"))
    assert [s["slug"] for s in shape(plain_db, "f")["steps"]] == ["zebra", "apple", "mango"]


def test_dependencies_are_sorted_by_code_unit(plain_db: Db) -> None:
    names = ["b", "Z", "a", "X_x", "A1", "a2"]
    flow(plain_db, "f", *names, step("join", *names))
    assert shape(plain_db, "f")["steps"][-1]["dependencies"] == sorted(names)


def test_modes_types_and_patterns_are_read_back(plain_db: Db) -> None:
    flow(
        plain_db,
        "f",
        map_step(
            "m",
            when_unmet="skip-cascade",
            when_exhausted="skip",
            required_input_pattern={"role": "admin"},
            forbidden_input_pattern={},
        ),
    )
    assert shape(plain_db, "f")["steps"] == [
        shape_step(
            "m",
            stepType="map",
            whenUnmet="skip-cascade",
            whenExhausted="skip",
            requiredInputPattern={"defined": True, "value": {"role": "admin"}},
            forbiddenInputPattern={"defined": True, "value": {}},
        )
    ]


def test_another_flow_does_not_mix_in(plain_db: Db) -> None:
    flow(plain_db, "f", "a", step("b", "a"))
    flow(plain_db, "g", "b", "a")
    assert shape(plain_db, "f")["steps"][1]["dependencies"] == ["a"]
    assert [s["slug"] for s in shape(plain_db, "g")["steps"]] == ["b", "a"]


def test_the_order_does_not_follow_the_database_s_language(server: Any) -> None:
    name = f"icu_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        try:
            conn.execute(
                f"create database {name} template template0 encoding 'UTF8'"
                " locale_provider icu icu_locale 'en-US' locale 'C'"
            )
        except psycopg.Error as error:
            pytest.skip(f"no ICU here: {error}")
    try:
        with psycopg.connect(server.dsn_of(name), autocommit=True) as conn:
            schema.install(conn)
            db = Db(conn)
            assert db.value("select 'a' < 'B'") is True
            names = ["b", "C", "a", "A1"]
            flow(db, "f", *names, step("join", *names))
            assert shape(db, "f")["steps"][-1]["dependencies"] == ["A1", "C", "a", "b"]
            run = db.value("select run_id from pgflow.start_flow('f', '{}')")
            rows = db.rows("select message from pgmq.q_f order by msg_id")
            assert [r.message["step_slug"] for r in rows] == ["A1", "C", "a", "b"]
            assert run is not None
    finally:
        server.drop_database(name)
