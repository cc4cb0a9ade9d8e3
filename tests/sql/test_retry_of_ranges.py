"""A failed run with maps in ranges goes on where it was, and nothing is lost or counted twice."""

from __future__ import annotations

import uuid

from pgflow_mp.testing import audit_run

from .helpers import WORKER, Db, run_row, start
from .test_open_ahead import chain, complete, fail, ranges


def settle(db: Db, run: uuid.UUID) -> int:
    """Claim what there is and complete it, tasks with 7, ranges with their indexes; how much it was."""
    rows = [
        r
        for r in db.rows("select * from pgflow.claim_work('f', %s, 9, 99)", WORKER)
        if not (r.items and r.msg_id)
    ]
    for row in rows:
        if row.items:
            outputs = [*range(row.task_index, row.task_index + row.items)]
            complete(db, run, row.step_slug, row.task_index, outputs, row.attempt)
        else:
            db.do(
                "select pgflow.complete_tasks(%s, %s, array[%s::int], array['7'::jsonb], %s, array[%s::int])",
                *(run, row.step_slug, row.task_index, WORKER, row.attempt),
            )
    return len(rows)


def finish(db: Db, run: uuid.UUID) -> None:
    """Work until nothing is left; every state on the way is right."""
    while settle(db, run):
        assert audit_run(db.conn, str(run)) == []
    assert run_row(db, run).status == "completed"


def ended_and_retried(db: Db, run: uuid.UUID) -> int:
    db.do("select pgflow.cancel_run(%s)", run)
    assert audit_run(db.conn, str(run)) == []
    queued: int = db.value("select pgflow.retry_failed_tasks(%s)", run)
    assert audit_run(db.conn, str(run)) == []
    return queued


def test_a_tolerated_failure_that_was_passed_on_stays_one(db: Db) -> None:
    chain(db, tolerated=1)
    run = start(db, "f", [*range(10)])
    ranges(db)
    complete(db, run, "first", 0, [0, 1, 2])
    assert fail(db, run, "first", 5).accepted == 1
    assert ended_and_retried(db, run) == 6 + 10
    assert db.value("select status from pgflow.item(%s, 'first', 5)", run) == "failed"
    finish(db, run)
    assert db.value("select output ->> 5 from pgflow.step_states where step_slug = 'second'") == "5"
    assert db.column("select failed_tasks from pgflow.step_states where step_slug = 'first'") == [1]


def test_a_tolerated_failure_that_nobody_has_seen_is_tried_again(db: Db) -> None:
    chain(db, tolerated=1)
    db.do("update pgflow.step_policies set barrier = null")
    run = start(db, "f", [*range(10)])
    ranges(db)
    fail(db, run, "first", 5)
    assert ended_and_retried(db, run) == 10
    finish(db, run)
    assert db.column("select failed_tasks from pgflow.step_states where step_slug = 'first'") == [0]


def test_an_exception_that_was_passed_on_is_counted_once(db: Db) -> None:
    chain(db)
    db.do("update pgflow.flows set opt_max_attempts = 2, opt_base_delay = 0")
    run = start(db, "f", [*range(10)])
    ranges(db)
    fail(db, run, "first", 5)
    assert settle(db, run) == 1
    assert ended_and_retried(db, run) == 9 + 10
    finish(db, run)
    assert db.value("select output -> 5 from pgflow.step_states where step_slug = 'second'") == 5


def test_a_map_that_was_done_by_its_exceptions_is_closed(db: Db) -> None:
    chain(db, tolerated=1)
    run = start(db, "f", [1])
    ranges(db)
    db.do("update pgflow.range_maps set is_open = true")  # as a take-over leaves it
    fail(db, run, "first", 0)
    assert audit_run(db.conn, str(run)) == []
    finish(db, run)
