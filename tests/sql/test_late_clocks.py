"""Calls in a transaction that began before the run it works on was started.

``now()`` is the time at which a transaction began, so there it is earlier than the ``created_at`` of the
run's rows, and no time of a row may be earlier than that (contract 2.5).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from . import helpers
from .helpers import Db, claim, complete, event, fail, flow, map_step, run_row, start, state, step

NEVER = {"required_input_pattern": {"never": 1}}


@pytest.fixture
def arena(conn: psycopg.Connection[Any]) -> Db:
    """A database of its own, committed to, with the stand-in for events."""
    db = Db(conn)
    db.do(helpers.REALTIME + helpers.TEST_FUNCTIONS)
    return db


@pytest.fixture
def early(arena: Db, dsn: str) -> Iterator[Db]:
    """A second connection, whose transaction is older than everything that a test does."""
    with psycopg.connect(dsn) as conn:
        db = Db(conn)
        db.do("select now()")
        yield db
        conn.rollback()


def told(db: Db, run: uuid.UUID, event_type: str, slug: str, column: str) -> bool:
    """Whether the event carries the time that is stored."""
    stored = db.value(
        f"select to_jsonb({column}) from pgflow.step_states where run_id = %s and step_slug = %s", run, slug
    )
    return bool(stored is not None and event(db, run, event_type, slug)[column] == stored)


def assert_older(db: Db, run: uuid.UUID) -> None:
    assert db.value("select bool_and(created_at > now()) from pgflow.step_states where run_id = %s", run)


def test_a_completion_starts_the_next_step(arena: Db, early: Db) -> None:
    run = start(arena, flow(arena, "f", "a", step("b", "a")))
    claim(arena, "f")
    assert_older(early, run)
    complete(early, run, "a", 1)
    row = state(early, run, "b")
    assert (row.status, row.started_at) == ("started", row.created_at)
    assert told(early, run, "step:completed", "a", "completed_at")
    assert told(early, run, "step:started", "b", "started_at")
    claim(early, "f")
    complete(early, run, "b", 2)
    assert run_row(early, run).status == "completed"
    assert told(early, run, "step:completed", "b", "completed_at")


def test_a_completion_completes_an_empty_map(arena: Db, early: Db) -> None:
    run = start(arena, flow(arena, "f", "a", map_step("m", "a")))
    claim(arena, "f")
    complete(early, run, "a", [])
    row = state(early, run, "m")
    assert (row.status, row.started_at, row.completed_at) == ("completed", row.created_at, row.created_at)
    assert told(early, run, "step:completed", "m", "started_at")
    assert told(early, run, "step:completed", "m", "completed_at")
    assert run_row(early, run).status == "completed"


@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_a_completion_skips_a_step_by_its_condition(arena: Db, early: Db, mode: str) -> None:
    run = start(arena, flow(arena, "f", "a", step("b", "a", when_unmet=mode, **NEVER), step("c", "b")))
    claim(arena, "f")
    complete(early, run, "a", 1)
    for slug in ["b", "c"] if mode == "skip-cascade" else ["b"]:
        row = state(early, run, slug)
        assert (row.status, row.skipped_at) == ("skipped", row.created_at)
        assert told(early, run, "step:skipped", slug, "skipped_at")


def test_a_completion_fails_a_step_by_its_condition(arena: Db, early: Db) -> None:
    run = start(arena, flow(arena, "f", "a", step("b", "a", when_unmet="fail", **NEVER)))
    claim(arena, "f")
    complete(early, run, "a", 1)
    row = run_row(early, run)
    assert (row.status, row.failed_at) == ("failed", row.started_at)
    assert told(early, run, "step:failed", "b", "failed_at")
    stored = early.value("select to_jsonb(failed_at) from pgflow.runs where run_id = %s", run)
    assert event(early, run, "run:failed")["failed_at"] == stored


@pytest.mark.parametrize("mode", ["fail", "skip", "skip-cascade"])
def test_a_failure_ends_the_step(arena: Db, early: Db, mode: str) -> None:
    flow(arena, "f", step("a", max_attempts=1, when_exhausted=mode), step("b", "a"))
    run = start(arena, "f")
    claim(arena, "f")
    fail(early, run, "a")
    assert state(early, run, "a").status == ("failed" if mode == "fail" else "skipped")
    if mode == "fail":
        assert told(early, run, "step:failed", "a", "failed_at")
    else:
        assert told(early, run, "step:skipped", "a", "skipped_at")
    if mode == "skip-cascade":
        assert told(early, run, "step:skipped", "b", "skipped_at")


def test_a_cancelled_run_tells_the_times_that_are_stored(arena: Db, early: Db) -> None:
    run = start(arena, flow(arena, "f", "a"))
    early.do("select pgflow.cancel_run(%s)", run)
    assert told(early, run, "step:failed", "a", "failed_at")
    stored = early.value("select to_jsonb(failed_at) from pgflow.runs where run_id = %s", run)
    assert event(early, run, "run:failed")["failed_at"] == stored
