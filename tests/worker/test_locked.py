"""Runs whose rows somebody keeps locked in a transaction that does not end: they wait, the others do not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from settle_harness import WORKER, claimed, group, running
from worker_harness import Tasks, eventually, run_row

from pgflow_mp.db.settling import Call, Completion, Failure
from pgflow_mp.worker import inbox, settle
from pgflow_mp.worker.groups import Group
from pgflow_mp.worker.heartbeat import Heartbeat
from pgflow_mp.worker.locked import Locked, as_group, runs_of
from pgflow_mp.worker.releases import TaskRelease

Locking = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def theirs(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Locking]:
    monkeypatch.setattr(settle, "PATIENCE", 0.2)
    with psycopg.connect(dsn) as conn:
        yield conn
        conn.rollback()


def test_a_run_that_somebody_keeps_locked_holds_up_no_other(dsn: str, theirs: Locking) -> None:
    one, tasks = claimed(dsn, "chain", [1, 2, 3, 4])
    two, others = claimed(dsn, "chain", [4, 5])
    theirs.execute("select pgflow.cancel_run(%s)", (one,))
    with running(dsn) as worker:
        worker.settler.add([group(one, tasks[:2]), group(two, others[:1])], 3)
        worker.settler.add([group(one, tasks[2:3], failed=True, permanent=True, body=b"oops")], 4)
        assert one in worker.next(inbox.Said).text
        worker.settler.release(TaskRelease("chain", WORKER, [tasks[3].msg_id]))
        began = time.monotonic()
        worker.settler.add([group(two, others[1:])], 1)
        eventually(lambda: Tasks(dsn, two).statuses("double") == {"completed": 2})
        assert time.monotonic() - began < 3
        assert worker.settler.unsettled == 3
        assert worker.settler.holds(WORKER)
        theirs.rollback()
        eventually(lambda: not worker.settler.busy)
    assert Tasks(dsn, one).statuses("double") == {"completed": 2, "failed": 1, "cancelled": 1}
    assert "failed" in run_row(dsn, one)


def test_the_end_of_a_worker_does_not_wait_for_ever_for_a_locked_run(dsn: str, theirs: Locking) -> None:
    one, tasks = claimed(dsn, "chain", [1, 2])
    theirs.execute("select pgflow.cancel_run(%s)", (one,))
    with running(dsn) as worker:
        worker.settler.add([group(one, tasks[:1])], 1)
        worker.settler.release(TaskRelease("chain", WORKER, [tasks[1].msg_id]))
        assert one in worker.next(inbox.Said).text
        began = time.monotonic()
        assert not worker.settler.close([WORKER], 1.0)
        assert time.monotonic() - began < 2.5
        assert not worker.settler.is_alive()
        assert worker.settler.unsettled == 1


def test_locked_tasks_keep_neither_the_beat_nor_other_leases(dsn: str, theirs: Locking) -> None:
    """Of a worker that serves two flows, a role may use one of them only."""

    class Lease:
        def __init__(self, worker_id: str, ids: list[int]) -> None:
            self.flow, self.worker_id, self.msg_ids, self.seconds = "chain", worker_id, ids, 90.0

    one, tasks = claimed(dsn, "chain", [1])
    leases = [Lease("1" * 32, [1]), Lease(WORKER, [tasks[0].msg_id]), Lease(WORKER, [tasks[0].msg_id])]
    renewed: list[str] = []

    class Held:
        def leases(self, now: float, interval: float) -> tuple[list[Lease], float]:
            return [leases[1], leases[2], leases[0]], 0.1

        def renewed(self, lease: Lease, now: float) -> None:
            renewed.append(lease.worker_id)

        def held_runs(self) -> set[str]:
            return set()

        def held_maps(self) -> set[tuple[str, str]]:
            return set()

    theirs.execute("select pgflow.cancel_run(%s)", (one,))
    beat = Heartbeat(
        dsn,
        lambda _: None,
        interval=0.3,
        worker_ids=lambda: [WORKER],
        held=Held(),  # type: ignore[arg-type]
        register=lambda *_: None,
    )
    beat.start()
    try:
        eventually(lambda: renewed.count("1" * 32) >= 2)
        assert WORKER not in renewed
        assert time.monotonic() - beat.last < 3
        theirs.rollback()
        eventually(lambda: WORKER in renewed)
    finally:
        beat.stop()
        beat.join(10)
        beat.close()


def test_the_pauses_between_two_tries_grow_and_are_forgotten() -> None:
    locked = Locked()
    assert (locked.found("a", 0.0), locked.found("a", 10.0), bool(locked)) == (True, False, True)
    assert (locked.rest("a", 10.0), locked.rest("a", 13.0), locked.rest("b", 10.0)) == (2.0, 0.0, 0.0)
    for _ in range(9):
        locked.found("a", 20.0)
    assert locked.rest("a", 20.0) == 30.0
    locked.freed("a")
    assert not locked
    assert locked.found("a", 0.0)


def test_calls_become_the_groups_again_that_they_were_made_of() -> None:
    calls: list[Call] = [
        Completion("r", "s", WORKER, [1], [2], [b"3"], [6]),
        Failure("r", "s", WORKER, [4], [5], ["é"], [True], [7]),
        Completion("q", "s", WORKER, [1], [2], [b"3"], [8]),
    ]
    assert [as_group(call).calls() for call in calls] == [[call] for call in calls]
    assert as_group(calls[0]) == Group("r", "s", WORKER, False, [1], [2], [b"3"], msg_ids=[6])
    assert runs_of(calls) == [calls[:2], calls[2:]]
