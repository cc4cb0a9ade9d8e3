"""``requeue_stalled_tasks``, its cron job (contract 14.1, 14.2) and ``fail_stalled_tasks`` (ours)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest
from worker_harness import eventually

from pgflow_mp.db import schema

from .helpers import (
    CRON,
    WORKER,
    Db,
    archive,
    claim,
    complete,
    event_names,
    fail,
    flow,
    lease,
    map_step,
    queue,
    run_row,
    snapshot,
    start,
    state,
    step,
    task,
    tasks,
)


def requeue(db: Db) -> int:
    count: int = db.value("select pgflow.requeue_stalled_tasks()")
    return count


def fail_stalled(db: Db) -> int:
    count: int = db.value("select pgflow.fail_stalled_tasks()")
    return count


def age(db: Db, seconds: int, slug: str = "a") -> None:
    """Make the started tasks of a step look as if started that long ago."""
    db.do(
        "update pgflow.step_tasks set queued_at = now() - make_interval(secs => %s + 60),"
        " started_at = now() - make_interval(secs => %s) where step_slug = %s and status = 'started'",
        seconds,
        seconds,
        slug,
    )


def stall(db: Db, slug: str = "f", **options: int) -> uuid.UUID:
    flow(db, slug, "a", **({"timeout": 5} | options))
    run = start(db, slug)
    claim(db, slug)
    age(db, 36)
    return run


def test_a_stalled_task_is_queued_again_uncharged(db: Db) -> None:
    run = stall(db)
    assert requeue(db) == 1
    found = task(db, run, "a")
    assert (found.status, found.started_at, found.last_worker_id) == ("queued", None, None)
    assert (found.requeued_count, found.attempts_count) == (1, 1)
    assert (found.permanently_stalled_at, found.error_message) == (None, None)
    assert db.value("select last_requeued_at = now() from pgflow.step_tasks")
    assert (state(db, run, "a").status, run_row(db, run).status) == ("started", "started")


def test_its_message_is_visible_at_once(db: Db) -> None:
    run = stall(db)
    assert claim(db, "f") == []
    requeue(db)
    assert lease(db, "f", 1) <= 0
    (found,) = claim(db, "f")
    assert found.run_id == run
    assert task(db, run, "a").attempts_count == 2


@pytest.mark.parametrize(
    ("timeout", "seconds", "stalled"),
    [(5, 36, True), (5, 34, False), (60, 36, False), (60, 91, True), (60, 89, False), (1, 32, True)],
)
def test_stalled_means_longer_than_the_timeout_and_thirty_seconds(
    db: Db, timeout: int, seconds: int, stalled: bool
) -> None:
    run = stall(db, timeout=timeout)
    age(db, seconds)
    assert requeue(db) == int(stalled)
    assert task(db, run, "a").status == ("queued" if stalled else "started")


def test_the_longest_timeout_there_is_is_no_number_too_large_for_anybody(db: Db) -> None:
    """A flow whose timeout was as long as an integer goes could not be claimed, and no other be requeued."""
    stall(db, "g")
    longest = 2**31 - 1
    flow(db, "f", map_step("m", timeout=longest), timeout=longest)
    start(db, "f", [1, 2])
    assert len(db.rows("select * from pgflow.claim_tasks('f', %s, 1)", WORKER)) == 1
    assert len(claim(db, "f", 1)) == 1
    assert requeue(db) == 1


@pytest.mark.parametrize(("step_timeout", "stalled"), [(5, True), (600, False)])
def test_a_step_s_own_timeout_counts(db: Db, step_timeout: int, stalled: bool) -> None:
    flow(db, "f", step("a", timeout=step_timeout), timeout=60 if stalled else 5)
    start(db, "f")
    claim(db, "f")
    age(db, 40)
    assert requeue(db) == int(stalled)


def test_a_task_inserted_by_hand_is_found(db: Db) -> None:
    flow(db, "f", "a", timeout=5)
    run = start(db, "f")
    db.do("delete from pgflow.step_tasks")
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, status,"
        " queued_at, started_at)"
        " values ('f', %s, 'a', 0, 'started', now() - interval '2 min', now() - interval '1 min')",
        run,
    )
    assert requeue(db) == 1
    assert task(db, run, "a").status == "queued"


def test_a_started_task_inserted_by_hand_is_found_once_its_step_is_started(db: Db) -> None:
    flow(db, "f", "a", timeout=5)
    run = db.value("insert into pgflow.runs (flow_slug, input) values ('f', '{}') returning run_id")
    db.do("insert into pgflow.step_states (flow_slug, run_id, step_slug) values ('f', %s, 'a')", run)
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, status, queued_at, started_at)"
        " values ('f', %s, 'a', 'started', now() - interval '2 min', now() - interval '1 min')",
        run,
    )
    assert requeue(db) == 0
    assert (task(db, run, "a").status, task(db, run, "a").requeued_count) == ("started", 0)
    db.do(
        "update pgflow.step_states set status = 'started', initial_tasks = 1, remaining_tasks = 1"
        " where run_id = %s",
        run,
    )
    assert requeue(db) == 1


@pytest.mark.parametrize("status", ["queued", "completed", "failed"])
def test_only_started_tasks_stall(db: Db, status: str) -> None:
    stall(db)
    db.do("update pgflow.step_tasks set status = %s", status)
    assert requeue(db) == 0


def test_all_stalled_tasks_of_all_flows_are_taken(db: Db) -> None:
    flow(db, "f", map_step("a"), timeout=5)
    flow(db, "g", "a", timeout=5)
    flow(db, "h", "a", timeout=500)
    start(db, "f", [1, 2, 3])
    start(db, "g")
    start(db, "h")
    for slug in "fgh":
        claim(db, slug, 2)
    age(db, 40)
    assert requeue(db) == 3
    assert requeue(db) == 0


def test_after_three_requeues_the_task_is_left_for_good(db: Db) -> None:
    run = stall(db)
    counts = []
    for _ in range(4):
        counts.append(requeue(db))
        claim(db, "f")
        age(db, 36)
    assert counts == [1, 1, 1, 0]
    found = task(db, run, "a")
    assert (found.status, found.requeued_count) == ("started", 3)
    assert db.value("select permanently_stalled_at = now() from pgflow.step_tasks")
    assert (queue(db, "f"), archive(db, "f")) == ([], [("a", 0)])


def marked(db: Db, *steps: object, **options: int) -> uuid.UUID:
    """A run whose first task of ``a`` has been requeued three times and stalls once more."""
    flow(db, "f", *steps, **({"timeout": 5} | options))  # type: ignore[arg-type]
    run = start(db, "f", [1, 2])
    claim(db, "f")
    age(db, 36)
    db.do("update pgflow.step_tasks set requeued_count = 3 where status = 'started'")
    assert requeue(db) == 0
    return run


def set_back(db: Db) -> None:
    """Tasks given up just now were given up a while ago."""
    db.do(
        "update pgflow.step_tasks set permanently_stalled_at = now() - interval '15 s'"
        " where permanently_stalled_at is not null"
    )


def stalled_out(db: Db, *steps: object, **options: int) -> uuid.UUID:
    """The same one transaction later, when the upkeep goes on."""
    run = marked(db, *steps, **options)
    set_back(db)
    assert fail_stalled(db) == 1
    return run


@pytest.mark.parametrize("later", [False, True], ids=["same transaction", "later"])
def test_later_calls_ignore_it(db: Db, later: bool) -> None:
    run = marked(db, "a")
    if later:
        set_back(db)
    before = snapshot(db, run)
    assert [requeue(db), requeue(db)] == [0, 0]
    assert snapshot(db, run) == before


@pytest.mark.parametrize("count", [0, 3])
def test_a_task_marked_by_hand_is_ignored_too(db: Db, count: int) -> None:
    run = stall(db)
    db.do(
        "update pgflow.step_tasks set requeued_count = %s,"
        " permanently_stalled_at = now() - interval '1 hour'",
        count,
    )
    before = snapshot(db, run)
    assert requeue(db) == 0
    assert snapshot(db, run) == before


def test_a_task_is_failed_by_a_later_transaction_than_the_one_that_gave_it_up(db: Db) -> None:
    run = marked(db, "a")
    before = snapshot(db, run)
    assert fail_stalled(db) == 0
    assert snapshot(db, run) == before


def test_nothing_but_the_task_changes_in_the_transaction_that_gives_it_up(db: Db) -> None:
    run = marked(db, "a", "other")
    assert (state(db, run, "a").status, run_row(db, run).status) == ("started", "started")
    assert queue(db, "f") == [("other", 0)]
    assert event_names(db, run, "step:a") == ["step:a:started"]


def test_a_result_that_arrives_before_a_given_up_task_is_counted_is_taken(db: Db) -> None:
    run = marked(db, "a")
    assert [t.status for t in complete(db, run, "a", "late")] == ["completed"]
    assert run_row(db, run).output == {"a": "late"}


def test_a_failure_that_arrives_before_a_given_up_task_is_counted_is_final(db: Db) -> None:
    run = marked(db, "a")
    assert [t.status for t in fail(db, run, "a", "late")] == ["failed"]  # a retry would have no message
    assert (state(db, run, "a").error_message, run_row(db, run).status) == ("late", "failed")


def test_a_task_given_up_is_not_handed_back_into_the_queue_it_has_left(db: Db) -> None:
    run = marked(db, "a")
    before = snapshot(db, run)
    assert db.value("select pgflow.release_tasks('f', %s, '{1}')", WORKER) == 0
    assert snapshot(db, run) == before


def test_a_task_given_up_is_not_recovered_from_its_dead_worker(db: Db) -> None:
    run = marked(db, "a")
    db.do("update pgflow.workers set dead_after = '1 s', last_heartbeat_at = now() - interval '1 hour'")
    assert db.value("select pgflow.recover_dead_workers()") == 0
    assert task(db, run, "a").status == "started"


def test_a_task_stalled_out_fails_its_step_and_run_with_a_clear_error(db: Db) -> None:
    run = stalled_out(db, "a", step("b", "a"), "other")
    assert (task(db, run, "a").status, task(db, run, "a").requeued_count) == ("cancelled", 3)
    found = state(db, run, "a")
    assert found.status == "failed"
    assert found.error_message == "Task 0 of step a stalled 4 times: no worker reported a result in time"
    assert run_row(db, run).status == "failed"
    assert state(db, run, "b").status == "created"
    assert queue(db, "f") == []
    assert event_names(db, run)[-2:] == ["step:a:failed", "run:failed"]


def test_a_task_stalled_out_skips_its_step_where_exhaustion_does(db: Db) -> None:
    run = stalled_out(db, step("a", when_exhausted="skip"), step("b", "a"))
    assert (state(db, run, "a").status, state(db, run, "a").skip_reason) == ("skipped", "handler_failed")
    assert state(db, run, "b").status == "started"
    assert run_row(db, run).status == "started"


def test_one_map_task_stalled_out_ends_the_map(db: Db) -> None:
    run = stalled_out(db, map_step("a"))
    assert db.value("select failed_at = now() from pgflow.step_tasks where task_index = 0")
    assert [t.status for t in tasks(db, run)] == ["cancelled", "cancelled"]
    assert run_row(db, run).status == "failed"
    assert archive(db, "f") == [("a", 0), ("a", 1)]


def test_a_task_stalled_out_counts_once(db: Db) -> None:
    run = marked(db, map_step("a"))
    db.do("select pgflow.set_step_policy('f', 'a', 1)")
    set_back(db)
    assert [fail_stalled(db), fail_stalled(db)] == [1, 0]
    assert (state(db, run, "a").status, state(db, run, "a").failed_tasks) == ("started", 1)


def test_tasks_beyond_the_one_that_ends_the_map_are_not_counted(db: Db) -> None:
    flow(db, "f", map_step("a"), timeout=5)
    run = start(db, "f", [1, 2, 3])
    claim(db, "f", 3)
    age(db, 36)
    db.do("update pgflow.step_tasks set requeued_count = 3")
    assert requeue(db) == 0
    set_back(db)
    assert fail_stalled(db) == 1
    assert (state(db, run, "a").status, state(db, run, "a").failed_tasks) == ("failed", 1)


def test_a_task_given_up_whose_worker_still_holds_on_to_it_is_not_failed(db: Db) -> None:
    run = marked(db, "a")
    set_back(db)
    assert db.column("select pgflow.extend_tasks('f', %s, '{1}', 60)", WORKER) == []
    assert fail_stalled(db) == 0
    assert run_row(db, run).status == "started"


@pytest.mark.parametrize("table", ["runs", "step_states"])
@pytest.mark.parametrize("given_up", [False, True])
def test_tasks_of_a_finished_run_or_step_are_left_alone(db: Db, table: str, given_up: bool) -> None:
    run = marked(db, "a") if given_up else stall(db)
    set_back(db)
    db.do(f"update pgflow.{table} set status = 'failed', failed_at = now() where run_id = %s", run)
    before = snapshot(db, run)
    assert (requeue(db), fail_stalled(db)) == (0, 0)
    assert snapshot(db, run) == before


def test_a_requeued_task_can_complete_and_its_late_first_worker_changes_nothing(db: Db) -> None:
    run = stall(db)
    requeue(db)
    before = snapshot(db, run)
    complete(db, run, "a", "late")
    fail(db, run, "a", "late")
    assert snapshot(db, run) == before
    claim(db, "f")
    complete(db, run, "a", "good")
    assert run_row(db, run).output == {"a": "good"}


def test_a_task_without_a_message_is_requeued_without_an_error(db: Db) -> None:
    run = stall(db)
    db.do("update pgflow.step_tasks set message_id = null")
    assert requeue(db) == 1
    assert task(db, run, "a").status == "queued"


def test_with_nothing_to_do_they_return_zero(db: Db) -> None:
    assert (requeue(db), fail_stalled(db)) == (0, 0)


# -- one transaction a call, and sessions beside it --------------------------------------------------------


def rounds(db: Db, calls: int) -> list[int]:
    """Answers of so many calls, each a transaction; what was requeued is claimed and stalls again."""
    counts = []
    for _ in range(calls):
        counts.append(requeue(db))
        claim(db, "f")
        age(db, 36)
    return counts


def test_calls_after_the_one_that_gave_the_task_up_leave_step_and_run_as_they_are(alone: Db) -> None:
    run = stall(alone)
    assert rounds(alone, 6) == [1, 1, 1, 0, 0, 0]
    assert (task(alone, run, "a").status, task(alone, run, "a").requeued_count) == ("started", 3)
    assert (state(alone, run, "a").status, run_row(alone, run).status) == ("started", "started")
    assert fail_stalled(alone) == 1
    assert state(alone, run, "a").error_message.startswith("Task 0 of step a stalled 4 times")
    assert run_row(alone, run).status == "failed"
    assert (requeue(alone), fail_stalled(alone)) == (0, 0)


@pytest.mark.parametrize("call", [requeue, fail_stalled])
def test_a_run_that_another_session_has_locked_is_left_for_the_next_call(
    alone: Db, beside: Db, call: Callable[[Db], int]
) -> None:
    flow(alone, "f", map_step("a", timeout=5))
    locked, free = sorted([start(alone, "f", [1, 2]), start(alone, "f", [1, 2])])
    claim(alone, "f", 4)
    age(alone, 36)
    if call is fail_stalled:
        alone.do("select pgflow.set_step_policy('f', 'a', 2)")
        alone.do("update pgflow.step_tasks set requeued_count = 3")
        assert requeue(alone) == 0
    beside.do("select from pgflow.runs where run_id = %s for update", locked)
    before = snapshot(alone, locked)["tasks"]
    assert call(alone) == 2
    assert snapshot(alone, locked)["tasks"] == before
    assert call(alone) == 0
    beside.conn.rollback()
    assert call(alone) == 2
    assert len({(t.status, t.requeued_count) for t in tasks(alone, locked) + tasks(alone, free)}) == 1


def test_a_task_that_another_session_has_locked_is_left_for_the_next_call(alone: Db, beside: Db) -> None:
    flow(alone, "f", map_step("a", timeout=5))
    run = start(alone, "f", [1, 2, 3])
    claim(alone, "f", 3)
    age(alone, 36)
    beside.do("select from pgflow.step_tasks where run_id = %s and task_index = 1 for update", run)
    assert requeue(alone) == 2
    assert [t.status for t in tasks(alone, run)] == ["queued", "started", "queued"]
    beside.conn.rollback()
    assert requeue(alone) == 1


def test_what_would_change_a_task_that_is_requeued_waits_and_finds_it_as_it_is_then(
    alone: Db, beside: Db, dsn: str
) -> None:
    """The requeue waits for a message; a worker extends its lease meanwhile and hears that it lost it."""
    flow(alone, "f", map_step("a", timeout=5))
    run = start(alone, "f", [1, 2])
    claim(alone, "f", 2)
    age(alone, 36)
    beside.do("select from pgmq.q_f where msg_id = 1 for update")
    waiting = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    with ExitStack() as stack:
        conns = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in range(2)]
        threads = stack.enter_context(ThreadPoolExecutor(2))
        stack.callback(beside.conn.rollback)
        answer = threads.submit(requeue, Db(conns[0]))
        eventually(lambda: alone.value(waiting, conns[0].info.backend_pid))
        extend = "select pgflow.extend_tasks('f', %s, '{2}', 60)"
        lost = threads.submit(Db(conns[1]).column, extend, WORKER)
        eventually(lambda: alone.value(waiting, conns[1].info.backend_pid))
        beside.conn.rollback()
        assert (answer.result(30), lost.result(30)) == (2, [2])
    assert [(t.status, t.requeued_count) for t in tasks(alone, run)] == [("queued", 1)] * 2


# -- the cron job ------------------------------------------------------------------------------------------

JOB = "pgflow_requeue_stalled_tasks"


def test_the_job_is_scheduled_and_named_in_the_answer(supabase_db: Db) -> None:
    text = supabase_db.value("select pgflow.setup_requeue_stalled_tasks_cron()")
    job = supabase_db.row("select * from cron.job where jobname = %s", JOB)
    assert job.schedule == "15 seconds"
    assert "pgflow.requeue_stalled_tasks()" in job.command
    assert JOB in text
    assert "15 seconds" in text
    assert str(job.jobid) in text


def test_the_job_s_command_runs(supabase_db: Db) -> None:
    supabase_db.do("select pgflow.setup_requeue_stalled_tasks_cron()")
    supabase_db.do(supabase_db.value("select command from cron.job where jobname = %s", JOB))


def test_the_job_ends_a_run_that_only_other_workers_serve(supabase_db: Db) -> None:
    supabase_db.do("select pgflow.setup_requeue_stalled_tasks_cron()")
    command = supabase_db.value("select command from cron.job where jobname = %s", JOB)
    flow(supabase_db, "f", "a", timeout=5)
    run = start(supabase_db, "f")
    claim(supabase_db, "f")
    age(supabase_db, 36)
    supabase_db.do("update pgflow.step_tasks set requeued_count = 3")
    supabase_db.do(command)
    assert run_row(supabase_db, run).status == "started"
    set_back(supabase_db)
    supabase_db.do(command)
    assert run_row(supabase_db, run).status == "failed"


def test_scheduling_again_replaces_the_job(supabase_db: Db) -> None:
    supabase_db.do("select pgflow.setup_requeue_stalled_tasks_cron()")
    supabase_db.do("select pgflow.setup_requeue_stalled_tasks_cron('30 seconds')")
    supabase_db.do("select pgflow.setup_requeue_stalled_tasks_cron(cron_interval => '*/5 * * * *')")
    assert supabase_db.column("select schedule from cron.job where jobname = %s", JOB) == ["*/5 * * * *"]


def test_another_job_is_left_alone(supabase_db: Db) -> None:
    supabase_db.do("select cron.schedule('mine', '* * * * *', 'select 1')")
    supabase_db.do("select pgflow.setup_requeue_stalled_tasks_cron()")
    assert supabase_db.value("select count(*) from cron.job") == 2


def test_without_pg_cron_it_says_so(plain_db: Db) -> None:
    refusal = plain_db.refused("select pgflow.setup_requeue_stalled_tasks_cron()")
    assert "pg_cron" in refusal.message
    assert refusal.error.diag.message_hint


def test_installing_where_pg_cron_is_schedules_the_job(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(CRON.encode())
        schema.install(conn)
        query = "select jobname, schedule from cron.job where jobname = %s"
        found = conn.execute(query, (JOB,)).fetchall()
    assert found == [(JOB, "15 seconds")]


def test_a_flow_whose_queue_is_lost_does_not_hold_up_the_others(db: Db) -> None:
    for slug in ("gone", "there"):
        flow(db, slug, "a", timeout=5)
        run = start(db, slug)
        claim(db, slug)
        db.do(
            "update pgflow.step_tasks set queued_at = now() - interval '2 min',"
            " started_at = now() - interval '1 min' where run_id = %s",
            run,
        )
    db.do("select pgmq.drop_queue('gone')")
    assert requeue(db) == 1
    assert task(db, run, "a").status == "queued"
