"""``set_vt_batch`` and the ``poll_for_tasks`` stub (contract section 13)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg.errors import Diagnostic

from .helpers import Db, flow, setup, start


@pytest.fixture
def queue(plain_db: Db) -> Db:
    flow(plain_db, "q1")
    plain_db.do("select pgmq.send_batch('q1', array['{\"n\": 1}', '{\"n\": 2}', '{\"n\": 3}']::jsonb[])")
    return plain_db


def test_each_message_gets_its_own_offset(queue: Db) -> None:
    rows = queue.rows(
        "select msg_id, extract(epoch from vt - clock_timestamp())::float8 as left"
        " from pgflow.set_vt_batch('q1', array[3, 1], array[100, 10]) order by msg_id"
    )
    assert [r.msg_id for r in rows] == [1, 3]
    assert 8.5 < rows[0].left <= 10
    assert 98.5 < rows[1].left <= 100
    assert queue.value("select vt <= clock_timestamp() from pgmq.q_q1 where msg_id = 2")


def test_it_returns_the_updated_rows_with_the_queue_s_columns(queue: Db) -> None:
    queue.do("update pgmq.q_q1 set read_ct = 4, headers = '{\"h\": 1}' where msg_id = 2")
    row = queue.row("select * from pgflow.set_vt_batch('q1', array[2]::bigint[], array[30])")
    columns = "msg_id, read_ct, enqueued_at, vt, message, headers"
    stored = queue.row(f"select {columns} from pgmq.q_q1 where msg_id = 2")
    assert row == stored
    assert (row.read_ct, row.headers, row.message) == (4, {"h": 1}, {"n": 2})


def test_it_is_called_by_name(queue: Db) -> None:
    assert queue.rows(
        "select * from pgflow.set_vt_batch(queue_name => 'q1', msg_ids => array[1], vt_offsets => array[1])"
    )


@pytest.mark.parametrize(
    "arrays",
    [
        "null, null",
        "null, array[1]",
        "array[1]::bigint[], null",
        "'{}', '{}'",
        "'{}', array[1]",
        "array[1]::bigint[], '{}'",
    ],
)
def test_null_or_empty_arrays_give_no_rows(queue: Db, arrays: str) -> None:
    assert queue.rows(f"select * from pgflow.set_vt_batch('q1', {arrays})") == []


@pytest.mark.parametrize("ids", [[99], [-1, 2**60]])
def test_unknown_ids_give_no_rows(queue: Db, ids: list[int]) -> None:
    rows = queue.rows("select * from pgflow.set_vt_batch('q1', %s::bigint[], %s::int[])", ids, [5] * len(ids))
    assert rows == []


def test_known_and_unknown_ids_may_be_mixed(queue: Db) -> None:
    rows = queue.rows("select msg_id from pgflow.set_vt_batch('q1', array[99, 2, 77], array[1, 2, 3])")
    assert [r.msg_id for r in rows] == [2]


@pytest.mark.parametrize(
    ("ids", "offsets", "text"),
    [
        ("array[1, 2]", "array[1]", "msg_ids length (2) must equal vt_offsets length (1)"),
        ("array[1]", "array[1, 2, 3]", "msg_ids length (1) must equal vt_offsets length (3)"),
    ],
)
def test_lengths_must_match(queue: Db, ids: str, offsets: str, text: str) -> None:
    refusal = queue.refused(f"select * from pgflow.set_vt_batch('q1', {ids}, {offsets})")
    assert (refusal.sqlstate, refusal.message) == ("P0001", text)


@pytest.mark.parametrize(
    ("name", "table"),
    [("nonexistent_queue", "q_nonexistent_queue"), ("Nonexistent_Queue", "q_nonexistent_queue")],
)
def test_an_unknown_queue_is_an_undefined_table(plain_db: Db, name: str, table: str) -> None:
    refusal = plain_db.refused("select * from pgflow.set_vt_batch(%s, array[1], array[1])", name)
    assert (refusal.sqlstate, refusal.message) == ("42P01", f'relation "pgmq.{table}" does not exist')


@pytest.mark.parametrize("name", ["q1; drop table pgmq.q_q1", "q1'--", "q1$"])
def test_a_queue_name_cannot_inject(queue: Db, name: str) -> None:
    queue.refused("select * from pgflow.set_vt_batch(%s, array[1], array[1])", name)
    assert queue.value("select count(*) from pgmq.q_q1") == 3


@pytest.mark.parametrize("name", ['q1"', "q 1", "q1\nx"])
def test_a_queue_name_with_odd_characters_is_quoted(queue: Db, name: str) -> None:
    refusal = queue.refused("select * from pgflow.set_vt_batch(%s, array[1], array[1])", name)
    assert refusal.sqlstate == "42P01"


def test_a_mixed_case_queue_is_found(plain_db: Db) -> None:
    flow(plain_db, "Mixed")
    plain_db.do("select pgmq.send('Mixed', '{}'::jsonb)")
    assert len(plain_db.rows("select * from pgflow.set_vt_batch('Mixed', array[1], array[1])")) == 1


@pytest.mark.parametrize("offset", [0, -10])
def test_zero_and_negative_offsets_make_visible_at_once(queue: Db, offset: int) -> None:
    queue.do("update pgmq.q_q1 set vt = vt + interval '1 hour'")
    queue.do("select pgflow.set_vt_batch('q1', array[2], array[%s]::int[])", offset)
    assert queue.column("select msg_id from pgmq.read('q1', 1, 10)") == [2]


def test_the_offset_counts_from_the_statement_and_not_from_the_transaction(queue: Db) -> None:
    queue.do("select pg_sleep(0.3)")
    call = "pgflow.set_vt_batch('q1', array[1], array[10])"
    assert queue.value(f"select vt - now() >= interval '10.3 seconds' from {call}") is True


def test_the_old_poll_says_that_it_is_deprecated_and_returns_nothing(db: Db) -> None:
    start(db, setup(db, "one"))
    db.do("set local client_min_messages = notice")
    notices: list[str] = []
    handler: Callable[[Diagnostic], None] = lambda n: notices.append(n.message_primary or "")  # noqa: E731
    db.conn.add_notice_handler(handler)
    assert db.rows("select * from pgflow.poll_for_tasks('one', 1, 1)") == []
    assert db.rows("select * from pgflow.poll_for_tasks(queue_name => 'one', vt => 1, qty => 1)") == []
    db.conn.remove_notice_handler(handler)
    assert any("deprecated" in n.lower() for n in notices)
    assert db.value("select read_ct from pgmq.q_one") == 0
