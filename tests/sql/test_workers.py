"""Worker registry: ``track_worker_function``, ``mark_worker_stopped`` (contract section 15)."""

from __future__ import annotations

import uuid

import pytest

from .helpers import Db, setup, worker


@pytest.mark.parametrize("name", ["my_worker", "my-worker", "host:123"])
def test_a_function_is_tracked(plain_db: Db, name: str) -> None:
    plain_db.do("select pgflow.track_worker_function(%s)", name)
    row = plain_db.row("select *, debounce::text as pause from pgflow.worker_functions")
    assert (row.function_name, row.enabled, row.pause, row.last_invoked_at) == (name, True, "00:00:06", None)


def test_tracking_again_only_refreshes_the_time_of_change(plain_db: Db) -> None:
    plain_db.do("select pgflow.track_worker_function('w')")
    plain_db.do(
        "update pgflow.worker_functions set enabled = false, debounce = '1 minute', updated_at ="
        " now() - interval '1 h',"
        " created_at = now() - interval '2 h', last_invoked_at = now() - interval '3 h'"
    )
    before = plain_db.row("select * from pgflow.worker_functions")
    plain_db.do("select pgflow.track_worker_function(function_name => 'w')")
    after = plain_db.row("select * from pgflow.worker_functions")
    assert after.updated_at > before.updated_at
    after.updated_at = before.updated_at
    assert after == before


def test_the_time_is_the_statement_s(plain_db: Db) -> None:
    plain_db.do("select pg_sleep(0.05)")
    plain_db.do("select pgflow.track_worker_function('w')")
    assert plain_db.value("select updated_at > now() from pgflow.worker_functions")


def test_a_stopped_worker_is_marked_with_the_statement_s_time(plain_db: Db) -> None:
    setup(plain_db, "one")
    one, other = worker(plain_db, "one"), worker(plain_db, "one", uuid.uuid4())
    plain_db.do("select pg_sleep(0.02)")
    plain_db.do("select pgflow.mark_worker_stopped(worker_id => %s)", one)
    assert plain_db.value("select stopped_at > now() from pgflow.workers where worker_id = %s", one)
    assert plain_db.value("select stopped_at is null from pgflow.workers where worker_id = %s", other)


def test_an_unknown_worker_is_no_error(plain_db: Db) -> None:
    plain_db.do("select pgflow.mark_worker_stopped(gen_random_uuid())")


def test_a_worker_row_needs_only_id_queue_and_function(plain_db: Db) -> None:
    plain_db.do(
        "insert into pgflow.workers (worker_id, queue_name, function_name, last_heartbeat_at)"
        " values (gen_random_uuid(), 'q', 'f', now() - interval '1 day')"
    )
    row = plain_db.row("select deprecated_at, stopped_at, started_at = now() as fresh from pgflow.workers")
    assert (row.deprecated_at, row.stopped_at, row.fresh) == (None, None, True)
