"""One run of which something is broken, and what is to be done for all runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import psycopg
import pytest

from .helpers import Db, claim, flow, map_step, start, state, tasks
from .test_leases import register
from .test_requeue_stalled_tasks import age, fail_stalled, requeue

WORKERS = (uuid.UUID(int=1), uuid.UUID(int=2))


def broken(db: Db, run: uuid.UUID, table: str = "step_tasks") -> None:
    """From now on no task of this run can be changed, as with a trigger of somebody's own that fails."""
    db.do(
        "create function pg_temp.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'not this one'; end $$"
    )
    db.do(
        f"create trigger refuse before update on pgflow.{table} for each row"
        f" when (old.run_id = '{run}') execute function pg_temp.refuse()"
    )


def two_runs(db: Db) -> tuple[uuid.UUID, uuid.UUID]:
    """Two runs whose tasks are claimed, by a worker each, in the order of their ids."""
    flow(db, "f", map_step("a", timeout=5))
    runs = sorted([start(db, "f", [1, 2]), start(db, "f", [1, 2])])
    for worker_id in WORKERS:
        register(db, worker_id, "f")
        assert len(db.rows("select * from pgflow.claim_tasks('f', %s, 2)", worker_id)) == 2
    age(db, 36)
    return runs[0], runs[1]


def heard(db: Db) -> list[str]:
    """The warnings that the connection gets from here on."""
    texts: list[str] = []
    db.conn.add_notice_handler(lambda diagnostic: texts.append(diagnostic.message_primary or ""))
    return texts


def recover(db: Db) -> int:
    """Nobody is dead before the server has been up for as long: the workers promise a millisecond."""
    db.do("update pgflow.workers set last_heartbeat_at = now() - interval '1 hour', dead_after = '1 ms'")
    count: int = db.value("select pgflow.recover_dead_workers()")
    return count


def recover_watched(db: Db) -> int:
    db.do("update pgflow.workers set last_heartbeat_at = now() - interval '1 hour'")
    count: int = db.value(
        "select pgflow.recover_workers(array_agg(worker_id), array_agg(last_heartbeat_at))"
        " from pgflow.workers"
    )
    return count


def give_up(db: Db) -> int:
    db.do("select pgflow.set_step_policy('f', 'a', 2)")
    return fail_stalled(db)


@pytest.mark.parametrize("call", [requeue, give_up, recover, recover_watched])
def test_a_run_that_cannot_be_changed_keeps_no_other_from_its_upkeep(
    alone: Db, call: Callable[[Db], int]
) -> None:
    bad, good = two_runs(alone)
    if call is give_up:
        alone.do("update pgflow.step_tasks set requeued_count = 3")
        requeue(alone)
    before = tasks(alone, bad)
    broken(alone, bad)
    warnings = heard(alone)
    assert call(alone) == 2
    assert [str(bad) in text and "not this one" in text for text in warnings] == [True]
    assert tasks(alone, bad) == before
    assert tasks(alone, good) != before
    alone.do("drop trigger refuse on pgflow.step_tasks")
    alone.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
    assert call(alone) == 2


@pytest.mark.parametrize("call", [recover, recover_watched, requeue])
def test_a_map_in_ranges_that_cannot_be_changed_keeps_no_other_from_being_taken_over(
    alone: Db, call: Callable[[Db], int]
) -> None:
    flow(alone, "f", map_step("a"))
    alone.do("select pgflow.set_step_policy('f', 'a', storage => 'ranges')")
    bad, _good = sorted([start(alone, "f", [1, 2]), start(alone, "f", [1, 2])])
    for worker_id in WORKERS:
        register(alone, worker_id, "f")
        alone.do("select pgflow.claim_work('f', %s, 0, 2)", worker_id)
    held = "select count(*) from pgflow.ranges where worker_id is not null"
    assert alone.value(held) == 4  # one of each run for each
    broken(alone, bad, "ranges")
    if call is requeue:  # the rows of the workers are gone
        alone.do("alter table pgflow.ranges disable trigger refuse")
        alone.do("update pgflow.ranges set leased_at = now() - interval '1 hour'")
        alone.do("alter table pgflow.ranges enable trigger refuse")
        alone.do("delete from pgflow.workers")
    warnings = heard(alone)
    assert call(alone) == (0 if call is requeue else 2)
    assert [str(bad) in text and "not this one" in text for text in warnings] == [True]
    assert alone.column("select run_id from pgflow.ranges where worker_id is not null") == [bad, bad]
    alone.do("drop trigger refuse on pgflow.ranges")
    alone.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
    call(alone)
    assert alone.value(held) == 0


def test_a_worker_whose_tasks_could_not_be_taken_over_is_looked_at_again(alone: Db) -> None:
    bad, _good = two_runs(alone)
    broken(alone, bad)
    recover(alone)
    alone.do("update pgflow.workers set stopped_at = stopped_at - interval '1 hour'")
    recover(alone)
    assert alone.column("select recovered_at from pgflow.workers where recovered_at is not null") == []


def test_an_error_that_is_about_no_run_is_told(alone: Db) -> None:
    """A disk that is full, a server that only reads: nobody would hear of it otherwise."""
    bad, _good = two_runs(alone)
    alone.do(
        "create function pg_temp.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$"
    )
    alone.do(
        "create trigger refuse before update on pgflow.step_tasks"
        " for each row execute function pg_temp.refuse()"
    )
    with pytest.raises(psycopg.errors.DiskFull, match="no space left"):
        requeue(alone)
    assert {t.status for t in tasks(alone, bad)} == {"started"}


def test_many_stalled_tasks_are_requeued_and_given_up_in_little_time(alone: Db) -> None:
    """Row by row this took 15 s."""
    flow(alone, "f", map_step("a", timeout=5))
    run = start(alone, "f", list(range(6000)))
    for _ in range(12):
        claim(alone, "f", 500)
    age(alone, 36)
    began = time.monotonic()
    assert requeue(alone) == 6000
    alone.do("update pgflow.step_tasks set status = 'started', started_at = queued_at, requeued_count = 3")
    alone.do("select pgflow.set_step_policy('f', 'a', 2147483647)")
    assert requeue(alone) == 0
    assert fail_stalled(alone) == 6000
    assert time.monotonic() - began < 3
    assert state(alone, run, "a").status == "completed"
