"""Claims of a worker with a run of its own (ours): that run first, or nothing else, in both storages."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pytest

from .helpers import WORKER, Db, Row, complete, fail, flow, make_visible, map_step, start, step
from .range_work import (
    OTHER,
    Claimed,
    Lease,
    claim_work,
    dies,
    fail_items,
    finish,
    hired,
    ranges_flow,
    release,
    replace_limit,
)
from .test_fair_claims import start_run
from .test_flow_limits import limit, made, size
from .test_labels import registered, require
from .test_pauses import pause, resume

STORAGES = pytest.mark.parametrize("storage", ["tasks", "ranges"])
MODES = pytest.mark.parametrize("only", [False, True])
CLAIM = "select * from pgflow.claim_work(%s, %s, %s, %s, %s::bigint[], null, null, %s, %s, %s)"


def own(
    db: Db,
    run: uuid.UUID | str | None,
    most: int = 100,
    *,
    only: bool = False,
    worker: uuid.UUID = WORKER,
    slug: str = "f",
    usable: int = 1000,
) -> tuple[Claimed, Row | None]:
    """What a worker with this run of its own claims, and what it is told of limits."""
    rows = db.rows(CLAIM, slug, worker, most, most, [], usable, run, only)
    told = rows.pop() if rows and rows[-1].run_id is None else None
    found = Claimed(
        [r for r in rows if r.items is None],
        [r for r in rows if r.items is not None and r.msg_id is not None],
        [
            Lease(r.run_id, r.step_slug, r.task_index, r.items, r.attempt, r.deaths)
            for r in rows
            if r.items is not None and r.msg_id is None
        ],
    )
    return found, told


def shares(found: tuple[Claimed, Any]) -> Counter[uuid.UUID]:
    """Items by run, of those that came first first."""
    counts = Counter(task.run_id for task in found[0].tasks)
    for lease in found[0].leases:
        counts[lease.run] += lease.items
    return counts


def crowd(db: Db, storage: str, mine: int = 20, others: int = 3, each: int = 100) -> list[uuid.UUID]:
    """Runs of one flow: one of so many items after the others, which were there before."""
    runs = [made(db, storage, each)]
    runs += [start(db, "f", list(range(each))) for _ in range(others - 1)]
    return [start(db, "f", list(range(mine))), *runs]


@STORAGES
def test_what_the_own_run_has_comes_first_and_the_rest_of_a_claim_goes_to_others(
    db: Db, storage: str
) -> None:
    mine, *others = crowd(db, storage)
    assert shares(own(db, mine, 12)) == {mine: 12}
    found = own(db, mine, 20)
    assert next(iter(shares(found))) == mine
    assert (shares(found)[mine], shares(found).total()) == (8, 20)
    assert len(shares(own(db, mine, 30))) == 3, "the others share what is left among them"
    assert sum(shares(own(db, mine, 400)).values()) == 300 - 12 - 30
    assert own(db, mine)[0] == ([], [], [])
    assert set(others) == {run for run in others if not shares(own(db, run))}


@STORAGES
def test_a_priority_of_others_comes_after_the_own_run(db: Db, storage: str) -> None:
    mine, other, *_ = crowd(db, storage)
    high = start_run(db, "f", "[1, 2, 3]", 9)
    assert shares(own(db, mine, 20)) == {mine: 20}
    assert shares(own(db, mine, 3)) == {high: 3}
    assert shares(own(db, other, 3)) == {other: 3}


@STORAGES
def test_only_gets_nothing_else_ever(db: Db, storage: str) -> None:
    mine, *others = crowd(db, storage)
    assert shares(own(db, mine, 12, only=True)) == {mine: 12}
    assert shares(own(db, mine, 12, only=True)) == {mine: 8}
    assert own(db, mine, only=True) == (Claimed([], [], []), None)
    assert shares(own(db, others[0], 500, only=True)) == {others[0]: 100}
    assert own(db, uuid.uuid4(), only=True)[0] == ([], [], [])
    assert own(db, None, only=True)[0] == ([], [], [])
    assert shares(own(db, None)).total() == 100, "without a run it is like any other claim"


@MODES
def test_a_run_that_is_alone_is_claimed_like_any_other(db: Db, only: bool) -> None:
    for storage, slug in (("tasks", "f"), ("ranges", "g")):
        run = made(db, storage, 30, slug)
        assert shares(own(db, run, 20, only=only, slug=slug)) == {run: 20}
        assert shares(own(db, run, 20, only=only, slug=slug)) == {run: 10}


@STORAGES
@MODES
def test_the_windows_and_shares_of_workers_without_a_run_stay(db: Db, storage: str, only: bool) -> None:
    mine, *others = crowd(db, storage, mine=100)
    own(db, mine, 10, only=only)
    found = claim_work(db, 40, OTHER, qty=40)
    counts = shares((found, None))
    assert counts.total() == 40
    assert set(counts) == {mine, *others}


@STORAGES
def test_other_flows_and_runs_of_them_are_not_touched(db: Db, storage: str) -> None:
    mine, *_ = crowd(db, storage)
    foreign = made(db, storage, 10, "g")
    assert own(db, foreign, only=True)[0] == ([], [], [])
    assert foreign not in shares(own(db, foreign))
    hired(db, "g")
    assert shares(own(db, foreign, slug="g", only=True)) == {foreign: 10}
    assert mine not in shares(own(db, mine, slug="g"))


def test_retries_releases_and_what_dead_workers_held_of_the_own_run_are_found_behind_what_is_done(
    db: Db,
) -> None:
    flow(db, "f", map_step("m"), base_delay=60)
    for worker in (WORKER, OTHER):
        hired(db, "f", worker)
    start(db, "f", list(range(50)))
    mine = start(db, "f", list(range(3000)))
    start(db, "f", list(range(50)))
    assert shares(own(db, mine, 2990, only=True)) == {mine: 2990}
    assert shares(own(db, mine, 5, only=True, worker=OTHER)) == {mine: 5}
    db.do(
        "select pgflow.complete_tasks(%s, 'm', array_agg(i), array_agg(to_jsonb(i)))"
        " from generate_series(7, 2989) i",
        mine,
    )
    fail(db, mine, "m", "later", 0)
    ids = "select array_agg(message_id) from pgflow.step_tasks where run_id = %s and task_index in (2, 3)"
    db.do(f"select pgflow.release_tasks('f', %s, ({ids}))", WORKER, mine)
    dies(db, OTHER)
    found = own(db, mine, 9, only=True)[0]
    assert [task.task_index for task in found.tasks] == list(range(2990, 2999))
    rest = own(db, mine, 9, only=True)[0]
    assert [task.task_index for task in rest.tasks] == [2, 3, 2999], "one waits for its next attempt"
    make_visible(db, "f")
    assert own(db, mine, 9, only=True)[0].tasks[0].task_index == 0
    assert own(db, mine, 9, only=True)[0].tasks == []


@pytest.mark.parametrize("others", [0, 30_000])
def test_retries_are_found_among_the_tasks_or_in_the_queue(db: Db, others: int) -> None:
    """Whichever is shorter."""
    flow(db, "f", map_step("m"), base_delay=0)
    hired(db)
    if others:
        start(db, "f", list(range(others // 2)))
        start(db, "f", list(range(others // 2)))
    mine = start(db, "f", list(range(5000)))
    assert shares(own(db, mine, 5000, only=True)) == {mine: 5000}
    db.do(
        "select pgflow.complete_tasks(%s, 'm', array_agg(i), array_agg(to_jsonb(i)))"
        " from generate_series(5, 4999) i",
        mine,
    )
    for index in range(5):
        fail(db, mine, "m", "again", index)
    make_visible(db, "f")
    assert [task.task_index for task in own(db, mine, 9, only=True)[0].tasks] == [0, 1, 2, 3, 4]


def test_items_of_ranges_that_failed_came_back_or_were_a_dead_workers_are_claimed_again(db: Db) -> None:
    mine, *_ = crowd(db, "ranges", mine=100)
    (lease,) = own(db, mine, 60, only=True)[0].leases
    (other,) = own(db, mine, 20, only=True, worker=OTHER)[0].leases
    fail_items(db, mine, [3, 4])
    release(db, mine, [(lease.lease_no, 10, 5)])
    make_visible(db, "f")
    again = own(db, mine, 5, only=True)[0]
    assert [task.task_index for task in again.tasks] == [3, 4]
    assert again.bounds == [(10, 15)]
    dies(db, OTHER)
    assert own(db, mine, 20, only=True)[0].bounds == [other.bounds]
    assert own(db, mine, 100, only=True)[0].bounds == [(80, 100)]


def test_steps_of_one_run_share_its_claims_and_what_one_leaves_the_others_get(db: Db) -> None:
    flow(db, "f", map_step("a"), map_step("b"), step("z", "a", "b"), "single")
    hired(db)
    start(db, "f", list(range(100)))
    mine = start(db, "f", list(range(40)))
    first = Counter(task.step_slug for task in own(db, mine, 30, only=True)[0].tasks)
    assert min(first["a"], first["b"]) >= 10
    assert (first["single"], first.total()) == (1, 30)
    assert len(own(db, mine, 51, only=True)[0].tasks) == 51
    assert own(db, mine, only=True)[0].tasks == []


@STORAGES
@MODES
def test_paused_runs_and_flows_give_nothing(db: Db, storage: str, only: bool) -> None:
    mine, *others = crowd(db, storage)
    pause(db, mine)
    assert mine not in shares(own(db, mine, 10, only=only))
    assert bool(shares(own(db, mine, 10, only=only))) is not only
    resume(db, mine)
    pause(db, others[0])
    found = shares(own(db, mine, 500, only=only))
    assert found[mine] == 20
    assert others[0] not in found
    resume(db, others[0])
    pause(db, "f")
    assert own(db, mine, only=only)[0] == ([], [], [])


@STORAGES
@MODES
def test_limits_hold_and_the_own_run_gets_the_room(db: Db, storage: str, only: bool) -> None:
    mine, *_ = crowd(db, storage, mine=8)
    limit(db, at_once=10)
    found = own(db, mine, only=only)
    assert (shares(found)[mine], size(found)) == (8, 8 if only else 10)
    again, told = own(db, mine, only=only)
    assert size((again, told)) == 0
    if not only:
        assert told is not None, "nothing is claimed for lack of room"
    assert size(own(db, mine, usable=1, worker=OTHER)) == (1 if only else 0)


@STORAGES
def test_rates_hold_for_both_parts_of_a_claim(db: Db, storage: str) -> None:
    mine, *_ = crowd(db, storage, mine=3)
    limit(db, rate=1.0, burst=5)
    assert shares(own(db, mine))[mine] == 3
    assert size(own(db, mine)) == 0


@STORAGES
@MODES
def test_what_the_own_run_requires_and_steps_that_are_not_wanted_are_left(
    db: Db, storage: str, only: bool
) -> None:
    mine, *_ = crowd(db, storage)
    registered(db, OTHER, "gpu")
    require(db, "m", "gpu")
    assert own(db, mine, only=only)[0] == ([], [], [])
    assert shares(own(db, mine, 20, only=only, worker=OTHER)) == {mine: 20}
    rows = db.rows(
        "select * from pgflow.claim_work('f', %s, 9, 9, '{}', null, '{m}', 9, %s, %s)", OTHER, mine, only
    )
    assert rows == []


@MODES
def test_suspects_of_the_own_run_come_first_and_those_of_others_not_with_only(db: Db, only: bool) -> None:
    mine, other, *_ = crowd(db, "tasks", mine=3)
    db.do("update pgflow.step_tasks set worker_deaths = 2 where run_id = %s and task_index < 2", other)
    db.do("update pgflow.step_tasks set worker_deaths = 2 where run_id = %s and task_index = 2", mine)
    db.do(
        "update pgflow.step_tasks set worker_deaths = 3, condemned = true"
        " where run_id = %s and task_index = 3",
        other,
    )
    found = own(db, mine, 3, only=only)[0].tasks
    assert {(task.run_id, task.task_index) for task in found} == {(mine, n) for n in range(3)}
    rest = own(db, mine, 300, only=only)[0].tasks
    assert [task.task_index for task in rest if task.deaths] == ([] if only else [3])
    assert {task.run_id for task in rest if task.run_id == other} == (set() if only else {other})


@MODES
def test_who_runs_something_alone_gets_nothing_beside_it(db: Db, only: bool) -> None:
    mine, *_ = crowd(db, "tasks", mine=3)
    db.do(
        "update pgflow.step_tasks set worker_deaths = 3, condemned = false"
        " where run_id = %s and task_index = 1",
        mine,
    )
    assert [task.task_index for task in own(db, mine, only=only)[0].tasks] == [1]
    assert own(db, mine, only=only)[0].tasks == []
    complete(db, mine, "m", 1, 1)
    assert shares(own(db, mine, 2, only=only)) == {mine: 2}


def test_what_of_the_own_run_was_cut_by_its_size_comes_before_others(db: Db) -> None:
    replace_limit(db, "_claim_bytes", 100)
    mine, other, *_ = crowd(db, "tasks", mine=0)
    large = start(db, "f", ["x" * 60] * 5)
    assert shares(own(db, large, 5)) == {large: 2}
    assert shares(own(db, large, 5)) == {large: 2}
    assert shares(own(db, large, 5))[large] == 1
    assert mine != other


@MODES
def test_claims_without_input_keep_to_the_own_run_too(db: Db, only: bool) -> None:
    mine, *_ = crowd(db, "tasks", mine=4)
    query = "select * from pgflow.claim_tasks_without_input('f', %s, 6, null, %s, %s)"
    rows = db.rows(query, WORKER, mine, only)
    assert {(row.run_id, row.input) for row in rows} == {(mine, None)}
    assert len(rows) == 4
    assert len(db.rows(query, WORKER, mine, only)) == (0 if only else 6)
    assert len(db.rows(query, WORKER, None, only)) == (0 if only else 6)
    limit(db, at_once=500)
    assert len(db.rows(query, OTHER, mine, only)) == (0 if only else 6)


@STORAGES
@MODES
def test_the_run_ends_by_such_claims(db: Db, storage: str, only: bool) -> None:
    steps = [map_step("m"), map_step("n", "m"), step("z", "n")]
    if storage == "ranges":
        ranges_flow(db, "f", *steps)
    else:
        flow(db, "f", *steps)
    hired(db)
    start(db, "f", list(range(30)))
    mine = start(db, "f", list(range(30)))
    for _ in range(20):
        found = own(db, mine, 7, only=only)[0]
        for task in found.tasks:
            complete(db, task.run_id, task.step_slug, 0, task.task_index)
        finish(db, *found.leases)
    assert db.value("select status from pgflow.runs where run_id = %s", mine) == "completed"


@MODES
def test_with_queues_of_steps_a_worker_claims_of_its_own(db: Db, only: bool) -> None:
    db.do(
        "select pgflow.ensure_flow_compiled('f', %s, queue_mode => 'step')",
        {
            "steps": [
                {"slug": slug, "stepType": "map", "dependencies": [], "whenUnmet": "skip"}
                | {"whenExhausted": "fail"}
                | {f"{kind}InputPattern": {"defined": False} for kind in ("required", "forbidden")}
                for slug in ("a", "b")
            ]
        },
    )
    queue = db.value("select queue_name from pgflow.steps where step_slug = 'b'")
    hired(db, queue)
    start(db, "f", [1, 2, 3])
    mine = start(db, "f", [1, 2])
    found = own(db, mine, 2, only=only)[0].tasks
    assert {(task.run_id, task.step_slug) for task in found} == {(mine, "b")}
    assert len(own(db, mine, 9, only=only)[0].tasks) == (0 if only else 3)
