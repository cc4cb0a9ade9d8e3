"""The part of an upgrade that takes long on a large database, done beforehand while work goes on.

``schema.install`` is one transaction, and what it does to a table waits for, and holds up, everybody who uses
it. What would make it long is done here in small transactions, by the same SQL files where there are any:
columns that old functions need not know, rows filled batch by batch, an index built concurrently, constraints
validated under a lock that nobody minds. Where this is interrupted the next upgrade goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, LiteralString, TypeVar

import psycopg

from pgflow_mp.db import adoption, turns
from pgflow_mp.errors import SchemaError

T = TypeVar("T")

LARGE: Final = 64 << 20
"""Bytes of task rows from which on an upgrade works ahead: at less, all of it takes a second."""
_BATCH_PAGES: Final = 1000  # 8 MB of task rows, a few tens of milliseconds
_ATTEMPTS: Final = 20
_LOCK_TIMEOUT: Final = (
    "500ms"  # whoever comes after us waits as long; less than deadlock_timeout: we give way
)
_INDEX: Final = "idx_step_tasks_queue_message"
_LOCK_KEY: Final = 0x7067666C6F77_01  # one at a time works ahead

# Rows that somebody holds are left to the upgrade itself: neither waits for the other.
_FILL: Final[LiteralString] = """
with free as materialized (
  select t.ctid as row_id
  from pgflow.step_tasks t
  where t.ctid >= %(from)s::tid and t.ctid < %(to)s::tid
    and (t.queue_name is null or t.status in ('queued', 'started'))
  for update skip locked
)
update pgflow.step_tasks t
set queue_name = coalesce(t.queue_name, lower(t.flow_slug)),
    status = case
      when t.status not in ('queued', 'started') then t.status
      when exists (
        select 1 from pgflow.step_states ss
        where ss.run_id = t.run_id and ss.step_slug = t.step_slug and ss.status = 'skipped'
      ) then 'skipped'
      when exists (
        select 1 from pgflow.runs r where r.run_id = t.run_id and r.status = 'failed'
      ) then 'cancelled'
      else t.status
    end
where t.ctid = any (array(select f.row_id from free f))
"""


def prepare(
    conn: psycopg.Connection[tuple[Any, ...]],
    before: int,
    run_files: Callable[[int, str], None],
) -> bool:
    """Work ahead of the upgrade from version ``before``, if it is worth it; whether it was.

    ``run_files`` runs the files of a version whose names begin with a prefix. The connection must be in
    autocommit mode and in no transaction; where it is not, the upgrade does everything itself.
    """
    idle = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if not 0 < before < 4 or not conn.autocommit or not idle:
        return False
    if _value(conn, "select pg_relation_size('pgflow.step_tasks')") < LARGE:
        return False

    taken = turns.take(conn, _LOCK_KEY, transaction=False)
    try:
        _work_ahead(conn, run_files)
    finally:
        if taken:
            conn.execute("select pg_advisory_unlock(%s)", (_LOCK_KEY,))
    return True


def _work_ahead(conn: psycopg.Connection[tuple[Any, ...]], run_files: Callable[[int, str], None]) -> None:
    with conn.transaction():
        conn.execute(adoption.SETTINGS)
        run_files(4, "0010")  # what stands in the way is told before anything is changed

    def run(prefix: str) -> None:
        conn.execute(adoption.SETTINGS)
        run_files(4, prefix)

    briefly(conn, lambda: run("0020"))
    pages = _value(conn, "select pg_relation_size('pgflow.step_tasks') / current_setting('block_size')::int")
    for page in range(0, pages, _BATCH_PAGES):
        with conn.transaction():
            conn.execute(adoption.SETTINGS)
            conn.execute(_FILL, {"from": f"({page},0)", "to": f"({page + _BATCH_PAGES},0)"})
    briefly(conn, lambda: run("0035"))
    _build_index(conn)
    if not _value(conn, "select exists (select from pgflow.step_tasks where queue_name is null)"):
        briefly(conn, lambda: run("0040"))
        conn.execute("alter table pgflow.step_tasks validate constraint queue_name_is_valid")
    conn.execute("alter table pgflow.step_tasks validate constraint valid_status")


def briefly(conn: psycopg.Connection[tuple[Any, ...]], work: Callable[[], T]) -> T:
    """What ``work`` returns, done in a transaction that waits for no lock for long; tried again for a while.

    Raises SchemaError where others hold the tables all the time.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with conn.transaction():
                conn.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
                return work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if attempt + 1 == _ATTEMPTS:
                raise SchemaError(
                    f"The tables of pgflow are in use all the time: {str(error).splitlines()[0]}",
                    hint="Nothing was lost. End long transactions (pg_stat_activity) and upgrade again.",
                ) from error
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError("unreachable")


def lock_tables(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Take all tables at once, before any work: what changes them one by one meets others half-way."""
    rows = conn.execute(
        "select format('pgflow.%I', c.relname) from pg_class c "
        "where c.relnamespace = 'pgflow'::regnamespace and c.relkind = 'r' "
        "order by array_position('{flows,runs,step_states,step_tasks}', c.relname::text), c.relname"
    ).fetchall()
    tables = ", ".join(row[0] for row in rows)
    conn.execute(f"lock table {tables} in access exclusive mode".encode())


def _build_index(conn: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The unique index of the tasks' messages; one that was not finished is built anew."""
    valid = conn.execute(
        "select i.indisvalid from pg_index i where i.indexrelid = to_regclass(%s)", (f"pgflow.{_INDEX}",)
    ).fetchone()
    if valid == (False,):
        conn.execute("drop index concurrently pgflow.idx_step_tasks_queue_message")
    conn.execute(
        "create unique index concurrently if not exists idx_step_tasks_queue_message "
        "on pgflow.step_tasks (queue_name, message_id) where message_id is not null"
    )


def _value(conn: psycopg.Connection[tuple[Any, ...]], query: LiteralString) -> Any:
    row = conn.execute(query).fetchone()
    return row[0] if row is not None else None
