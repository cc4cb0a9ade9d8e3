"""``prune_data_older_than`` (contract 14.3)."""

from __future__ import annotations

import uuid

import pytest

from .helpers import Db, archive, claim, complete, fail, flow, map_step, queue, setup, start, step, worker

TABLES = ["step_tasks", "step_states", "runs"]


def prune(db: Db, interval: str = "7 days") -> None:
    db.do("select pgflow.prune_data_older_than(%s::interval)", interval)


def age_run(db: Db, run: uuid.UUID, days: int) -> None:
    """Back-date a finished run with its rows, as a pruning suite does."""
    back = f"interval '{days} days'"
    db.do(
        f"update pgflow.runs set started_at = started_at - {back} - interval '2 days',"
        f" completed_at = completed_at - {back}, failed_at = failed_at - {back} where run_id = %s",
        run,
    )
    db.do(
        f"update pgflow.step_states set created_at = created_at - {back} - interval '2 days',"
        f" started_at = started_at - {back}, completed_at = completed_at - {back},"
        f" failed_at = failed_at - {back} where run_id = %s",
        run,
    )
    db.do(
        f"update pgflow.step_tasks set queued_at = queued_at - {back} - interval '2 days',"
        f" started_at = started_at - {back}, completed_at = completed_at - {back},"
        f" failed_at = failed_at - {back} where run_id = %s",
        run,
    )


def counts(db: Db, run: uuid.UUID) -> list[int]:
    return [db.value(f"select count(*) from pgflow.{t} where run_id = %s", run) for t in TABLES]


def finished(db: Db, days: int, how: str = "completed", slug: str = "f") -> uuid.UUID:
    flow(db, slug, step("a", max_attempts=1), step("b", "a"))
    run = start(db, slug)
    claim(db, slug)
    if how == "failed":
        fail(db, run, "a")
    else:
        complete(db, run, "a", 1)
        claim(db, slug)
        complete(db, run, "b", 1)
    age_run(db, run, days)
    return run


@pytest.mark.parametrize("how", ["completed", "failed"])
@pytest.mark.parametrize(("days", "gone"), [(8, True), (6, False)])
def test_runs_that_ended_before_the_cutoff_go_with_all_their_rows(
    db: Db, how: str, days: int, gone: bool
) -> None:
    run = finished(db, days, how)
    before = counts(db, run)
    prune(db)
    assert counts(db, run) == ([0, 0, 0] if gone else before)


def test_an_unfinished_run_stays_however_old(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    age_run(db, run, 1000)
    prune(db)
    assert counts(db, run) == [1, 3, 1]
    assert queue(db, "sequential") == [("first", 0)]


def test_open_tasks_and_messages_of_an_old_failed_run_go_too(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1), "other")
    run = start(db, "f", [1, 2, 3])
    claim(db, "f", 2)
    db.do("update pgflow.runs set status = 'failed', failed_at = now() where run_id = %s", run)
    young = start(db, "f", [1])
    age_run(db, run, 10)
    assert len(queue(db, "f")) == 6
    prune(db)
    assert counts(db, run) == [0, 0, 0]
    assert db.column("select distinct message->>'run_id' from pgmq.q_f") == [str(young)]
    assert archive(db, "f") == []


def test_missing_message_ids_are_no_problem(db: Db) -> None:
    run = finished(db, 10)
    db.do("update pgflow.step_tasks set message_id = null")
    prune(db)
    assert counts(db, run) == [0, 0, 0]


def test_a_missing_queue_is_no_problem(db: Db) -> None:
    run = finished(db, 10)
    db.do("select pgmq.drop_queue('f')")
    prune(db)
    assert counts(db, run) == [0, 0, 0]


@pytest.mark.parametrize(("seconds", "gone"), [(-1, True), (0, False), (1, False)])
def test_workers_silent_since_before_the_cutoff_go(db: Db, seconds: int, gone: bool) -> None:
    setup(db, "one")
    worker(db, "one")
    db.do(
        "update pgflow.workers set last_heartbeat_at = now() - interval '7 days' + make_interval(secs => %s)",
        seconds,
    )
    prune(db)
    assert db.value("select count(*) from pgflow.workers") == (0 if gone else 1)


def test_a_task_of_a_pruned_worker_stays(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    db.do("update pgflow.workers set last_heartbeat_at = now() - interval '8 days'")
    prune(db)
    assert counts(db, run) == [1, 1, 1]
    assert db.value("select last_worker_id is null from pgflow.step_tasks")


def test_archived_messages_older_than_the_cutoff_go(db: Db) -> None:
    finished(db, 0)
    db.do("update pgmq.a_f set archived_at = now() - interval '8 days' where msg_id = 1")
    prune(db)
    assert archive(db, "f") == [("b", 0)]


def test_archives_of_every_flow_are_pruned_mixed_case_too(db: Db) -> None:
    finished(db, 0, slug="MixedCase")
    db.do("update pgmq.a_mixedcase set archived_at = now() - interval '8 days'")
    prune(db)
    assert db.value("select count(*) from pgmq.a_mixedcase") == 0


def test_definitions_stay(db: Db) -> None:
    finished(db, 10)
    prune(db)
    assert db.value("select count(*) from pgflow.steps") == 2
    start(db, "f")


def test_several_flows_are_pruned_in_one_call(db: Db) -> None:
    old_f, old_g, new_h = finished(db, 10, slug="f"), finished(db, 9, slug="g"), finished(db, 1, slug="h")
    prune(db)
    assert [counts(db, r) for r in (old_f, old_g)] == [[0, 0, 0], [0, 0, 0]]
    assert counts(db, new_h) == [2, 2, 1]


def test_a_site_may_replace_it_by_its_own_of_the_same_signature(plain_db: Db) -> None:
    plain_db.do(
        "create or replace function pgflow.prune_data_older_than(retention_interval interval) returns void"
        " language plpgsql set search_path = '' as $$ begin return; end $$"
    )
    plain_db.do("select pgflow.prune_data_older_than(retention_interval => make_interval(days => 1))")
