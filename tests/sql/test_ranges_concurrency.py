"""Real parallel connections on maps in ranges: no deadlock, no item lost or doubled, no work withheld."""

# ruff: noqa: B023 (the jobs of a race have run before the next round binds its variables)

from __future__ import annotations

import random
import threading
import time
import uuid
from functools import partial
from typing import Any

import pytest

from . import helpers
from .helpers import WORKER, Db, map_step, run_row, start, state
from .range_work import (
    OTHER,
    Claimed,
    assert_whole,
    claim_work,
    complete_parts,
    dies,
    fail_items,
    hired,
    parts_of,
    ranges_flow,
    release,
    results,
)
from .test_concurrency import ROUNDS, Crew, Job, arena, crew, forget_runs, open_transaction

__all__ = ["arena", "crew", "open_transaction"]
THIRD = uuid.UUID("33333333-3333-3333-3333-333333333333")


@pytest.fixture(autouse=True)
def staff(arena: Db) -> None:
    ranges_flow(arena, "f", map_step("m"), max_attempts=3)
    for worker in (WORKER, OTHER, THIRD):
        hired(arena, worker=worker)


def finish_all(db: Db, run: uuid.UUID) -> None:
    """Work to the end of the run; every item must be recorded once."""
    for worker in (WORKER, OTHER, THIRD):
        hired(db, worker=worker)
        db.do("select pgflow.retire_worker(%s)", worker)
        hired(db, worker=worker)
    if run_row(db, run).status == "failed":
        db.do("select pgflow.retry_failed_tasks(%s)", run)
    for _ in range(400):
        if run_row(db, run).status == "completed":
            break
        helpers.make_visible(db, "f")
        claimed = claim_work(db)
        for task in claimed.tasks:
            helpers.complete(db, run, "m", 10 * task.task_index, task.task_index)
        for lease in claimed.leases:
            assert complete_parts(db, run, parts_of(lease)).accepted == lease.items
    count = state(db, run, "m").initial_tasks
    assert run_row(db, run).output == {"m": [10 * i for i in range(count)]}
    assert results(db, run) == {i: 10 * i for i in range(count)}


# -- claims ----------------------------------------------------------------------------------------------


def test_beside_a_claim_of_many_small_maps_another_gets_as_many_others_without_waiting(
    arena: Db, open_transaction: Db
) -> None:
    arena.do("select count(pgflow.start_run('f', '[1]')) from generate_series(1, 200)")
    held = {lease.run for lease in claim_work(open_transaction).leases}
    with helpers.without_waiting(arena):
        found = {lease.run for lease in claim_work(arena, worker=OTHER).leases}
    assert (len(held), len(found), held & found) == (64, 64, set())


@pytest.mark.parametrize("rounds", ROUNDS)
def test_claimers_at_once_get_items_of_their_own_and_none_comes_back_with_nothing(
    arena: Db, crew: Crew, rounds: int
) -> None:
    for n in range(rounds):
        runs = [start(arena, "f", list(range(100))) for _ in range(1 + n % 3)]
        jobs = [partial(claim_work, items=10, worker=w) for w in (WORKER, OTHER, THIRD, WORKER)]
        answers: list[Claimed] = crew.race(*jobs)
        # Who finds others at some of the maps gets its share of the rest.
        assert all(0 < a.items <= 10 for a in answers)
        assert len(runs) > 1 or [a.items for a in answers] == [10] * 4
        got = [(x.run, i) for a in answers for x in a.leases for i in range(*x.bounds)]
        assert len(got) == len(set(got)) == sum(a.items for a in answers)
        for run in runs:
            assert_whole(arena, run)
        forget_runs(arena)


@pytest.mark.parametrize("maps", [1, 3])
def test_a_claimer_waits_for_whoever_leases_where_there_is_nothing_else(
    arena: Db, open_transaction: Db, maps: int
) -> None:
    for _ in range(maps):
        start(arena, "f", list(range(30)))
    held = claim_work(open_transaction, 3 * maps, OTHER)
    assert len({x.run for x in held.leases}) == maps
    answers: list[Claimed] = []
    waiter = threading.Thread(target=lambda: answers.append(claim_work(arena, 6)))
    waiter.start()
    waiter.join(0.15)
    assert answers == []
    open_transaction.conn.commit()
    waiter.join(10)
    assert answers[0].items == 6


def test_a_claimer_passes_over_what_others_lease_from_where_there_is_more(
    arena: Db, open_transaction: Db
) -> None:
    start(arena, "f", list(range(30)))
    (held,) = claim_work(open_transaction, 3, OTHER).leases
    other = start(arena, "f", list(range(30)))
    with helpers.without_waiting(arena):
        assert [x.run for x in claim_work(arena, 10).leases] == [other]
    assert held.run != other


def test_a_map_that_somebody_keeps_locked_holds_a_claimer_up_for_half_a_second(
    arena: Db, open_transaction: Db
) -> None:
    for _ in range(3):
        start(arena, "f", list(range(30)))
    claim_work(open_transaction, 9, OTHER)
    begun = time.monotonic()
    assert claim_work(arena, 10).leases == []
    assert 0.4 < time.monotonic() - begun < 2
    assert arena.value("show lock_timeout") == "0"


def test_a_higher_priority_is_waited_for_rather_than_passed_over(arena: Db, open_transaction: Db) -> None:
    start(arena, "f", list(range(30)))
    high = arena.value("select pgflow.start_run('f', '[1, 2, 3, 4, 5, 6]', priority => 1)")
    claim_work(open_transaction, 1, OTHER)
    timer = threading.Timer(0.1, open_transaction.conn.commit)
    timer.start()
    assert [x.run for x in claim_work(arena, 2).leases] == [high]
    timer.join()


# -- who settles, hands back, takes over, cancels ------------------------------------------------------------


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_release_beside_a_settlement_of_the_same_lease_loses_nothing(
    arena: Db, crew: Crew, rounds: int
) -> None:
    for n in range(rounds):
        run = start(arena, "f", list(range(100)))
        claim_work(arena, 100)
        jobs: list[Job] = [
            lambda db: complete_parts(db, run, [(1, 60, 10), (1, 0, 30), (1, 30, 10)]).accepted,
            lambda db: release(db, run, [(1, 90, 10), (1, 40, 20), (1, 70, 5)]),
            lambda db: fail_items(db, run, [80, 85]).accepted,
            lambda db: claim_work(db, 15, OTHER).items,
        ]
        answers = crew.race(*(jobs if n % 2 else reversed(jobs)))
        assert sorted((answers if n % 2 else answers[::-1])[:3]) == [2, 35, 50]
        assert_whole(arena, run)
        finish_all(arena, run)
        forget_runs(arena)


def test_whoever_hands_back_and_waits_for_a_settlement_keeps_no_claimer_waiting(
    arena: Db, open_transaction: Db, crew: Crew
) -> None:
    run = start(arena, "f", list(range(100)))
    claim_work(arena, 50)
    complete_parts(open_transaction, run, [(1, 0, 10)])
    waiting = crew.threads.submit(release, Db(crew.connections[0]), run, [(1, 20, 10)])
    time.sleep(0.1)
    with helpers.without_waiting(arena):
        assert claim_work(arena, 10, OTHER).bounds == [(50, 60)]
    assert not waiting.done()
    open_transaction.conn.commit()
    assert waiting.result(10) == 10


RACES: dict[str, list[str]] = {
    "claim, cancel": ["claim", "claim", "cancel"],
    "claim, take over": ["claim", "claim", "die"],
    "settle, take over": ["settle", "die", "settle"],
    "settle, cancel": ["settle", "fail", "cancel"],
    "release, claim": ["release", "claim", "claim", "settle"],
    "release, cancel, take over": ["release", "cancel", "die", "claim"],
    "cancel, retry": ["cancel", "retry", "claim", "settle"],
    "all": ["settle", "die", "release", "claim"],
}


def job(name: str, run: uuid.UUID, held: Claimed, rng: random.Random) -> Job:
    leases = list(held.leases)
    rng.shuffle(leases)
    parts = [(x.lease_no, x.first + 1, max(1, x.items - 2)) for x in leases]

    def die(db: Db) -> Any:
        return dies(db, WORKER)

    def retry(db: Db) -> Any:
        time.sleep(0.002)
        with db.conn.transaction():
            if run_row(db, run).status == "failed":
                db.do("select pgflow.retry_failed_tasks(%s)", run)

    jobs: dict[str, Job] = {
        "claim": lambda db: claim_work(db, 20, OTHER),
        "cancel": lambda db: db.do("select pgflow.cancel_run(%s)", run),
        "die": die,
        "settle": lambda db: complete_parts(db, run, parts),
        "fail": lambda db: fail_items(db, run, [x.first for x in leases], lease_no=leases[0].lease_no),
        "release": lambda db: release(db, run, parts[::-1]),
        "retry": retry,
    }
    return jobs[name]


@pytest.mark.parametrize(
    "rounds", [pytest.param(3, id="short"), pytest.param(150, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("race", RACES)
def test_all_that_can_happen_at_once_leaves_every_item_in_one_place(
    arena: Db, crew: Crew, race: str, rounds: int
) -> None:
    for n in range(rounds):
        rng = random.Random(f"{race} {n}")
        run = start(arena, "f", list(range(120)))
        claim_work(arena, 80)
        release(arena, run, [(1, i, 7) for i in range(0, 80, 10)])
        held = claim_work(arena, 60)  # many stretches, and the gaps between them by the first lease
        crew.race(*(job(name, run, held, rng) for name in rng.sample(RACES[race], k=len(RACES[race]))))
        assert_whole(arena, run)
        finish_all(arena, run)
        forget_runs(arena)


@pytest.mark.slow
def test_many_workers_at_once_do_each_item_once(arena: Db, dsn: str) -> None:
    crew = Crew(dsn, 12)
    try:
        runs = [start(arena, "f", list(range(5000))) for _ in range(3)]
        workers = [hired(arena, worker=uuid.uuid4()) for _ in range(12)]

        def work(db: Db, worker: uuid.UUID) -> int:
            rng = random.Random(str(worker))
            done = empty = 0
            while empty < 3:
                claimed = claim_work(db, rng.choice([1, 20, 200]), worker)
                empty = 0 if claimed.leases else empty + 1
                for lease in claimed.leases:
                    cut = rng.randint(0, lease.items)
                    back = (
                        [(lease.lease_no, lease.first + cut, lease.items - cut)] if cut < lease.items else []
                    )
                    if cut:
                        part = [(lease.lease_no, lease.first, cut)]
                        done += complete_parts(db, lease.run, part, worker=worker).accepted
                    if back and rng.random() < 0.3:
                        assert release(db, lease.run, back, worker=worker) == back[0][2]
                    elif back:
                        done += complete_parts(db, lease.run, back, worker=worker).accepted
            return done

        assert sum(crew.race(*(partial(work, worker=w) for w in workers))) == 15_000
        for run in runs:
            assert run_row(arena, run).output == {"m": [10 * i for i in range(5000)]}
    finally:
        crew.close()


def test_beside_an_open_transaction_a_state_is_found_however_often_it_was_changed(
    arena: Db, open_transaction: Db
) -> None:
    run = start(arena, "f", [1, 2])
    arena.do("vacuum analyze pgflow.step_states")
    open_transaction.do("set transaction isolation level repeatable read")
    open_transaction.do("select pg_current_xact_id()")
    for _ in range(3000):
        arena.do("update pgflow.step_states set remaining_tasks = remaining_tasks where run_id = %s", run)
    by_key = f"pgflow.step_states where run_id = '{run}' and step_slug = 'm'"
    looked_at = []
    for source in (f"pgflow._latest_state('{run}', 'm')", by_key):
        look = f"explain (analyze, buffers, format json) select * from {source}"
        arena.value(look)
        looked_at.append(arena.value(look)[0]["Plan"]["Shared Hit Blocks"])
    assert 4 * looked_at[0] < looked_at[1]
    found = arena.row("select s.*, ss.ctid from pgflow._latest_state(%s, 'm') s, pgflow.step_states ss", run)
    assert (found.status, found.initial_tasks, found.remaining_tasks) == ("started", 2, 2)
    assert found.row_id == found.ctid
