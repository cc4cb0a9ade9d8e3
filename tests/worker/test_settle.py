"""Recording outcomes: in batches, in one transaction, again after a lost connection, within bounds."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import psycopg
import pytest
from database_server import DatabaseServer
from settle_harness import WORKER, claimed, group, running
from worker_harness import Tasks, adapted, compiled, eventually, run_row

from pgflow_mp.db import engine, settling
from pgflow_mp.db.settling import Completion, Failure
from pgflow_mp.worker import inbox
from pgflow_mp.worker.groups import FULL, FULL_BYTES, Group
from pgflow_mp.worker.pulse import PulseWatch
from pgflow_mp.worker.releases import TaskRelease
from pgflow_mp.worker.settle import MOST_UNSETTLED, Settler


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        yield found


@pytest.fixture
def own_dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """A database for one test."""
    with server.database(template) as found:
        yield found


def test_outcomes_of_many_runs_and_kinds_are_recorded_in_one_transaction(own_dsn: str) -> None:
    dsn = own_dsn
    one, tasks = claimed(dsn, "chain", [1, 2, 3])
    two, others = claimed(dsn, "chain", [4, 5])
    with running(dsn, linger=0.2) as settler, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create table commits (xid xid8 default pg_current_xact_id(), n int)")
        conn.execute(
            "create function note() returns trigger language plpgsql as "
            "$$begin insert into public.commits select; return null; end$$"
        )
        conn.execute(
            "create trigger note after update on pgflow.step_tasks for each statement execute function note()"
        )
        settler.settler.add([group(one, tasks[:2])], 2)
        settler.settler.add([group(one, tasks[2:], failed=True, body=b"oops"), group(two, others)], 6)
        batch = settler.next()
        assert [(call.step, call.failures, call.result.accepted) for call in batch.calls].count(
            ("double", False, 2)
        ) == 2
        assert conn.execute("select count(distinct xid) from commits").fetchone() == (1,)
    assert Tasks(dsn, one).statuses("double") == {"completed": 2, "queued": 1}
    assert Tasks(dsn, two).statuses("double") == {"completed": 2}


@pytest.mark.parametrize("size", [1, FULL_BYTES // FULL, FULL_BYTES // FULL + 1, FULL_BYTES // 10])
def test_calls_are_full_but_the_last_and_hold_every_outcome_once(size: int) -> None:
    items = range(2 * FULL + 1 if size <= FULL_BYTES // FULL + 1 else 25)
    body = bytes(size)
    calls = Group("r", "s", WORKER, False, [*items], [1] * len(items), [body] * len(items), msg_ids=[*items])
    found = [cast(Completion, call) for call in calls.calls()]
    assert [index for call in found for index in call.indexes] == [*items]
    assert [index for call in found for index in call.msg_ids] == [*items]
    assert {len(call.indexes) for call in found[:-1]} == {min(FULL, FULL_BYTES // size)}


def test_a_full_batch_does_not_linger_and_flush_ends_the_wait(dsn: str) -> None:
    run_id, tasks = claimed(dsn, "chain", list(range(FULL + 10)))
    with running(dsn, linger=30.0) as settler:
        settler.settler.add([group(run_id, tasks[:FULL])], FULL)
        assert sum(call.result.accepted for call in settler.next().calls) == FULL
        settler.settler.add([group(run_id, tasks[FULL:])], 10)
        with pytest.raises(queue.Empty):
            settler.next(timeout=0.2)
        settler.settler.flush()
        assert sum(call.result.accepted for call in settler.next().calls) == 10


def test_what_may_wait_longer_goes_along_with_what_may_not(dsn: str) -> None:
    run_id, tasks = claimed(dsn, "chain", list(range(4)))
    with running(dsn, linger=0.2) as settler:
        settler.settler.add([group(run_id, tasks[:3])], 3, patience=1000.0)
        with pytest.raises(queue.Empty):
            settler.next(timeout=0.6)
        settler.settler.add([group(run_id, tasks[3:])], 1)
        assert sum(call.result.accepted for call in settler.next().calls) == 4


def test_a_batch_whose_connection_breaks_is_sent_again(own_dsn: str) -> None:
    dsn = own_dsn
    run_id, tasks = claimed(dsn, "chain", [1, 2, 3])
    with running(dsn) as settler, psycopg.connect(dsn, autocommit=True) as conn:
        settler.settler.add([group(run_id, tasks[:1])], 1)
        settler.next()
        # The connection is cut after the rows are changed and before the answer: at commit, in a trigger.
        conn.execute(
            "create function cut() returns trigger language plpgsql as $$begin "
            "perform pg_sleep(1); return null; end$$"
        )
        conn.execute(
            "create constraint trigger cut after update on pgflow.step_tasks deferrable initially deferred "
            "for each row when (new.task_index = 1) execute function cut()"
        )
        settler.settler.add([group(run_id, tasks[1:])], 2)
        eventually(lambda: _sleeping(conn))
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'")
        batch = settler.next()
        assert batch.replayed
        assert sum(call.result.accepted for call in batch.calls) == 2
        assert sum(call.late for call in batch.calls) == 0
    assert Tasks(dsn, run_id).statuses("double") == {"completed": 3}


def test_what_was_recorded_before_is_told_from_what_is_late(dsn: str) -> None:
    run_id, tasks = claimed(dsn, "mischief", [["echo", i] for i in range(4)])
    call = Completion(run_id, "act", WORKER, [0, 1], [1, 1], [b"1", b"2"])
    with adapted(dsn) as conn:
        assert settling.settle(conn, [call])[0].accepted == 2
        again = settling.settle(conn, [call])[0]
        assert (again.accepted, again.rejected) == (0, [0, 1])
        assert settling.already_settled(conn, call, again.rejected) == 2
        failure = Failure(run_id, "act", WORKER, [2], [1], ["oops"], [False])
        assert settling.settle(conn, [failure])[0].accepted == 1
        assert settling.already_settled(conn, failure, [2]) == 1
        engine.release_tasks(conn, "mischief", WORKER, [tasks[3].msg_id])
        late = Completion(run_id, "act", WORKER, [3], [1], [b"1"])
        assert settling.settle(conn, [late])[0].rejected == [3]
        assert settling.already_settled(conn, late, [3]) == 0


def test_a_failure_that_ended_with_its_run_was_recorded_before(dsn: str) -> None:
    """One of a batch ended the run, another of it, to be tried again, is cancelled now with all others."""
    run_id, _ = claimed(dsn, "mischief", [["echo", i] for i in range(3)])
    call = Failure(run_id, "act", WORKER, [0, 1], [1, 1], ["last", "again"], [True, False])
    with adapted(dsn) as conn:
        assert settling.settle(conn, [call])[0].accepted == 2
        assert Tasks(dsn, run_id).statuses("act") == {"failed": 1, "cancelled": 2}
        assert settling.settle(conn, [call])[0].rejected == [0, 1]
        assert settling.already_settled(conn, call, [0, 1]) == 2
        late = Failure(run_id, "act", WORKER, [2], [1], ["late"], [False])
        assert settling.already_settled(conn, late, [2]) == 0


def test_late_results_are_counted_and_change_nothing(dsn: str) -> None:
    run_id, tasks = claimed(dsn, "chain", [1, 2])
    with adapted(dsn) as conn:
        engine.release_tasks(conn, "chain", WORKER, [task.msg_id for task in tasks])
    with running(dsn) as settler:
        settler.settler.add([group(run_id, tasks)], 2)
        (call,) = settler.next().calls
        assert (call.late, call.result.accepted) == (2, 0)
    assert Tasks(dsn, run_id).statuses("double") == {"queued": 2}


def test_an_output_that_the_database_refuses_fails_alone(dsn: str) -> None:
    run_id, tasks = claimed(dsn, "chain", [1, 2, 3, 4])
    good = group(run_id, tasks)
    good.bodies[2] = b'"\\u0000"'
    with running(dsn) as settler:
        settler.settler.add([good], 10)
        batch = settler.next()
        assert sum(call.result.accepted for call in batch.calls) == 4
    tasks_now = Tasks(dsn, run_id)
    assert tasks_now.statuses("double") == {"completed": 3, "failed": 1}
    assert tasks_now.error("double", 2).startswith(
        'The database refuses the output of step "double" task 2: unsupported Unicode escape'
    )
    assert run_row(dsn, run_id).status == "failed"


def test_the_backlog_is_bounded(dsn: str) -> None:
    compiled(dsn, "chain")
    with psycopg.connect(dsn, autocommit=True) as conn:
        run_id, tasks = claimed(dsn, "chain", [1])
        with running(dsn) as settler:
            conn.execute("begin; lock table pgflow.runs")
            settler.settler.add([group(run_id, tasks * (MOST_UNSETTLED // 2))], 0)
            assert not settler.settler.saturated
            settler.settler.add([group(run_id, tasks * (MOST_UNSETTLED // 2 + 1))], 0)
            assert settler.settler.saturated
            conn.execute("rollback")
            eventually(lambda: settler.settler.unsettled == 0, 20)
            assert not settler.settler.saturated


def test_closing_gives_up_in_time_when_there_is_no_database() -> None:
    posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
    settler = Settler("host=/nonexistent port=1", posted.put, linger=0.0)
    settler.start()
    settler.add([Group("r", "s", WORKER, False, [0], [1], [b"1"])], 1)
    assert isinstance(posted.get(timeout=5), inbox.ConnectionState)
    began = time.monotonic()
    assert not settler.close((WORKER,), 1.0)
    assert time.monotonic() - began < 3.0
    assert settler.unsettled == 1
    assert not settler.is_alive()


def test_released_tasks_are_counted_and_visible_at_once(dsn: str) -> None:
    run_id, tasks = claimed(dsn, "chain", [1, 2, 3])
    with running(dsn) as settler:
        settler.settler.release(TaskRelease("chain", WORKER, [task.msg_id for task in tasks]))
        eventually(lambda: settler.settler.released == 3)
    with adapted(dsn) as conn:
        found = engine.claim_tasks(conn, "chain", WORKER, 10_000)
        again = [task for task in found if task.run_id == run_id]
    assert [(task.run_id, task.attempt) for task in again] == [(run_id, 1)] * 3
    assert msgspec.json.decode(again[0].input) == 1


def _sleeping(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute("select count(*) from pg_stat_activity where wait_event = 'PgSleep'").fetchone()
    return row is not None and row[0] > 0


def test_who_waits_for_the_server_does_not_stand_still() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dsn = f"host=127.0.0.1 port={nobody.getsockname()[1]} user=nobody dbname=nothing"
        settler = Settler(dsn, lambda _event: None, linger=0.0)
        settler.start()
        watch = PulseWatch((settler.pulse,), 0.1)
        settler.add([Group("run", "step", "worker", False, [0], [1], [b"1"])], 1)
        eventually(lambda: settler.pulse.rounds > 0)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:  # its pauses are longer than the watch's patience by then
            assert watch.look(time.monotonic()) is None
            time.sleep(0.02)
        settler.close((), 0.0)
