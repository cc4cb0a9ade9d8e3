"""Ids of loads are chosen by the caller: nobody gets at another run, or at what is left of one, by a load."""

from __future__ import annotations

import uuid

import pytest

from .helpers import Db, flow, map_step, start
from .range_work import everything
from .test_flow_grants import acting, limited
from .test_loads import add
from .test_pages_of_runs import GONE
from .test_pages_of_runs import counts as range_counts
from .test_retention import prune

__all__ = ["limited"]
CHOSEN = uuid.UUID("77777777-7777-7777-7777-777777777777")
PRUNE = "select * from pgflow.prune_runs(%s::interval)"


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_pruning_a_load_takes_nothing_of_the_run_that_has_its_id(limited: Db, storage: str) -> None:
    limited.do("select pgflow.set_step_policy('b', 'm', storage => %s)", storage)
    with acting(limited):
        limited.do("select pgflow.open_load('a', %s)", CHOSEN)
        add(limited, CHOSEN, 0, "x")
    assert limited.value("select pgflow.start_run('b', '[1, 2, 3]', %s)", CHOSEN) == CHOSEN
    with acting(limited):
        add(limited, CHOSEN, 1, "y")
    before = everything(limited, CHOSEN)
    before["pages"] = [page for page in before["pages"] if page["step_slug"]]
    with acting(limited):
        prune(limited, "-1 hour")
    assert everything(limited, CHOSEN) == before
    assert limited.value("select count(*) from pgflow.items where run_id = %s", CHOSEN) == 4
    assert limited.value("select count(*) from pgflow.loads") == 0
    assert limited.value("select count(*) from pgflow.leavings") == 0


def test_a_load_does_not_take_the_id_of_a_run_of_which_something_is_left(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), [1])
    db.do("select pgflow.cancel_run(%s)", run)
    db.do(PRUNE, "-1 hour")
    refused = db.refused("select pgflow.open_load('f', %s)", run)
    assert refused.sqlstate == "23505"
    assert "was pruned" in refused.message
    prune(db)
    assert db.value("select pgflow.open_load('f', %s)", run) == run


def test_a_load_that_lost_pages_at_its_end_is_not_started(db: Db) -> None:
    flow(db, "f", map_step("m"))
    load = db.value("select pgflow.open_load('f')")
    add(db, load, 0, 1, 2)
    add(db, load, 2, 3)
    for left in (2, 0):
        db.do("delete from pgflow.pages where first_index = %s", left)
        refused = db.refused("select pgflow.start_loaded_run(%s)", load)
        assert refused.sqlstate == "22023"
        assert "before item 3" in refused.message


def test_a_load_goes_page_by_page_and_is_nobodys_meanwhile(db: Db) -> None:
    flow(db, "f", map_step("m"))
    load = db.value("select pgflow.open_load('f')")
    for first in range(5):
        add(db, load, first, first)
    db.do("update pgflow.loads set touched_at = now() - interval '8 days'")
    rest = [
        (row.removed, row.is_done, range_counts(db, load)[2])
        for row in (db.row("select * from pgflow.prune_runs('7 days', null, 2)") for _ in range(2))
    ]
    assert rest == [(2, False, 3), (2, False, 1)]
    for call in ("start_loaded_run(%s)", "drop_load(%s)", "add_pages(%s, '{5}', '{1}', '{[1]}')"):
        assert db.refused(f"select pgflow.{call}", load).sqlstate == "PF003"
    assert prune(db) == [(0, 1), (0, 1)]
    assert range_counts(db, load) == GONE
    assert db.value("select count(*) from pgflow.loads") == 0


def test_a_load_that_somebody_has_locked_is_left_for_another_time(alone: Db, beside: Db) -> None:
    flow(alone, "f", map_step("m"))
    held, free = (alone.value("select pgflow.open_load('f')") for _ in range(2))
    alone.do("update pgflow.loads set touched_at = now() - interval '8 days'")
    add(beside, held, 0, 1)
    prune(alone)
    assert alone.column("select run_id from pgflow.loads") == [held]
    assert free != held
    beside.conn.rollback()
    prune(alone)
    assert alone.column("select run_id from pgflow.loads") == []


@pytest.mark.parametrize("call", ["add_pages(%s, '{1}', '{1}', '{[1]}')", "drop_load(%s)"])
def test_pruning_does_not_wait_for_a_load_that_has_the_id_of_a_run(alone: Db, beside: Db, call: str) -> None:
    flow(alone, "f", map_step("m"))
    alone.do("select pgflow.open_load('f', %s)", CHOSEN)
    add(alone, CHOSEN, 0, "x")
    alone.do("select pgflow.start_run('f', '[]', %s)", CHOSEN)
    beside.do(f"select pgflow.{call}", CHOSEN)
    prune(alone, "-1 hour")
    assert alone.value("select count(*) from pgflow.runs") == 0
    beside.conn.rollback()
    prune(alone, "-1 hour")
    assert range_counts(alone, CHOSEN) == GONE
    assert [alone.value(f"select count(*) from pgflow.{t}") for t in ("loads", "leavings")] == [0, 0]
