"""Workers that share a map let go of its locks before their commit is durable, and are told of it only then.

A synchronous standby that never comes is a commit that takes for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import DatabaseServer, room_in_memory
from poolers import pooled
from psycopg.conninfo import make_conninfo
from range_harness import problems, start_in_ranges
from settle_harness import WORKER
from worker_harness import adapted, eventually

from pgflow_mp.db import claiming, connection, early_release, engine, item_ranges, schema, settling
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.item_ranges import ItemLease, RangeCompletion
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.worker import inbox
from pgflow_mp.worker.range_groups import RangeGroup, RangePart
from pgflow_mp.worker.settle import Settler
from pgflow_mp.worker.sharing import Sharing

OTHER = "22222222-2222-4222-8222-222222222222"
SETTINGS = {
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_wal_senders": "1",
    "wal_writer_delay": "10s",  # so that nobody else writes the log
}


class Standby:
    """A server of which the standby may be gone; ``local`` is for those who do not wait for it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.local = make_conninfo(dsn, options="-c synchronous_commit=local")

    def run(self, sql: str) -> Any:
        """The value that a statement answers, if any."""
        with psycopg.connect(self.local, autocommit=True) as conn:
            cursor = conn.execute(sql.encode())
            return None if cursor.description is None else (cursor.fetchone() or (None,))[0]

    def goes(self) -> None:
        """From now on no commit ends."""
        self.run("alter system set synchronous_standby_names = 'nobody'")
        self.run("select pg_reload_conf()")
        eventually(lambda: self.run("show synchronous_standby_names") == "nobody")

    def comes(self) -> None:
        """Commits end."""
        self.run("alter system reset synchronous_standby_names")
        self.run("select pg_reload_conf()")

    def waiting(self) -> str | None:
        """The statement whose commit waits for the standby."""
        found: str | None = self.run("select query from pg_stat_activity where wait_event = 'SyncRep'")
        return found

    def pids(self) -> list[int]:
        """The server's processes."""
        return list(self.run("select array_agg(pid) from pg_stat_activity"))

    def is_locked(self, table: str) -> bool:
        """Whether somebody holds a row of a table."""
        try:
            self.run(f"select 1 from pgflow.{table} for update nowait")
        except psycopg.errors.LockNotAvailable:
            return True
        return False


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[DatabaseServer, str]]:
    """The server, and the name of a database on it to be copied."""
    with EmbeddedServer(room_in_memory(), throwaway=True, settings=SETTINGS) as embedded:
        server = DatabaseServer(embedded.dsn)
        template = server.create_database()
        with psycopg.connect(server.dsn_of(template), autocommit=True) as conn:
            schema.install(conn)
        yield server, template


@pytest.fixture
def standby(servers: tuple[DatabaseServer, str]) -> Iterator[Standby]:
    server, template = servers
    with server.database(template) as dsn:
        found = Standby(dsn)
        try:
            yield found
        finally:
            found.comes()


def claim(conn: Connection, worker_id: str, items: int, *, early: bool = False) -> ItemLease:
    engine.register_worker(conn, worker_id, "chain", "test", 60.0)
    (lease,) = item_ranges.claim_work(conn, "chain", worker_id, 0, items, [], early=early).leases
    return lease


def completion(lease: ItemLease, worker_id: str = WORKER) -> RangeCompletion:
    body = b"[" + b",".join([b"1"] * lease.items) + b"]"
    return RangeCompletion(
        lease.run_id, lease.step_slug, worker_id, [lease.lease_no], [lease.first_index], [lease.items], [body]
    )


class InThread(threading.Thread):
    """What a function returns, later."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.result: Any = None
        self.start()

    def run(self) -> None:
        self.result = self._work()

    def ended(self) -> Any:
        self.join(10)
        assert not self.is_alive()
        return self.result


@pytest.mark.parametrize("early", [True, False])
def test_who_records_lets_others_record_before_it_is_durable_and_hears_of_it_after(
    standby: Standby, early: bool
) -> None:
    run_id = start_in_ranges(standby.local, "chain", list(range(100)))
    with adapted(standby.dsn) as conn, adapted(standby.local) as other:
        mine, others = claim(conn, WORKER, 40), claim(other, OTHER, 40)
        assert early_release.can_release_early(conn)
        standby.goes()
        settling_it = InThread(lambda: settling.settle(conn, [completion(mine)], early=early))
        statement = eventually(standby.waiting)
        assert ("emit_message" in statement) is early
        assert standby.is_locked("runs") is standby.is_locked("step_states") is not early
        if early:
            assert settling.settle(other, [completion(others, OTHER)])[0].accepted == 40
        assert settling_it.is_alive()
        standby.comes()
        assert settling_it.ended() == [engine.Settled(40, [], "started", "started")]
    assert problems(standby.dsn, run_id) == []


@pytest.mark.parametrize("early", [True, False])
def test_who_claims_lets_others_claim_before_it_is_durable_and_hears_of_it_after(
    standby: Standby, early: bool
) -> None:
    start_in_ranges(standby.local, "chain", list(range(100)))
    with adapted(standby.dsn) as conn, adapted(standby.local) as other:
        for worker_id in (WORKER, OTHER):
            engine.register_worker(conn, worker_id, "chain", "test", 60.0)
        assert early_release.can_release_early(conn)
        standby.goes()
        claiming_it = InThread(
            lambda: item_ranges.claim_work(conn, "chain", WORKER, 0, 30, [], early=early).leases
        )
        assert ("emit_message" in eventually(standby.waiting)) is early
        assert standby.is_locked("range_maps") is not early
        if early:
            assert claim(other, OTHER, 30).first_index == 30
        assert claiming_it.is_alive()
        standby.comes()
        assert [lease[2:4] for lease in claiming_it.ended()] == [(0, 30)]


def test_the_end_of_a_map_and_what_follows_from_it_is_durable_before_others_see_it(standby: Standby) -> None:
    start_in_ranges(standby.local, "chain", list(range(10)))
    with adapted(standby.dsn) as conn:
        lease = claim(conn, WORKER, 10)
        assert early_release.can_release_early(conn)
        standby.goes()
        ending = InThread(lambda: settling.settle(conn, [completion(lease)], early=True))
        assert "complete_ranges" in eventually(standby.waiting)
        assert standby.run("select count(*) from pgflow.pages where is_result") == 0
        standby.comes()
        assert ending.ended()[0].step_status == "completed"


def test_a_commit_that_was_waited_for_is_in_the_log_and_one_that_was_not_may_not_be(standby: Standby) -> None:
    start_in_ranges(standby.dsn, "chain", list(range(100)))
    with adapted(standby.dsn) as conn:
        first, second = claim(conn, WORKER, 10), claim(conn, WORKER, 10)
        written = "select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()"
        item_ranges.send(conn, completion(first), early=True)
        assert conn.execute(written).fetchone() == (False,), (
            "it was waited for: the other half proves nothing"
        )
        settling.settle(conn, [completion(second)], early=True)
        assert conn.execute(written).fetchone() == (True,)


@pytest.fixture
def limited(standby: Standby) -> Iterator[bytes]:
    """A statement by which a session becomes a role that may not write messages into the log."""
    standby.run("create role pgflow_test_limited")
    standby.run(
        "do $$ declare f regprocedure; begin"
        " for f in select oid from pg_proc where proname = 'pg_logical_emit_message' loop"
        " execute format('revoke execute on function %s from public', f); end loop; end $$"
    )
    yield b"set role pgflow_test_limited"
    standby.run("drop role pgflow_test_limited")


def test_nothing_is_released_early_where_commits_do_not_wait_or_the_role_may_not(
    standby: Standby, limited: bytes
) -> None:
    def can(set_up: bytes) -> bool:
        with adapted(standby.dsn) as conn:
            conn.execute(set_up)
            return early_release.can_release_early(conn)

    assert can(b"select 1")
    assert not can(b"set synchronous_commit = off")
    assert not can(limited)
    with psycopg.connect(standby.dsn) as plain:
        assert not early_release.can_release_early(plain)


def test_a_connection_that_cannot_wait_for_its_commit_is_lost(standby: Standby, limited: bytes) -> None:
    """So that its owner takes what it did for unknown, and looks for it on the next one."""
    with adapted(standby.dsn) as conn:
        assert early_release.can_release_early(conn)
        conn.execute(limited)
        with pytest.raises(psycopg.OperationalError, match="unknown whether a commit is durable") as caught:
            early_release.wait_for_commits(conn)
        assert conn.broken
        assert connection.is_connection_lost(caught.value)
        assert not claiming.is_undone(caught.value)


@pytest.mark.parametrize("lost", [False, True])
def test_the_settler_tells_of_a_shared_run_s_batch_once_it_is_durable(standby: Standby, lost: bool) -> None:
    """``lost``: its connection, after the commit; on the next one it finds that it is recorded, and waits."""
    start_in_ranges(standby.local, "chain", list(range(100)))
    with adapted(standby.dsn) as conn:
        lease = claim(conn, WORKER, 10)
    posted: list[Any] = []
    asked: list[str] = []

    def is_shared(run: str) -> bool:
        asked.append(run)
        return True

    def batches() -> list[inbox.BatchSettled]:
        return [post for post in posted if isinstance(post, inbox.BatchSettled)]

    settler = Settler(standby.dsn, posted.append, linger=0.0, is_shared=is_shared)
    settler.start()
    try:
        standby.goes()
        part = RangePart(1, lease.lease_no, 0, 10, [b",".join([b"1"] * 10)], 19)
        settler.add([RangeGroup(lease.run_id, "double", WORKER, [part])], 19)
        assert "emit_message" in eventually(standby.waiting)
        assert not standby.is_locked("runs")
        if lost:
            waiting = standby.run("select pid from pg_stat_activity where wait_event = 'SyncRep'")
            standby.run(f"select pg_terminate_backend({waiting})")
            eventually(lambda: standby.waiting() and waiting not in standby.pids())
        assert not batches()
        standby.comes()
        ((batch,),) = eventually(lambda: [batches()] if batches() else None)
    finally:
        standby.comes()
        settler.close((), 5.0)
    assert [(call.result.accepted, call.late) for call in batch.calls] == [(10, 0)]
    assert asked == [lease.run_id] * (1 + lost)


@pytest.mark.slow
def test_through_a_pooler_a_commit_is_waited_for_where_it_is_made(standby: Standby, tmp_path: Path) -> None:
    """A server that crashes forgets what was not waited for, and a pooler's next connection knows nothing."""

    def crash() -> None:
        with psycopg.connect(standby.local, autocommit=True) as conn:
            os.kill(conn.info.backend_pid, signal.SIGKILL)
            eventually(lambda: _is_cut(conn))
        eventually(lambda: _is_up(standby))

    def wait_after_a_crash(conn: Connection) -> None:
        crash()
        early_release.wait_for_commits(conn)

    start_in_ranges(standby.dsn, "chain", list(range(100)))
    with pooled(standby.dsn, tmp_path) as through, adapted(through) as conn:
        lease = claim(conn, WORKER, 10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settling, "wait_for_commits", wait_after_a_crash)
            assert settling.settle(conn, [completion(lease)], early=True)[0].accepted == 10
        crash()
    assert standby.run("select count(*) from pgflow.pages where is_result") == 1


def _is_cut(conn: psycopg.Connection[Any]) -> bool:
    try:
        conn.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


def _is_up(standby: Standby) -> bool:
    try:
        return bool(standby.run("select true"))
    except psycopg.OperationalError:
        return False


def lease_of(run: str, first: int, items: int, step: str = "double") -> ItemLease:
    return ItemLease(run, step, first, items, 1, 60)


def test_a_run_is_shared_where_items_were_passed_over_and_for_a_while_after() -> None:
    sharing = Sharing()
    sharing.note([lease_of("a", 0, 10), lease_of("b", 0, 10)])
    sharing.note([lease_of("a", 10, 10), lease_of("a", 4, 2), lease_of("a", 20, 1)])
    assert not sharing.is_any_shared()
    sharing.note([lease_of("b", 11, 10)])
    assert (sharing.is_shared("a"), sharing.is_shared("b"), sharing.is_any_shared()) == (False, True, True)
    sharing.note([lease_of("c", 1, 1), *(lease_of(f"{number}", 0, 1) for number in range(1000))])
    assert sharing.is_shared("c")
    assert len(sharing._ends) == 256
