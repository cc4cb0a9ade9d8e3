"""Workers that end with ranges in their hands: what becomes of these, and of items that take workers down."""

from __future__ import annotations

import uuid

import pytest

from .helpers import WORKER, Db, complete, fail, make_visible, run_row, start, state, task, tasks
from .range_work import (
    OTHER,
    Claimed,
    assert_whole,
    claim_work,
    complete_parts,
    dies,
    fail_items,
    finish,
    hired,
    mapped,
    parts_of,
    ranges,
    release,
    results,
)


def life(db: Db, items: int = 10_000) -> tuple[uuid.UUID, Claimed]:
    """A new worker, and what it claims."""
    worker = hired(db, worker=uuid.uuid4())
    return worker, claim_work(db, items, worker)


def test_what_a_dead_worker_held_is_free_again_as_a_whole(db: Db) -> None:
    run = mapped(db, 100)
    worker, claimed = life(db, 60)
    complete_parts(db, run, [(1, 10, 10)], worker=worker)
    fail_items(db, run, [30], worker=worker)
    claim_work(db, 20, OTHER)
    assert dies(db, worker) == 49
    assert ranges(db, run) == [
        (0, 10, None, 1), (20, 30, None, 1), (31, 60, None, 1), (60, 80, "O", 0)
    ]  # fmt: skip
    assert_whole(db, run)
    late = complete_parts(db, run, [(1, 0, 10), (1, 20, 5)], worker=worker)
    assert (late.accepted, late.rejected) == (0, [0, 20])
    again = claim_work(db, 45)
    assert [(x.bounds, x.lease_no, x.deaths) for x in again.leases] == [
        ((0, 10), 2, 1), ((20, 30), 2, 1), ((31, 56), 2, 1)
    ]  # fmt: skip
    assert claimed.items == 60
    assert (task(db, run, "m", 30).worker_deaths, task(db, run, "m", 30).status) == (None, "queued")
    assert_whole(db, run)


def test_workers_that_stop_in_order_and_ids_that_are_given_up_cast_no_suspicion(db: Db) -> None:
    run = mapped(db, 20)
    for _ in range(3):
        worker, claimed = life(db)
        assert claimed.items == 20
        db.do("select pgflow.stop_workers(array[%s]::uuid[])", worker)
        assert claim_work(db, 20, worker).leases == []
        assert complete_parts(db, run, [(9, 0, 1)], worker=worker).accepted == 0
        db.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
        assert dies(db, worker) == 20
        worker, claimed = life(db)
        assert db.value("select pgflow.retire_worker(%s)", worker) == 20
    assert ranges(db, run) == [(0, 20, None, 0)]


def test_a_worker_that_stopped_may_still_settle_what_it_holds(db: Db) -> None:
    run = mapped(db, 20)
    claim_work(db)
    db.do("select pgflow.stop_workers(array[%s]::uuid[])", WORKER)
    assert complete_parts(db, run, [(1, 0, 5)]).accepted == 5
    assert release(db, run, [(1, 5, 15)]) == 15
    assert_whole(db, run)


def test_a_range_whose_worker_s_row_is_gone_is_freed_by_the_clock(db: Db) -> None:
    run = mapped(db, 10)
    claim_work(db, 5)
    claim_work(db, 5, OTHER)
    db.do("delete from pgflow.workers where worker_id = %s", WORKER)
    db.do("select pgflow.requeue_stalled_tasks()")
    assert ranges(db, run) == [(0, 5, "W", 0), (5, 10, "O", 0)]  # it may be about to write its row anew
    db.do("update pgflow.ranges set leased_at = leased_at - interval '61 seconds'")
    db.do("select pgflow.requeue_stalled_tasks()")
    assert ranges(db, run) == [(0, 5, None, 0), (5, 10, "O", 0)]
    assert claim_work(db, 5, OTHER).bounds == [(0, 5)]
    assert_whole(db, run)


# -- suspects ------------------------------------------------------------------------------------------


def twice_died_with(db: Db, items: int) -> uuid.UUID:
    run = mapped(db, items)
    for _ in range(2):
        worker, claimed = life(db)
        assert claimed.items == items
        dies(db, worker)
    return run


def test_the_second_death_cuts_a_range_and_each_worker_gets_one_part(db: Db) -> None:
    run = twice_died_with(db, 1000)
    cuts = [(i, min(i + 63, 1000), None, 2) for i in range(0, 1000, 63)]
    assert ranges(db, run) == cuts
    start(db, "f", list(range(50)))
    worker, claimed = life(db)
    assert sorted(x.bounds for x in claimed.leases) == [(0, 50), (0, 63)]  # others need not wait
    assert {x.deaths for x in claimed.leases} == {2, None}
    assert claim_work(db, 1000, worker).leases == []
    other, claimed = life(db)
    assert claimed.bounds == [(63, 126)]
    finish(db, *claimed.leases, worker=other)
    assert claim_work(db, 10, other).bounds == [(126, 136)]  # a part of a part is as suspect as it is
    assert ranges(db, run)[2:4] == [(136, 189, None, 2), (189, 252, None, 2)]
    assert dies(db, worker) == 63 + 50
    assert ranges(db, run)[0] == (0, 4, None, 3)
    assert_whole(db, run)


def test_small_suspects_become_tasks_that_are_suspects(db: Db) -> None:
    run = twice_died_with(db, 16)
    assert ranges(db, run) == []
    found = {(t.status, t.worker_deaths, t.attempts_count) for t in tasks(db, run)}
    assert found == {("queued", 2, 0)}
    assert [t.input for t in tasks(db, run)] == list(range(16))
    assert state(db, run, "m").remaining_tasks == 16
    _, claimed = life(db)
    assert ([t.task_index for t in claimed.tasks], claimed.leases) == ([0], [])
    assert_whole(db, run)


@pytest.mark.parametrize("first", ["task", "range"])
def test_who_holds_a_suspect_of_one_kind_gets_none_of_the_other(db: Db, first: str) -> None:
    run = twice_died_with(db, 10)
    other = start(db, "f", list(range(600)))
    for _ in range(2):
        worker = hired(db, worker=uuid.uuid4())
        assert claim_work(db, 1000, worker, qty=0).items == 600
        dies(db, worker)
    worker = hired(db, worker=uuid.uuid4())
    one = claim_work(db, 0 if first == "task" else 1000, worker, qty=9 if first == "task" else 0)
    assert (len(one.tasks), len(one.leases)) == ((1, 0) if first == "task" else (0, 1))
    two = claim_work(db, 1000, worker, qty=9)
    assert two == ([], [], [])
    if first == "task":
        complete(db, run, "m", 1, one.tasks[0].task_index)
    else:
        finish(db, *one.leases, worker=worker)
    two = claim_work(db, 1000, worker, qty=9)
    assert len(two.tasks) == 1  # tasks come first
    assert two.leases == []
    assert_whole(db, run)
    assert_whole(db, other)


def test_a_condemned_task_is_only_to_be_failed_and_keeps_no_suspect_from_its_worker(db: Db) -> None:
    twice_died_with(db, 600)
    db.do("select pgflow.fail_task(run_id, 'm', 0, 'x') from pgflow.runs")
    worker = hired(db, worker=uuid.uuid4())
    first = claim_work(db, 38, worker)
    fail_items(db, first.leases[0].run, [0], lease_no=first.leases[0].lease_no, worker=worker)
    release(db, first.leases[0].run, [(first.leases[0].lease_no, 1, 37)], worker=worker)
    db.do("update pgflow.step_tasks set worker_deaths = 3, condemned = true")
    make_visible(db, "f")
    claimed = claim_work(db, 1000, worker)
    assert [(t.task_index, t.deaths) for t in claimed.tasks] == [(0, 3)]
    assert claimed.bounds == [(1, 38)]


@pytest.mark.parametrize(("items", "culprit"), [(40, 17), (1000, 999), (3000, 0)])
def test_an_item_that_takes_workers_down_is_cornered_and_its_neighbours_complete(
    db: Db, items: int, culprit: int
) -> None:
    """Every worker dies that begins with the item; all others do what they get and live."""
    run = mapped(db, items, max_attempts=3)
    db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 1)")
    deaths = 0
    worker = hired(db, worker=uuid.uuid4())
    for _ in range(400):
        claimed = claim_work(db, 10_000, worker)
        if claimed == ([], [], []):
            break
        condemned = [t.task_index for t in claimed.tasks if t.deaths is not None]
        begun = [t.task_index for t in claimed.tasks if t.deaths is None]
        if culprit in begun or any(x.first <= culprit < x.first + x.items for x in claimed.leases):
            deaths += 1
            dies(db, worker)
            worker = hired(db, worker=uuid.uuid4())
            continue
        assert condemned in ([], [culprit])
        for index in condemned:
            db.do(
                "select pgflow.fail_tasks(%s, 'm', array[%s], array['killed'], %s, array[%s], '{t}')",
                *(run, index, worker, claimed.tasks[0].attempt),
            )
        for index in begun:
            complete(db, run, "m", 10 * index, index)
        for lease in claimed.leases:
            complete_parts(db, run, parts_of(lease), worker=worker)
    assert run_row(db, run).status == "completed"
    assert deaths <= 6
    expected = {i: 10 * i for i in range(items)}
    assert results(db, run) == {**expected, culprit: None}
    assert task(db, run, "m", culprit).error_message == "killed"
    assert task(db, run, "m", culprit).attempts_count <= 1
    assert db.value("select count(*) from pgflow.step_tasks") <= 16


def test_more_suspects_than_a_look_takes_keep_nothing_behind_them_waiting(db: Db) -> None:
    run = mapped(db, 2000)
    claim_work(db, 1000)
    release(db, run, [(1, i, 2) for i in range(0, 1000, 4)])
    db.do("update pgflow.ranges set deaths = 2 where worker_id is null and first_index < 990")
    worker = hired(db, worker=uuid.uuid4())
    claimed = claim_work(db, 100, worker)
    assert claimed.bounds == [(0, 2), (992, 994), (996, 998), (1000, 1094)]
    assert_whole(db, run)


def test_a_retry_of_the_run_is_a_new_beginning(db: Db) -> None:
    run = twice_died_with(db, 600)
    worker, claimed = life(db)
    assert claimed.items == 38
    fail_items(db, run, [0], lease_no=claimed.leases[0].lease_no, worker=worker, permanent=True)
    assert run_row(db, run).status == "failed"
    assert {d for _, _, _, d in ranges(db, run)} == {2}
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 600
    assert {d for _, _, _, d in ranges(db, run)} == {0}
    make_visible(db, "f")
    claimed = claim_work(db)
    assert (claimed.items, len(claimed.tasks)) == (599, 1)
    fail(db, run, "m", "x", 0)
    assert_whole(db, run)
