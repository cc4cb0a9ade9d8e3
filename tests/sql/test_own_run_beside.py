"""Claims of workers with a run of their own: beside other sessions, and for runs of other flows."""

from __future__ import annotations

import time
import uuid

import pytest

from .helpers import WORKER, Db, flow, make_visible, map_step, start
from .range_work import hired, ranges_flow
from .test_flow_limits import limit
from .test_own_run_first import CLAIM, MODES, own, shares
from .test_own_run_plans import TABLES

MAP = "select 1 from pgflow.range_maps where run_id = %s for update"


@pytest.mark.parametrize("limited", [False, True])
def test_who_has_leased_of_its_own_run_waits_for_no_map_of_others(
    alone: Db, beside: Db, limited: bool
) -> None:
    """It would keep its own map locked meanwhile, and of two that did so each would hold up the other."""
    ranges_flow(alone, "f", map_step("m"))
    hired(alone)
    if limited:
        limit(alone, at_once=100)
    other, mine = start(alone, "f", list(range(50))), start(alone, "f", list(range(3)))
    beside.do(MAP, other)
    begun = time.monotonic()
    assert shares(own(alone, mine, 10)) == {mine: 3}
    assert time.monotonic() - begun < 0.4
    begun = time.monotonic()
    assert shares(own(alone, mine, 10)) == {}
    assert time.monotonic() - begun >= 0.4, "with nothing leased it does wait, half a second"
    beside.conn.rollback()
    assert shares(own(alone, mine, 10)) == {other: 10}


@MODES
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_a_run_of_another_flow_is_not_even_looked_at(db: Db, storage: str, only: bool) -> None:
    """What it costs would tell a worker of one flow how far the runs of others are."""
    for slug in ("f", "g"):
        make = flow if storage == "tasks" else ranges_flow
        make(db, slug, map_step("m"))
        hired(db, slug)
    mine, foreign = start(db, "f", [1]), start(db, "g", list(range(3000)))
    db.do("update pgflow.step_states set remaining_tasks = 10 where run_id = %s", foreign)
    db.do(
        "update pgflow.step_tasks set status = 'completed' where run_id = %s and task_index < 2990", foreign
    )
    reads = (
        "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables"
        " where relname = any (%s)"
    )

    def cost(run: uuid.UUID) -> int:
        before = db.value(reads, list(TABLES))
        assert foreign not in shares(own(db, run, 0 if run == mine else 5, only=only))
        return int(db.value(reads, list(TABLES)) - before)

    cost(mine)
    assert shares(own(db, mine)) == {mine: 1}
    assert abs(cost(foreign) - cost(uuid.uuid4())) <= 2


@pytest.mark.parametrize("qty", [-(2**31), -1, 0])
def test_a_claim_of_nothing_is_nothing(db: Db, qty: int) -> None:
    flow(db, "f", map_step("m"))
    hired(db)
    start(db, "f", [1, 2])
    mine = start(db, "f", [1, 2])
    for only in (False, True):
        assert own(db, mine, qty, only=only)[0] == ([], [], [])


@pytest.mark.parametrize("only", [False, None, True])
def test_an_unknown_whether_it_is_all_means_that_it_is_not(db: Db, only: bool | None) -> None:
    flow(db, "f", map_step("m"))
    hired(db)
    other, mine = start(db, "f", [1, 2, 3]), start(db, "f", [1, 2, 3])
    without = "select run_id from pgflow.claim_tasks_without_input('f', %s, 3, null, %s, %s)"
    assert db.column(without, WORKER, mine, only) == 3 * [mine]
    assert db.column(without, WORKER, mine, only) == ([] if only else 3 * [other])
    make_visible(db, "f")
    db.do("select pgflow.release_tasks('f', %s, array_agg(message_id)) from pgflow.step_tasks", WORKER)
    most = 2**31 - 1
    rows = db.rows(CLAIM, "f", WORKER, most, most, [], None, mine, only)
    assert {row.run_id for row in rows} == ({mine} if only else {mine, other})
    assert len(rows) == (3 if only else 6)
