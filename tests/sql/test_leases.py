"""``release_tasks``, ``extend_tasks``, ``recover_dead_workers`` and the heartbeat (ours)."""

from __future__ import annotations

import uuid

import pytest

from .helpers import (
    WORKER,
    Db,
    claim,
    complete,
    fail,
    flow,
    lease,
    make_visible,
    map_step,
    run_row,
    setup,
    snapshot,
    start,
    state,
    step,
    task,
    task_statuses,
    tasks,
    worker,
)
from .test_requeue_stalled_tasks import age, requeue

OTHER = uuid.UUID(int=7)


def release(db: Db, slug: str, ids: list[int], by: uuid.UUID = WORKER) -> int:
    count: int = db.value("select pgflow.release_tasks(%s, %s, %s::bigint[])", slug, by, ids)
    return count


def extend(db: Db, slug: str, ids: list[int], seconds: int, by: uuid.UUID = WORKER) -> list[int]:
    return sorted(db.column("select pgflow.extend_tasks(%s, %s, %s::bigint[], %s)", slug, by, ids, seconds))


# -- release -----------------------------------------------------------------------------------------------


def test_released_tasks_are_queued_uncharged_and_visible_at_once(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    claim(db, "root_map", 3)
    assert release(db, "root_map", [1, 3]) == 2
    assert [(t.status, t.attempts_count, t.last_worker_id) for t in tasks(db, run)] == [
        ("queued", 0, None),
        ("started", 1, WORKER),
        ("queued", 0, None),
    ]
    assert tasks(db, run)[0].started_at is None
    assert [t.task_index for t in claim(db, "root_map", 3, OTHER)] == [0, 2]
    assert [t.attempts_count for t in tasks(db, run)] == [1, 1, 1]


def test_releasing_does_not_eat_attempts(db: Db) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=2, base_delay=0))
    for _ in range(5):
        claim(db, "f")
        release(db, "f", [1])
    claim(db, "f")
    fail(db, run, "a")
    assert run_row(db, run).status == "started"
    claim(db, "f")
    release(db, "f", [1])
    claim(db, "f")
    fail(db, run, "a")
    assert run_row(db, run).status == "failed"


def test_only_what_this_worker_holds_is_released(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3, 4])
    claim(db, "root_map", 1)
    claim(db, "root_map", 1, OTHER)
    claim(db, "root_map", 1)
    complete(db, run, "items", 1, 2)
    before = snapshot(db, run)
    assert release(db, "root_map", [2, 3, 4, 99]) == 0
    assert snapshot(db, run) == before
    assert release(db, "root_map", [1, 2, 3, 4]) == 1
    assert task_statuses(db, run, "items") == ["queued", "started", "completed", "queued"]


def test_releasing_again_or_nothing_is_no_error(db: Db) -> None:
    start(db, setup(db, "one"))
    claim(db, "one")
    assert [release(db, "one", [1]), release(db, "one", [1]), release(db, "one", [])] == [1, 0, 0]


def test_equal_ids_of_another_flow_are_not_released(db: Db) -> None:
    start(db, flow(db, "f", "a"))
    run_g = start(db, flow(db, "g", "a"))
    claim(db, "f")
    claim(db, "g")
    assert release(db, "f", [1]) == 1
    assert task(db, run_g, "a").status == "started"


# -- extend ------------------------------------------------------------------------------------------------


def test_extending_moves_the_visibility(db: Db) -> None:
    start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    assert extend(db, "root_map", [1], 500) == []
    assert 498 < lease(db, "root_map", 1) <= 500
    assert lease(db, "root_map", 2) < 100


def test_extending_names_what_is_no_longer_held(db: Db) -> None:
    flow(db, "f", map_step("m"), "other")
    run = start(db, "f", [1, 2, 3, 4])
    claim(db, "f", 3)
    claim(db, "f", 1, OTHER)
    complete(db, run, "m", 1, 0)
    fail(db, run, "m", "e", 1)
    assert extend(db, "f", [1, 2, 3, 4, 5, 99], 60) == [1, 2, 4, 5, 99]
    assert extend(db, "f", [], 60) == []


def test_a_cancelled_run_s_tasks_are_not_held_any_more(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    db.do("select pgflow.cancel_run(%s)", run)
    assert extend(db, "one", [1], 60) == [1]


def test_a_skipped_step_s_tasks_are_not_held_any_more(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1, when_exhausted="skip"), "o")
    run = start(db, "f", [1, 2])
    claim(db, "f", 2)
    fail(db, run, "m", "e", 0)
    assert extend(db, "f", [2], 60) == [2]


def test_an_extended_task_does_not_stall(db: Db) -> None:
    flow(db, "f", "a", timeout=5)
    run = start(db, "f")
    claim(db, "f")
    extend(db, "f", [1], 60)
    age(db, 1000)
    assert requeue(db) == 0
    db.do("update pgflow.step_tasks set lease_until = clock_timestamp() - interval '1 second'")
    assert requeue(db) == 1
    assert task(db, run, "a").status == "queued"


def test_a_new_claim_starts_with_a_fresh_lease(db: Db) -> None:
    flow(db, "f", "a", timeout=5, base_delay=0)
    run = start(db, "f")
    claim(db, "f")
    extend(db, "f", [1], 3600)
    fail(db, run, "a")
    claim(db, "f")
    age(db, 100)
    assert requeue(db) == 1


# -- dead workers --------------------------------------------------------------------------------------------


def register(db: Db, worker_id: uuid.UUID, slug: str, dead_after: str | None = "1 second") -> None:
    db.do("select pgflow.register_worker(%s, %s, 'w', %s::interval)", worker_id, slug, dead_after)


def silence(db: Db, worker_id: uuid.UUID, seconds: int) -> None:
    db.do(
        "update pgflow.workers set last_heartbeat_at = clock_timestamp() - make_interval(secs => %s)"
        " where worker_id = %s",
        seconds,
        worker_id,
    )


def recover(db: Db) -> int:
    """Take over from the dead. Nobody is dead by the clock of a server that is younger than the promise."""
    db.do("select pg_sleep_until(pg_postmaster_start_time() + interval '1.1 seconds')")
    count: int = db.value("select pgflow.recover_dead_workers()")
    return count


def held(db: Db, dead_after: str | None = "1 second") -> uuid.UUID:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    claim(db, "root_map", 2)
    register(db, WORKER, "root_map", dead_after)
    return run


def test_a_dead_worker_s_tasks_are_queued_again_uncharged(db: Db) -> None:
    run = held(db)
    complete(db, run, "items", 1, 0)
    silence(db, WORKER, 11)
    assert recover(db) == 1
    assert [(t.status, t.attempts_count) for t in tasks(db, run)] == [
        ("completed", 1),
        ("queued", 0),
        ("queued", 0),
    ]
    assert db.value("select stopped_at is not null from pgflow.workers")
    assert [t.task_index for t in claim(db, "root_map", 5, OTHER)] == [1, 2]
    assert recover(db) == 0


@pytest.mark.parametrize(("dead_after", "seconds"), [("10 seconds", 9), (None, 9999), ("1 hour", 600)])
def test_a_worker_that_keeps_its_promise_or_made_none_is_left_alone(
    db: Db, dead_after: str | None, seconds: int
) -> None:
    run = held(db, dead_after)
    silence(db, WORKER, seconds)
    before = snapshot(db, run)
    assert recover(db) == 0
    assert snapshot(db, run) == before


def test_a_dead_worker_s_late_result_is_stale(db: Db) -> None:
    run = held(db)
    silence(db, WORKER, 60)
    recover(db)
    claim(db, "root_map", 5, OTHER)
    row = db.row(
        "select * from pgflow.complete_tasks(%s, 'items', array[0], array['1']::jsonb[], %s, array[1])",
        run,
        WORKER,
    )
    assert (row.accepted, row.rejected) == (0, [0])


def test_tasks_of_finished_runs_stay_with_their_dead_worker(db: Db) -> None:
    run = held(db)
    db.do("select pgflow.cancel_run(%s)", run)
    silence(db, WORKER, 60)
    assert recover(db) == 0
    assert task_statuses(db, run, "items") == ["cancelled", "cancelled", "cancelled"]


def test_another_worker_s_tasks_are_left(db: Db) -> None:
    run = held(db)
    claim(db, "root_map", 1, OTHER)
    register(db, OTHER, "root_map")
    silence(db, WORKER, 60)
    assert recover(db) == 2
    assert task_statuses(db, run, "items") == ["queued", "queued", "started"]


def test_a_stopped_worker_that_still_held_tasks_is_recovered(db: Db) -> None:
    held(db)
    db.do("select pgflow.stop_workers(array[%s]::uuid[])", WORKER)
    silence(db, WORKER, 60)
    assert recover(db) == 0  # what it hands back may still be on its way
    db.do("update pgflow.workers set stopped_at = last_heartbeat_at")
    assert recover(db) == 2


def test_the_heartbeat_tells_of_deprecation_and_presumed_death(db: Db) -> None:
    setup(db, "one")
    register(db, WORKER, "one")
    register(db, OTHER, "one")
    db.do("update pgflow.workers set deprecated_at = now() where worker_id = %s", OTHER)
    silence(db, WORKER, 60)
    recover(db)
    found = {
        r.worker_id: (r.deprecated, r.stopped)
        for r in db.rows("select * from pgflow.heartbeat(array[%s, %s, gen_random_uuid()])", WORKER, OTHER)
    }
    assert found == {WORKER: (False, True), OTHER: (True, False)}
    assert db.value(
        "select bool_and(last_heartbeat_at > clock_timestamp() - interval '5 seconds') from pgflow.workers"
    )


def test_registering_again_revives_a_worker(db: Db) -> None:
    setup(db, "one")
    register(db, WORKER, "one")
    db.do("select pgflow.stop_workers(array[%s]::uuid[])", WORKER)
    register(db, WORKER, "one", "5 seconds")
    row = db.row("select stopped_at, dead_after::text from pgflow.workers")
    assert (row.stopped_at, row.dead_after) == (None, "00:00:05")


def test_a_recovered_task_goes_on_in_a_chain(db: Db) -> None:
    flow(db, "f", "a", step("b", "a"))
    run = start(db, "f")
    claim(db, "f")
    register(db, WORKER, "f")
    silence(db, WORKER, 60)
    recover(db)
    make_visible(db, "f")
    worker(db, "f", OTHER)
    claim(db, "f", 1, OTHER)
    complete(db, run, "a", 1)
    assert state(db, run, "b").status == "started"


@pytest.mark.parametrize(
    "promise", ["178000000 years", "-178000000 years", "2147483647 months", "-1 day", "9999999999 seconds"]
)
def test_no_promise_of_one_worker_ends_the_upkeep_for_all(db: Db, promise: str) -> None:
    run = start(db, setup(db, "root_map"), [1])
    db.do("select pgflow.register_worker(%s, 'root_map', 'w', '1 second')", WORKER)
    claim(db, "root_map", 1)
    for _ in range(2):  # a new row, and one that is there
        db.do("select pgflow.register_worker(%s, 'root_map', 'w', %s)", OTHER, promise)
        silence(db, OTHER, 60)
        silence(db, WORKER, 60)
        recover(db)
        assert len(db.rows("select * from pgflow.watched_workers()")) <= 2
        db.rows(
            "select * from pgflow.report_parked(%s::uuid[], %s::uuid[], %s::uuid[], '{1}')",
            [OTHER],
            [OTHER],
            [run],
        )
        db.do("select pgflow.prune_data_older_than('1 second')")
    assert [task.status for task in tasks(db, run)] == ["queued"]
    with db.savepoint():
        db.do("delete from pgflow.workers")
