"""Recording many results in one round trip and one transaction.

The calls of a batch are sent together (pipeline mode) and committed together: results of many small
runs cost one commit, not one each.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import psycopg

from pgflow_mp.db import item_ranges
from pgflow_mp.db.early_release import can_release_early, wait_for_commits
from pgflow_mp.db.engine import COMPLETE_TASKS, FAIL_TASKS, Connection, Settled
from pgflow_mp.db.item_ranges import RangeCompletion, RangeFailure
from pgflow_mp.db.wire import Int4Array, Int8Array, RawJsonArray


class Completion(NamedTuple):
    """Outputs (raw JSON) of tasks of one step that ``worker_id`` holds at these attempts."""

    run_id: str
    step_slug: str
    worker_id: str
    indexes: list[int]
    attempts: list[int]
    outputs: list[bytes]
    msg_ids: Sequence[int] = ()
    """Those of the claims: no result is taken from before a retry."""


class Failure(NamedTuple):
    """Errors of tasks of one step; ``permanent`` ones are not retried."""

    run_id: str
    step_slug: str
    worker_id: str
    indexes: list[int]
    attempts: list[int]
    errors: list[str]
    permanent: list[bool]
    msg_ids: Sequence[int] = ()


Call = Completion | Failure | RangeCompletion | RangeFailure


def _is_news(record: logging.LogRecord) -> bool:
    """Not psycopg's word on a pipeline whose connection broke: that is handled, and said, elsewhere."""
    return "error ignored terminating" not in str(record.msg)


logging.getLogger("psycopg").addFilter(_is_news)


def settle(conn: Connection, calls: Sequence[Call], *, early: bool = False) -> list[Settled]:
    """Record all calls or none; the results in their order.

    ``early``: others wait for the locks, which one call alone releases before it is durable (early_release).
    """
    if early and len(calls) == 1 and isinstance(calls[0], RangeCompletion) and can_release_early(conn):
        result = _result(item_ranges.send(conn, calls[0], early=True))
        wait_for_commits(conn)
        return [result]
    if len(calls) == 1:
        return [_result(_send(conn, calls[0]))]
    with conn.pipeline(), conn.transaction():
        cursors = [_send(conn, call) for call in calls]
    return [_result(cursor) for cursor in cursors]


def already_settled(conn: Connection, call: Completion | Failure, indexes: Sequence[int]) -> int:
    """How many of these tasks, refused now, were recorded before from the same attempts of this worker.

    A role without rights on the tables cannot look: then all of them are taken to be.
    """
    attempts = dict(zip(call.indexes, call.attempts, strict=True))
    try:
        rows = conn.execute(
            "select task_index, status, attempts_count, last_worker_id, error_message from pgflow.step_tasks "
            "where run_id = %s::uuid and step_slug = %s and task_index = any (%s)",
            (call.run_id, call.step_slug, Int4Array(indexes)),
        ).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return len(indexes)
    errors = {} if isinstance(call, Completion) else dict(zip(call.indexes, call.errors, strict=True))
    count = 0
    for index, status, attempt, worker_id, error in rows:
        mine = worker_id == call.worker_id and attempt == attempts[index]
        if isinstance(call, Completion):
            count += status == "completed" and mine
        # A recorded failure is failed, queued for a retry, on its next attempt by now, or ended with its step
        # or run while it was queued.
        elif status in ("cancelled", "skipped"):
            count += mine and error == errors[index]
        else:
            count += (status in ("failed", "queued") and mine) or attempt > attempts[index]
    return count


def _send(conn: Connection, call: Call) -> psycopg.Cursor[tuple[Any, ...]]:
    if isinstance(call, RangeCompletion | RangeFailure):
        return item_ranges.send(conn, call)
    if isinstance(call, Completion):
        return conn.execute(
            COMPLETE_TASKS,
            (
                call.run_id,
                call.step_slug,
                Int4Array(call.indexes),
                RawJsonArray(call.outputs),
                call.worker_id,
                Int4Array(call.attempts),
                Int8Array(call.msg_ids),
            ),
            binary=True,
        )
    return conn.execute(
        FAIL_TASKS,
        (
            call.run_id,
            call.step_slug,
            Int4Array(call.indexes),
            call.errors,
            call.worker_id,
            Int4Array(call.attempts),
            call.permanent,
            Int8Array(call.msg_ids),
        ),
        binary=True,
    )


def _result(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Settled:
    return Settled._make(cast("tuple[Any, ...]", cursor.fetchone())[: len(Settled._fields)])
