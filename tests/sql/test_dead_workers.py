"""Workers that die: who is dead, what becomes of what they held, and of a task that takes them down."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from pgflow_mp.db import engine, recovery, wire

from .helpers import Db, claim, complete, flow, map_step, run_row, start, task, tasks
from .test_leases import recover, register, silence

OTHER = uuid.UUID(int=7)


def take(db: Db, worker_id: uuid.UUID, qty: int = 100) -> list[Any]:
    """What a worker of ours claims, in message order."""
    return db.rows("select * from pgflow.claim_tasks('f', %s, %s)", worker_id, qty)


def dies(db: Db, worker_id: uuid.UUID) -> int:
    silence(db, worker_id, 60)
    return recover(db)


def life(db: Db, qty: int = 100) -> tuple[uuid.UUID, list[int]]:
    """A new worker claims; which indexes."""
    worker_id = uuid.uuid4()
    register(db, worker_id, "f")
    return worker_id, [row.task_index for row in take(db, worker_id, qty)]


def mapped(db: Db, items: int, **options: Any) -> uuid.UUID:
    flow(db, "f", map_step("m"), **options)
    return start(db, "f", list(range(items)))


def deaths(db: Db, run: uuid.UUID) -> list[int | None]:
    return [t.worker_deaths for t in tasks(db, run)]


# -- suspects ----------------------------------------------------------------------------------------------


def test_a_task_that_three_workers_died_with_is_cornered_and_condemned_and_its_neighbours_are_not(
    db: Db,
) -> None:
    run = mapped(db, 5)
    for n in (1, 2):
        worker_id, held = life(db)
        assert held == [0, 1, 2, 3, 4]
        assert dies(db, worker_id) == 5
        assert deaths(db, run) == [n] * 5

    # From now on a worker gets one of them at a time; what completes is no suspect any more.
    worker_id, held = life(db)
    assert held == [0]
    assert take(db, worker_id) == []
    assert life(db)[1] == [1]
    complete(db, run, "m", "0", 0)
    assert [row.task_index for row in take(db, worker_id)] == [2]
    assert dies(db, worker_id) == 1
    assert [(t.worker_deaths, t.condemned) for t in tasks(db, run)][1:3] == [(2, None), (3, True)]

    # The condemned one is handed out as such, uncharged so far, and does not keep others from being run.
    next_id = uuid.uuid4()
    register(db, next_id, "f")
    found = [(row.task_index, row.deaths, row.attempt) for row in take(db, next_id)]
    assert found == [(2, 3, 1), (3, None, 1)]
    complete(db, run, "m", "1", 1)
    complete(db, run, "m", "3", 3)
    assert [row.task_index for row in take(db, next_id)] == [4]
    complete(db, run, "m", "4", 4)
    db.do(
        "select pgflow.fail_tasks(%s, 'm', '{2}', '{took 3 down}', %s, '{1}', '{true}')",
        run,
        next_id,
    )
    assert run_row(db, run).status == "failed"
    assert [t.attempts_count for t in tasks(db, run)] == [1] * 5

    # An operator's retry is a new beginning.
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 1
    assert (task(db, run, "m", 2).worker_deaths, task(db, run, "m", 2).condemned) == (None, None)


def test_suspects_do_not_keep_what_waits_behind_them_from_being_claimed(db: Db) -> None:
    mapped(db, 30)
    for _ in (1, 2):
        worker_id, held = life(db, 20)
        assert len(held) == 20
        dies(db, worker_id)
    assert life(db, 10)[1] == [0, *range(20, 29)]
    start(db, "f", [0])  # two runs: claims are fair among them
    assert len(life(db, 10)[1]) == 3


def test_what_died_the_third_time_beside_something_else_is_run_alone_before_it_is_condemned(db: Db) -> None:
    run = mapped(db, 30)
    for _ in (1, 2):
        dies(db, life(db, 1)[0])
    beside, held = life(db, 5)
    assert held == [0, 1, 2, 3, 4]
    busy, held = life(db, 3)
    assert held == [5, 6, 7]
    dies(db, beside)
    assert [(t.worker_deaths, t.condemned) for t in tasks(db, run)[:2]] == [(3, False), (1, None)]

    assert 0 not in [row.task_index for row in take(db, busy, 3)], "it holds others"
    alone, held = life(db, 5)
    assert held == [0]
    assert take(db, alone) == []
    assert db.rows("select * from pgflow.claim_work('f', %s, 5, 100)", alone) == []
    complete(db, run, "m", "0", 0)
    assert len(take(db, alone, 5)) == 5, "what completes is no suspect any more"


def test_what_is_to_be_run_alone_is_condemned_when_it_is_the_one(db: Db) -> None:
    run = mapped(db, 30)
    db.do("update pgflow.step_tasks set worker_deaths = 3, condemned = false where task_index = 0")
    worker_id, held = life(db, 5)
    assert held == [0]
    dies(db, worker_id)
    assert (task(db, run, "m", 0).worker_deaths, task(db, run, "m", 0).condemned) == (4, True)


def test_what_no_worker_takes_alone_goes_beside_others_and_is_condemned_later(db: Db) -> None:
    run = mapped(db, 30)
    db.do(
        "update pgflow.step_tasks set worker_deaths = 3, condemned = false,"
        " last_requeued_at = clock_timestamp() where task_index = 0"
    )
    for expected in (4, 5, 6):
        worker_id = uuid.uuid4()
        register(db, worker_id, "f")
        db.do("update pgflow.step_tasks set last_requeued_at = clock_timestamp() where task_index = 0")
        db.do("update pgmq.q_f set vt = clock_timestamp() + interval '1 hour' where msg_id = 1")
        assert len(take(db, worker_id, 2)) == 2
        db.do("update pgmq.q_f set vt = clock_timestamp() where msg_id = 1")
        assert 0 not in [row.task_index for row in take(db, worker_id, 1)]
        db.do("update pgflow.step_tasks set last_requeued_at = clock_timestamp() - interval '11 seconds'")
        assert [row.task_index for row in take(db, worker_id, 3)] == [0], "nothing comes along"
        assert take(db, worker_id, 3) == []
        dies(db, worker_id)
        db.do("update pgflow.step_tasks set worker_deaths = null where task_index > 0")
        assert (task(db, run, "m", 0).worker_deaths, task(db, run, "m", 0).condemned) == (
            expected,
            expected == 6,
        )


def test_workers_that_stop_in_order_and_ids_that_are_given_up_cast_no_suspicion(db: Db) -> None:
    run = mapped(db, 3)
    for _ in range(4):
        worker_id, held = life(db)
        assert held == [0, 1, 2]
        db.do("select pgflow.stop_workers(array[%s]::uuid[])", worker_id)
        db.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
        assert dies(db, worker_id) == 3
    for _ in range(4):
        worker_id, held = life(db)
        assert held == [0, 1, 2]
        assert db.value("select pgflow.retire_worker(%s)", worker_id) == 3
    assert deaths(db, run) == [None] * 3


def test_where_workers_die_all_the_time_it_takes_more_to_condemn(db: Db) -> None:
    run = mapped(db, 2)
    db.do(
        "insert into pgflow.workers (worker_id, queue_name, function_name, died_at, recovered_at)"
        " select gen_random_uuid(), 'f', 'w', clock_timestamp(), clock_timestamp()"
        " from generate_series(1, 40)"
    )
    db.do("update pgflow.step_tasks set worker_deaths = 2")
    for expected in (3, 4, 5):
        worker_id, held = life(db)
        assert held == [0]
        dies(db, worker_id)
        assert (task(db, run, "m", 0).worker_deaths, task(db, run, "m", 0).condemned) == (
            expected,
            True if expected == 5 else None,
        )


# -- who is dead -------------------------------------------------------------------------------------------


def test_a_worker_could_give_no_sign_while_the_server_was_not_up(db: Db) -> None:
    mapped(db, 1)
    worker_id, _ = life(db)
    register(db, worker_id, "f", "1 year")
    silence(db, worker_id, 10**8)
    assert recover(db) == 0


def test_a_dead_worker_is_looked_at_twice_and_then_never_again(db: Db) -> None:
    run = mapped(db, 2)
    worker_id, _ = life(db, 1)
    assert dies(db, worker_id) == 1
    # A claim that was under way when it was taken for dead.
    db.do(
        "update pgflow.step_tasks set status = 'started', started_at = now(), last_worker_id = %s", worker_id
    )
    db.do("update pgmq.q_f set read_ct = 1")
    assert recover(db) == 0
    db.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
    assert recover(db) == 2
    assert db.value("select recovered_at is not null from pgflow.workers")
    assert db.column("select status from pgflow.step_tasks where run_id = %s", run) == ["queued"] * 2


def test_one_that_was_taken_for_dead_claims_nothing_until_it_has_registered_again(db: Db) -> None:
    mapped(db, 2)
    worker_id, _ = life(db, 1)
    dies(db, worker_id)
    assert take(db, worker_id) == []
    register(db, worker_id, "f")
    assert len(take(db, worker_id)) == 2


def test_only_a_worker_that_gave_no_sign_since_it_was_seen_is_taken_over_from(
    tx: psycopg.Connection[Any],
) -> None:
    wire.adapt(tx)
    db = Db(tx)
    mapped(db, 2)
    worker_id, _ = life(db)
    silence(db, worker_id, 60)
    seen = recovery.watched_workers(tx)
    assert [(w.worker_id, w.dead_after, w.stopped) for w in seen] == [(str(worker_id), 1.0, False)]
    engine.heartbeat(tx, [str(worker_id)])
    assert recovery.recover_workers(tx, seen) == 0
    silence(db, worker_id, -3600)  # the server's clock was set back since
    assert recovery.recover_workers(tx, recovery.watched_workers(tx)) == 2


def test_where_no_worker_can_be_alive_all_are_taken_over_from_at_once(tx: psycopg.Connection[Any]) -> None:
    db = Db(tx)
    run = mapped(db, 2)
    life(db, 1)
    claim(db, "f", 1)  # a client that promised no signs of life
    assert recovery.free_tasks_of_all_workers(tx) == 2
    assert deaths(db, run) == [1, 1]
    assert recovery.free_tasks_of_all_workers(tx) == 0


# -- rows that go ------------------------------------------------------------------------------------------


def test_pruning_leaves_a_live_worker_and_what_it_holds_alone(db: Db) -> None:
    run = mapped(db, 1)
    worker_id, _ = life(db)
    register(db, worker_id, "f", "1 hour")
    silence(db, worker_id, 5)
    db.do("select pgflow.prune_data_older_than('0 seconds')")
    assert task(db, run, "m", 0).last_worker_id == worker_id


def test_pruning_leaves_a_dead_worker_until_it_was_taken_over_from(db: Db) -> None:
    mapped(db, 1)
    worker_id, _ = life(db)
    silence(db, worker_id, 60)
    db.do("select pgflow.prune_data_older_than('0 seconds')")
    assert recover(db) == 1
    db.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
    recover(db)
    db.do("select pgflow.prune_data_older_than('0 seconds')")
    assert db.value("select count(*) from pgflow.workers") == 0


@pytest.mark.parametrize(("silent", "keeps"), [(0, True), (60, False)])
def test_a_live_worker_whose_row_is_deleted_keeps_what_it_holds(db: Db, silent: int, keeps: bool) -> None:
    run = mapped(db, 1)
    worker_id, _ = life(db)
    silence(db, worker_id, silent)
    db.do("delete from pgflow.workers")
    assert (task(db, run, "m", 0).last_worker_id == worker_id) == keeps
