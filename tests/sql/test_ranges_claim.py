"""What claim_work leases of maps in ranges: how much, in which order, of which runs, and to whom."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import pytest

from .helpers import WORKER, Db, map_step, start
from .range_work import (
    OTHER,
    assert_whole,
    claim_work,
    complete_parts,
    fail_items,
    finish,
    hired,
    mapped,
    ranges,
    ranges_flow,
    release,
    replace_limit,
)
from .test_get_flow_shape import shape_step
from .test_step_queues import step_flow


def test_claims_follow_the_cursor(db: Db) -> None:
    run = mapped(db, 10)
    assert claim_work(db, 4).bounds == [(0, 4)]
    assert claim_work(db, 4, OTHER).bounds == [(4, 8)]
    assert claim_work(db, 4).bounds == [(8, 10)]
    assert claim_work(db, 4).bounds == []
    assert ranges(db, run) == [(0, 4, "W", 0), (4, 8, "O", 0), (8, 10, "W", 0)]
    assert_whole(db, run)


def test_what_was_handed_back_is_leased_first_in_index_order_with_a_number_of_its_own(db: Db) -> None:
    run = mapped(db, 100)
    assert claim_work(db, 50).items == 50
    assert release(db, run, [(1, 30, 5), (1, 10, 5)]) == 10
    claimed = claim_work(db, 8, OTHER)
    assert [(x.bounds, x.lease_no) for x in claimed.leases] == [((10, 15), 2), ((30, 33), 2)]
    claimed = claim_work(db, 10, OTHER)
    assert [(x.bounds, x.lease_no) for x in claimed.leases] == [((33, 35), 2), ((50, 58), 1)]
    assert_whole(db, run)


def test_pages_come_once_and_only_where_they_are_not_known(db: Db) -> None:
    run = mapped(db, ["x" * 20_000] * 9)
    claimed = claim_work(db, 4)
    assert [(p.task_index, p.items) for p in claimed.pages] == [(0, 3), (3, 3)]
    known = [p.msg_id for p in claimed.pages]
    claimed = claim_work(db, 3, known=known)
    assert (claimed.bounds, [p.task_index for p in claimed.pages]) == ([(4, 7)], [6])
    missed = db.rows("select * from pgflow.range_pages(%s, 'm', 4, 3)", run)
    assert [(p.task_index, p.items, len(p.input)) for p in missed] == [(3, 3, 3), (6, 3, 3)]
    assert missed[0].msg_id == known[1]
    assert db.rows("select * from pgflow.range_pages(%s, 'm', 900, 3)", run) == []
    assert db.rows("select * from pgflow.range_pages(%s, 'no', 0, 3)", run) == []
    assert db.rows("select * from pgflow.range_pages(%s, 'm', 0, 0)", run) == []


@pytest.mark.parametrize("known", [None, [None], [None, -1]])
def test_known_pages_that_are_null_hide_none(db: Db, known: Any) -> None:
    mapped(db, 3)
    assert len(claim_work(db, known=known).pages) == 1


def test_a_claim_is_bounded_by_the_bytes_of_its_pages(db: Db) -> None:
    """Pages that were begun are counted, in pieces or whole; one page comes whatever its size."""
    replace_limit(db, "_claim_bytes", 1_600_000)
    run = mapped(db, ["x" * 100_000] * 40)
    first, second = claim_work(db), claim_work(db)
    assert [first.items, second.items] == [16, 16]
    parts = [(lease.lease_no, i, 1) for lease in first.leases + second.leases for i in range(*lease.bounds)]
    assert release(db, run, parts) == len(parts)
    again = claim_work(db)
    assert again.bounds == [(i, i + 1) for i in range(16)]
    assert sum(len(p.input) for p in again.pages) == 16
    assert_whole(db, run)


def test_a_page_of_which_pieces_are_leased_counts_once(db: Db) -> None:
    replace_limit(db, "_claim_bytes", 100_000)
    run = mapped(db, ["x" * 3_000] * 100)
    claim_work(db, 20)
    assert release(db, run, [(1, i, 1) for i in range(20)]) == 20
    claimed = claim_work(db)
    assert claimed.items == sum(p.items for p in claimed.pages) == 44


def test_the_bound_is_that_of_the_claim_and_not_of_each_map(db: Db) -> None:
    replace_limit(db, "_claim_bytes", 1_600_000)
    mapped(db, ["x" * 100_000] * 14)
    for _ in range(3):
        start(db, "f", ["x" * 100_000] * 14)
    assert claim_work(db).items == 16


def test_an_element_larger_than_the_bound_is_leased_alone(db: Db) -> None:
    replace_limit(db, "_claim_bytes", 10_000)
    mapped(db, ["x" * 100_000, "y", "z" * 100_000, "w"])
    assert [claim_work(db).items for _ in range(4)] == [1, 2, 1, 0]


@pytest.mark.parametrize("items", [0, -5, None])
def test_no_items_are_asked_for_and_none_are_leased(db: Db, items: Any) -> None:
    run = mapped(db, 5)
    assert claim_work(db, items).leases == []
    assert ranges(db, run) == []


def test_all_that_can_be_asked_for_may_be(db: Db) -> None:
    run = mapped(db, 50)
    claim_work(db, 20)
    release(db, run, [(1, 3, 4)])
    start(db, "f", [1])
    assert claim_work(db, 2_147_483_647).items == 35


def test_tasks_come_along(db: Db) -> None:
    run = mapped(db, 4, "s")
    claimed = claim_work(db)
    assert ([t.step_slug for t in claimed.tasks], claimed.items) == (["s"], 4)
    fail_items(db, run, [1])
    db.do("select pgmq.set_vt('f', msg_id, 0) from pgmq.q_f")
    (task,) = claim_work(db, 10, OTHER).tasks
    assert (task.task_index, task.attempt, task.input, task.timeout) == (1, 2, 1, 60)


def test_a_range_tells_the_timeout_of_its_step(db: Db) -> None:
    ranges_flow(db, "f", map_step("m", timeout=7), map_step("n"), timeout=9)
    hired(db)
    start(db, "f", [1, 2])
    rows = db.rows("select * from pgflow.claim_work('f', %s, 1, 100)", WORKER)
    assert {r.step_slug: r.timeout for r in rows if r.msg_id is None} == {"m": 7, "n": 9}
    assert [r.msg_id is None for r in rows] == [False, False, True, True]


# -- who ---------------------------------------------------------------------------------------------------


def test_a_worker_that_is_not_known_is_refused_where_there_is_work(db: Db) -> None:
    mapped(db, 1)
    stranger = uuid.uuid4()
    for worker in (stranger, None):
        refused = db.refused("select pgflow.claim_work('f', %s, 1, 1)", worker)
        assert (refused.sqlstate, refused.constraint) == ("23503", "ranges_worker_id_fkey")
    finish(db, *claim_work(db).leases)
    assert claim_work(db, 1, stranger) == ([], [], [])


@pytest.mark.parametrize("why", ["stopped", "dead", "no promise"])
def test_who_cannot_be_missed_leases_nothing(db: Db, why: str) -> None:
    run = mapped(db, 5)
    if why == "no promise":
        db.do("update pgflow.workers set dead_after = null where worker_id = %s", WORKER)
    elif why == "stopped":
        db.do("select pgflow.stop_workers(array[%s]::uuid[])", WORKER)
    else:
        db.do(
            "update pgflow.workers set last_heartbeat_at = now() - interval '1 day', dead_after = '1s'"
            " where worker_id = %s",
            WORKER,
        )
        db.do("select pgflow.recover_dead_workers()")
    assert claim_work(db).leases == []
    assert ranges(db, run) == []
    hired(db)
    assert claim_work(db).items == 5


def test_a_flow_that_is_not_there_has_nothing(db: Db) -> None:
    mapped(db, 5)
    assert claim_work(db, slug="no_such_flow") == ([], [], [])
    assert claim_work(db, slug="F") == ([], [], [])


def test_a_worker_of_one_step_gets_that_step_only(db: Db) -> None:
    step_flow(db, "f", shape_step("m", stepType="map"), shape_step("n", stepType="map"), shape_step("s"))
    db.do("select pgflow.set_step_policy('f', slug, storage => 'ranges') from unnest('{m,n}'::text[]) slug")
    run = start(db, "f", [1, 2, 3])
    queues = {r.step_slug: r.queue_name for r in db.rows("select * from pgflow.steps")}
    hired(db, queues["n"], WORKER)
    hired(db, queues["s"], OTHER)
    claimed = claim_work(db)
    assert ([lease.step for lease in claimed.leases], claimed.tasks) == (["n"], [])
    claimed = claim_work(db, 10, OTHER)
    assert ([t.step_slug for t in claimed.tasks], claimed.leases) == (["s"], [])
    assert fail_items(db, run, [1], step="n").accepted == 1
    assert db.column(f"select message ->> 'task_index' from pgmq.\"q_{queues['n']}\"") == ["1"]
    db.do(f'update pgmq."q_{queues["n"]}" set vt = now()')
    assert [t.task_index for t in claim_work(db).tasks] == [1]


# -- fairness ------------------------------------------------------------------------------------------------


def test_runs_share_equally(db: Db) -> None:
    runs = [mapped(db, 1000), *(start(db, "f", list(range(1000))) for _ in range(3))]
    claimed = claim_work(db, 100)
    assert Counter({lease.run: lease.items for lease in claimed.leases}) == dict.fromkeys(runs, 25)


def test_what_one_run_does_not_need_goes_to_those_that_come_after_it(db: Db) -> None:
    runs = [mapped(db, 2), start(db, "f", list(range(1000)))]
    sizes = []
    for _ in range(12):
        with db.conn.transaction(force_rollback=True):
            claimed = claim_work(db, 100)
            sizes.append(sorted(lease.items for lease in claimed.leases))
            assert {lease.run for lease in claimed.leases} == set(runs)
    assert {tuple(s) for s in sizes} == {(2, 98)}


def test_a_claim_is_of_so_many_maps_at_most_and_fills_up_from_those(db: Db) -> None:
    mapped(db, 1)
    db.do("select count(pgflow.start_run('f', '[1]')) from generate_series(1, 149)")
    got = [len({lease.run for lease in claim_work(db).leases}) for _ in range(4)]
    assert got == [64, 64, 22, 0]
    db.do("select count(pgflow.start_run('f', %s)) from generate_series(1, 150)", json.dumps([*range(50)]))
    claimed = claim_work(db, 640)
    assert (len(claimed.leases), claimed.items) == (64, 640)


def test_a_small_claim_goes_to_each_run_in_turn_by_lot(db: Db) -> None:
    mapped(db, 500)
    for _ in range(3):
        start(db, "f", list(range(500)))
    found = Counter(claim_work(db, 1).leases[0].run for _ in range(60))
    assert len(found) == 4
    assert min(found.values()) >= 3


def test_the_highest_priority_is_served_first_and_the_rest_with_what_is_left(db: Db) -> None:
    low = mapped(db, 50)
    high = db.value("select pgflow.start_run('f', %s, priority => 5)", "[1, 2, 3, 4, 5]")
    below = db.value("select pgflow.start_run('f', '[1, 2, 3]', priority => -1)")
    assert [(x.run, x.items) for x in claim_work(db, 4).leases] == [(high, 4)]
    found = Counter({x.run: x.items for x in claim_work(db, 52).leases})
    assert found == {high: 1, low: 50, below: 1}


def test_maps_that_have_nothing_open_cost_a_claim_nothing(db: Db) -> None:
    run = mapped(db, 5)
    claim_work(db)
    version = "select xmin::text || ctid::text from pgflow.range_maps where run_id = %s"
    db.do("update pgflow.range_maps set is_open = true")  # as after a suspect that somebody else has to take
    claim_work(db)
    before = db.value(version, run)
    assert not db.value("select is_open from pgflow.range_maps")
    claim_work(db)
    assert db.value(version, run) == before
    release(db, run, [(1, 2, 1)])
    assert claim_work(db, 10, OTHER).bounds == [(2, 3)]
    complete_parts(db, run, [(1, 0, 2), (1, 3, 2)])
    assert complete_parts(db, run, [(2, 2, 1)], worker=OTHER).run_status == "completed"
