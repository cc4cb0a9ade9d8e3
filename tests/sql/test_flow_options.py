"""Options of a stored flow: brought in line with the code's, and read by workers."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from .helpers import Db, flow, map_step, step


def shape(
    flow_options: dict[str, Any] | None = None,
    single: dict[str, Any] | None = None,
    mapped: dict[str, Any] | None = None,
) -> Jsonb:
    """Of the flow ``f``: a map ``m`` and the step ``s`` after it."""
    unset = {"defined": False}
    rest = {
        "whenUnmet": "skip",
        "whenExhausted": "fail",
        "requiredInputPattern": unset,
        "forbiddenInputPattern": unset,
    }
    steps: list[dict[str, Any]] = [
        {"slug": "m", "stepType": "map", "dependencies": [], **rest},
        {"slug": "s", "stepType": "single", "dependencies": ["m"], **rest},
    ]
    found: dict[str, Any] = {"steps": steps}
    if mapped is not None:
        steps[0]["options"] = mapped
    if single is not None:
        steps[1]["options"] = single
    if flow_options is not None:
        found["options"] = flow_options
    return Jsonb(found)


def compiled(db: Db, given: Jsonb) -> str:
    return str(db.value("select pgflow.ensure_flow_compiled('f', %s) ->> 'status'", given))


def applied(db: Db, given: Jsonb) -> list[str]:
    changes: list[str] = db.value("select pgflow.apply_flow_options('f', %s)", given)
    return changes


def stored(db: Db) -> list[Any]:
    """Everything that is an option but for the storage, as it is in the tables."""
    return [
        db.rows("select opt_max_attempts, opt_base_delay, opt_timeout from pgflow.flows"),
        db.rows(
            "select step_slug, opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay"
            " from pgflow.steps order by step_index"
        ),
        db.rows(
            "select step_slug, tolerated_failures, tolerated_share::float8 as share, stop_after_alike, batch"
            " from pgflow.step_policies"
            " where batch > 0 or num_nonnulls(tolerated_failures, tolerated_share) > 0"
            " order by 1"
        ),
        db.rows("select step_slug, labels from pgflow.step_requirements order by 1"),
        db.rows("select step_slug, at_once, rate, burst, is_set from pgflow.limits order by 1"),
    ]


PLAIN = shape()
FULL = shape(
    {"maxAttempts": 7, "baseDelay": 2, "timeout": 90, "limit": 9},
    {"maxAttempts": 1, "baseDelay": 4, "timeout": 20, "startDelay": 6, "requires": ["b", "a"]},
    {
        "timeout": 3,
        "toleratedShare": 0.015,
        "stopAfterAlike": 20,
        "storage": "ranges",
        "batch": 256,
        "limit": 4,
        "rate": 0.5,
        "burst": 2,
    },
)
COUNT = shape(
    None, {"startDelay": 0, "timeout": 60}, {"toleratedFailures": 1, "storage": "tasks", "batch": 8}
)


@pytest.mark.parametrize("before", [PLAIN, FULL, COUNT], ids=["plain", "full", "count"])
@pytest.mark.parametrize("after", [PLAIN, FULL, COUNT], ids=["plain", "full", "count"])
def test_applied_options_are_those_of_a_flow_that_is_created_with_them(
    db: Db, before: Jsonb, after: Jsonb
) -> None:
    assert compiled(db, after) == "compiled"
    wanted = stored(db)
    db.do("select pgflow.delete_flow_and_data('f')")
    assert compiled(db, before) == "compiled"
    assert compiled(db, after) == "verified"
    assert bool(applied(db, after)) is (before is not after)
    assert stored(db) == wanted
    assert applied(db, after) == []


def test_every_change_is_told_with_what_was_and_what_is(db: Db) -> None:
    compiled(db, PLAIN)
    assert applied(db, FULL) == [
        "max_attempts is now 7, was 3",
        "base_delay is now 2 s, was 5 s",
        "timeout is now 90 s, was 60 s",
        "limit is now 9, was not set",
        'timeout of step "m" is now 3 s, was the flow\'s',
        'tolerate of step "m" is now 1.5 %, was not set',
        'stop_after_alike of step "m" is now 20, was not set',
        'storage of step "m" is now ranges, was tasks',
        'batch of step "m" is now 256, was not set',
        'limit of step "m" is now 4, was not set',
        'rate of step "m" is now 0.5/s, was not set',
        'burst of step "m" is now 2, was not set',
        'max_attempts of step "s" is now 1, was the flow\'s',
        'base_delay of step "s" is now 4 s, was the flow\'s',
        'timeout of step "s" is now 20 s, was the flow\'s',
        'start_delay of step "s" is now 6 s, was not set',
        'requires of step "s" is now a, b, was not set',
    ]
    assert applied(db, COUNT)[3:] == [
        "limit is now not set, was 9",
        'timeout of step "m" is now the flow\'s, was 3 s',
        'tolerate of step "m" is now 1, was 1.5 %',
        'stop_after_alike of step "m" is now not set, was 20',
        'storage of step "m" is now tasks, was ranges',
        'batch of step "m" is now 8, was 256',
        'limit of step "m" is now not set, was 4',
        'rate of step "m" is now not set, was 0.5/s',
        'burst of step "m" is now not set, was 2',
        'max_attempts of step "s" is now the flow\'s, was 1',
        'base_delay of step "s" is now the flow\'s, was 4 s',
        'timeout of step "s" is now 60 s, was 20 s',
        'start_delay of step "s" is now 0 s, was 6 s',
        'requires of step "s" is now not set, was a, b',
    ]


def test_a_value_that_equals_the_flows_is_still_a_value(db: Db) -> None:
    compiled(db, PLAIN)
    assert applied(db, shape(single={"timeout": 60})) == ['timeout of step "s" is now 60 s, was the flow\'s']
    assert applied(db, shape({"timeout": 90}, {"timeout": 60})) == ["timeout is now 90 s, was 60 s"]


def test_options_that_are_null_are_not_set(db: Db) -> None:
    compiled(db, FULL)
    nothing = {"maxAttempts": None, "timeout": None, "toleratedShare": None, "stopAfterAlike": None}
    applied(db, shape({"maxAttempts": None}, nothing, nothing))
    found = stored(db)
    applied(db, PLAIN)
    assert found[:2] == stored(db)[:2]


def test_nothing_is_applied_to_a_flow_of_another_shape(db: Db) -> None:
    flow(db, "f", map_step("m", timeout=5))
    before = stored(db)
    assert applied(db, FULL) == []
    assert stored(db) == before


def test_nothing_is_applied_to_a_flow_that_is_not_there(db: Db) -> None:
    assert applied(db, FULL) == []
    assert applied(db, Jsonb({"steps": []})) == []
    assert stored(db) == [[], [], [], [], []]


def test_other_flows_stay_as_they_are(db: Db) -> None:
    flow(db, "g", map_step("m", timeout=5), step("s", "m", max_attempts=2), timeout=50)
    db.do("select pgflow.set_step_policy('g', 'm', 1)")
    before = stored(db)
    compiled(db, PLAIN)
    applied(db, FULL)
    db.do("select pgflow.delete_flow_and_data('f')")
    assert stored(db) == before


def test_options_that_make_no_sense_are_refused(db: Db) -> None:
    compiled(db, PLAIN)
    given = shape({"timeout": 90}, {"toleratedFailures": 1})
    assert db.refused("select pgflow.apply_flow_options('f', %s)", given).sqlstate == "PF005"
    assert db.refused("select pgflow.apply_flow_options('f', %s)", shape({"timeout": 0})).sqlstate == "23514"
    assert applied(db, PLAIN) == []


def test_a_claim_goes_by_the_options_that_were_applied_meanwhile(tx: psycopg.Connection[Any]) -> None:
    db = Db(tx)
    compiled(db, PLAIN)
    db.do("select pgflow.start_flow('f', '[1, 2]')")
    db.do("select pgflow.register_worker('11111111-1111-1111-1111-111111111111', 'f', 'w')")
    claim = "select timeout from pgflow.claim_tasks('f', '11111111-1111-1111-1111-111111111111', 1)"
    assert db.column(claim) == [60]
    applied(db, shape(mapped={"timeout": 20}))
    assert db.column(claim) == [20]


def test_the_effective_retry_options_can_be_read(db: Db) -> None:
    compiled(db, FULL)
    rows = db.rows("select * from pgflow.flow_options('f')")
    assert [(row.step_slug, row.max_attempts, row.base_delay) for row in rows] == [("m", 7, 2), ("s", 1, 4)]
    assert db.rows("select * from pgflow.flow_options('nowhere')") == []


def test_a_worker_may_read_options_and_nobody_may_change_them(db: Db) -> None:
    compiled(db, PLAIN)
    db.do("create role pgflow_test_reader")
    for access in ("starter", "operator", "worker"):
        db.do("select pgflow.grant_access('pgflow_test_reader', %s)", access)
    db.do("set local role pgflow_test_reader")
    assert db.column("select step_slug from pgflow.flow_options('f')") == ["m", "s"]
    assert db.refused("select pgflow.apply_flow_options('f', %s)", FULL).sqlstate == "42501"
    db.do("reset role")
