"""What a map in ranges has goes with its run and its step, by whatever means these are deleted."""

from __future__ import annotations

import uuid

import pytest

from .helpers import Db
from .range_rows import complete_items, exception, lease, ranges_run
from .test_grants import ROLE, acting
from .test_prune_data_older_than import age_run, prune

TABLES = ["range_maps", "ranges", "pages"]
GONE = [0, 0, 0]
SITES_OWN_PRUNE = """
create or replace function pgflow.prune_data_older_than(retention_interval interval) returns void
language plpgsql set search_path = '' as $$
declare
  v_runs uuid[] := array(
    select run_id from pgflow.runs where coalesce(completed_at, failed_at) < now() - retention_interval
  );
begin
  delete from pgflow.step_tasks where run_id = any (v_runs);
  delete from pgflow.step_states where run_id = any (v_runs);
  delete from pgflow.runs where run_id = any (v_runs);
end $$
"""


def counts(db: Db, run: uuid.UUID) -> list[int]:
    return [db.value(f"select count(*) from pgflow.{t} where run_id = %s", run) for t in TABLES]


def half_done(db: Db, slug: str = "r") -> uuid.UUID:
    run = ranges_run(db, range(12), slug=slug)
    complete_items(db, run, 0, [1, 2, 3])
    exception(db, run, 3, "completed", output="7")
    lease(db, run, 4, 8)
    return run


def end(db: Db, run: uuid.UUID, days: int) -> None:
    db.do("update pgflow.runs set status = 'failed', failed_at = now() where run_id = %s", run)
    age_run(db, run, days)


@pytest.fixture
def other(db: Db) -> tuple[uuid.UUID, list[int]]:
    """A run of another flow, and what belongs to it."""
    run = half_done(db, "other")
    return run, counts(db, run)


@pytest.mark.parametrize("own", [False, True], ids=["ours", "sites"])
def test_pruning_takes_pages_along(db: Db, other: tuple[uuid.UUID, list[int]], own: bool) -> None:
    if own:
        db.do(SITES_OWN_PRUNE)
    old, young = half_done(db), half_done(db)
    end(db, old, 8)
    end(db, young, 6)
    before = counts(db, young)
    prune(db)
    assert counts(db, old) == GONE
    assert counts(db, young) == before
    assert counts(db, other[0]) == other[1]


def test_deleting_a_flow_takes_pages_along(db: Db, other: tuple[uuid.UUID, list[int]]) -> None:
    run = half_done(db)
    db.do("select pgflow.delete_flow_and_data('r')")
    assert counts(db, run) == GONE
    assert counts(db, other[0]) == other[1]


def test_deleting_a_step_by_hand_takes_its_pages_along(db: Db) -> None:
    run = half_done(db)
    before = counts(db, run)
    db.do("delete from pgflow.step_states where step_slug = 's'")
    assert counts(db, run) == before
    db.do("delete from pgflow.step_tasks where run_id = %s", run)
    assert counts(db, run) == before
    db.do("delete from pgflow.step_states where run_id = %s", run)
    assert counts(db, run) == GONE


def test_deleting_a_run_takes_pages_along_that_have_no_step(
    db: Db, other: tuple[uuid.UUID, list[int]]
) -> None:
    run = half_done(db)
    db.do("update pgflow.pages set step_slug = 'gone' where run_id = %s", run)
    for table in ("step_tasks", "step_states", "runs"):
        db.do(f"delete from pgflow.{table} where run_id = %s", run)
    assert counts(db, run) == GONE
    assert counts(db, other[0]) == other[1]


@pytest.mark.parametrize("tables", ["pgflow.runs", "pgflow.step_states", "pgflow.flows", "pgflow.steps"])
def test_truncating_takes_pages_along(db: Db, tables: str) -> None:
    run = half_done(db)
    db.do(f"truncate {tables} cascade")
    assert counts(db, run) == GONE


def test_who_may_delete_needs_no_right_on_pages(db: Db) -> None:
    one, other = half_done(db), half_done(db, "other")
    db.do("delete from pgflow.step_tasks")
    db.do(f"create role {ROLE}")
    db.do(f"grant usage on schema pgflow to {ROLE}")
    db.do(f"grant select, delete on pgflow.runs, pgflow.step_states to {ROLE}")
    with acting(db):
        db.do("delete from pgflow.step_states where run_id = %s", one)
        db.do("delete from pgflow.runs where run_id = %s", one)
        assert db.refused("select 1 from pgflow.pages").sqlstate == "42501"
    assert counts(db, one) == GONE
    db.do(f"grant truncate on pgflow.step_tasks, pgflow.step_states to {ROLE}")
    db.do(f"grant select on pgflow.step_tasks to {ROLE}")
    with acting(db):
        db.do("truncate pgflow.step_states")
    assert counts(db, other) == GONE
