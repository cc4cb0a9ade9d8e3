"""Plain background jobs: messages of a queue that is no flow's (contract: worker section 1.2).

A job is a message of pgmq, whoever sent it. What is written here touches the message only where nobody has
read it again meanwhile, which its ``read_ct`` tells.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.wire import Int4Array, Int8Array, RawJsonArray
from pgflow_mp.errors import ConfigError, InputError

_LONGEST: Final = 2**31 - 1  # seconds


class QueuedJob(NamedTuple):
    """A message that was read; ``read_ct`` is its attempt, counted from 1, and ``message`` raw JSON."""

    msg_id: int
    read_ct: int
    enqueued_at: datetime
    vt: datetime
    message: bytes


def check_queue(name: str) -> str:
    """The name as the queue has it. Raises ConfigError."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,47}", name):
        raise ConfigError(
            f"{name!r} cannot be the name of a queue",
            hint="It is made of 1 to 47 letters, digits, underscores and dashes.",
        )
    return name.lower()


def check_delay(delay: float) -> int:
    """Whole seconds. Raises InputError."""
    if not 0 <= delay <= _LONGEST:
        raise InputError(f"delay must be from 0 to {_LONGEST} seconds, not {delay}")
    return int(delay)


def create_queue(conn: Connection, queue: str) -> None:
    """Make the queue, unless it is there. Raises ConfigError for that of a flow."""
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        query = (
            "select flow_slug from pgflow.steps where queue_name = %s "
            "union select flow_slug from pgflow.flows where queue_mode = 'flow' and lower(flow_slug) = %s"
        )
        flow = conn.execute(query, (queue, queue)).fetchone()
        if flow is not None:
            raise ConfigError(
                f'Queue {queue} belongs to flow "{flow[0]}", whose tasks are no jobs',
                hint="Name another queue; runs are started with start_flow().",
            )
    if conn.execute("select 1 from pgmq.meta where queue_name = %s", (queue,)).fetchone() is None:
        with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):  # by another
            conn.execute("select pgmq.create(%s)", (queue,))


def send(conn: Connection, queue: str, payloads: Sequence[bytes], delay: int) -> list[int]:
    """Put jobs into the queue, raw JSON, all or none; the ids of their messages."""
    rows = conn.execute(
        "select pgmq.send_batch(%s, %s::jsonb[], %s::int)", (queue, RawJsonArray(payloads), delay)
    ).fetchall()
    return [row[0] for row in rows]


def read(conn: Connection, queue: str, lease: int, count: int) -> list[QueuedJob]:
    """Up to ``count`` jobs, which nobody else sees for ``lease`` seconds."""
    rows = conn.execute(
        "select msg_id, read_ct, enqueued_at, vt, coalesce(message, 'null') "
        "from pgmq.read(%s, %s::int, %s::int)",
        (queue, lease, count),
        binary=True,
    ).fetchall()
    return [QueuedJob._make(row) for row in rows]


def archive(conn: Connection, queue: str, msg_ids: Sequence[int]) -> int:
    """Jobs are over; how many were there still."""
    rows = conn.execute("select pgmq.archive(%s, %s)", (queue, Int8Array(msg_ids))).fetchall()
    return len(rows)


def archive_unread(conn: Connection, queue: str, jobs: Sequence[QueuedJob]) -> int:
    """The same of those that nobody has read again."""
    text = "select m.msg_id from {table} m, {jobs} order by m.msg_id for update of m"
    still = _of_jobs(conn, queue, text, jobs)
    return archive(conn, queue, [row[0] for row in still]) if still else 0


def delay(conn: Connection, queue: str, jobs: Sequence[QueuedJob], seconds: Sequence[int]) -> int:
    """Let jobs be seen again in so many seconds; how many nobody had read again."""
    text = (
        "update {table} m set vt = clock_timestamp() + make_interval(secs => j.seconds) "
        "from {jobs} returning m.msg_id"
    )
    return len(_of_jobs(conn, queue, text, jobs, seconds))


def release(conn: Connection, queue: str, jobs: Sequence[QueuedJob]) -> int:
    """Hand jobs back that did not run: they are seen at once, and their attempt does not count."""
    text = (
        "update {table} m set vt = clock_timestamp(), read_ct = greatest(m.read_ct - 1, 0) "
        "from {jobs} returning m.msg_id"
    )
    return len(_of_jobs(conn, queue, text, jobs))


def _of_jobs(
    conn: Connection, queue: str, text: str, jobs: Sequence[QueuedJob], seconds: Sequence[int] | None = None
) -> list[tuple[Any, ...]]:
    """Execute a statement about the messages ``m`` of jobs ``j`` that nobody has read again."""
    row = conn.execute("select pgmq.format_table_name(%s, 'q')", (queue,)).fetchone()
    table = sql.Identifier("pgmq", row[0] if row else f"q_{queue}").as_string(conn)
    found = (
        "unnest(%s::int8[], %s::int4[], %s::int4[]) j (msg_id, read_ct, seconds) "
        "where m.msg_id = j.msg_id and m.read_ct = j.read_ct"
    )
    values = (
        Int8Array([job.msg_id for job in jobs]),
        Int4Array([job.read_ct for job in jobs]),
        Int4Array([0] * len(jobs) if seconds is None else seconds),
    )
    return conn.execute(text.format(table=table, jobs=found).encode(), values).fetchall()
