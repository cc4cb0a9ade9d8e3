"""Claiming tasks, so that one whose input cannot be had costs neither the claim nor the worker.

The server cannot build an input that passes the limits of jsonb (256 MB), of a text (1 GB) or of its memory;
then it says so instead of answering the claim. The same tasks are claimed without inputs, and these asked for
one by one; and so are others after an answer that there was no memory for here: what that one claimed is
unknown. Of outputs of parents that are more than a claim is to hold only the names come along: the process
that runs the task reads them itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import msgspec
import psycopg

from pgflow_mp.db import connection, engine, item_ranges
from pgflow_mp.db.engine import ClaimedTask, Connection, OwnRun
from pgflow_mp.db.item_ranges import ClaimedWork

_AT_ONCE: Final = 100  # tasks whose inputs are asked for one by one

# Classes of SQLSTATE that say nothing about one task: they concern the connection, the transaction, rights,
# the schema, the configuration, or the server as a whole.
_GENERAL: Final = {
    *("08", "0A", "0B", "0L", "0P", "25", "26", "28", "2D", "34", "3B", "3D", "3F"),
    *("40", "42", "53", "55", "57", "58", "72", "F0", "HV"),
}


class Refused(NamedTuple):
    """A task that this worker holds and that has no input, and why: its step, index and size are named."""

    task: ClaimedTask
    text: str


def found_no_room(error: BaseException) -> bool:
    """Whether there was no memory here for an answer: Python says so, or libpq, without a SQLSTATE."""
    if isinstance(error, psycopg.Error):
        return error.sqlstate is None and "out of memory" in str(error)
    return isinstance(error, MemoryError)


def concerns_data(error: BaseException) -> bool:
    """Whether the error is about the values at hand, so that other values would have gone through.

    Such as a limit that they pass (54), text that the database cannot store (22), what a constraint or a
    trigger refuses (23, P0), or a corrupt page (XX). Memory is short (53200) for large values first of all.
    """
    if found_no_room(error):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)  # psycopg's own, such as a NUL in a text
    return error.sqlstate == "53200" or error.sqlstate[:2] not in _GENERAL


def is_undone(error: BaseException) -> bool:
    """Whether a statement that failed so has certainly changed nothing: the server itself refused it.

    Of an answer that could not be read it is unknown what it was about.
    """
    refused = isinstance(error, psycopg.Error) and error.sqlstate is not None
    return refused and not connection.is_connection_lost(error)


def claim(
    conn: Connection,
    flow_slug: str,
    worker_id: str,
    qty: int,
    lease: int | None = None,
    *,
    items: int = 0,
    known: Sequence[int] = (),
    sparing: bool = False,
    but_steps: Collection[str] = (),
    usable: int | None = None,
    own: OwnRun | None = None,
    early: bool = False,
) -> ClaimedWork:
    """Claim work as ``item_ranges.claim_work`` does; where an input cannot be had, tasks have none.

    ``sparing``: tasks have none anyhow, and where there are any, no items are claimed. What is raised may
    have claimed something, unless it ``is_undone``.
    """

    def without_input() -> list[ClaimedTask]:
        few = min(qty, _AT_ONCE)
        return engine.claim_tasks(conn, flow_slug, worker_id, few, lease, with_input=False, own=own)

    if sparing:
        tasks = without_input()
        if tasks or not items:
            return ClaimedWork(tasks, [], [])
        qty = 0
    try:
        work = item_ranges.claim_work(
            conn, flow_slug, worker_id, qty, items, known, lease, but_steps, usable, own, early=early
        )
    except psycopg.errors.ForeignKeyViolation:  # the worker's own row is missing
        raise
    except psycopg.Error as error:
        if conn.broken or not concerns_data(error) or not is_undone(error):
            raise
        tasks = without_input()
        if not tasks:  # it is about something else, such as a page
            raise
        work = ClaimedWork(tasks, [], [])
    return work


def read_inputs(conn: Connection, work: ClaimedWork) -> tuple[ClaimedWork, list[Refused]]:
    """Give tasks that were claimed without their inputs these, and tell those apart that have none."""
    if all(type(task.input) is bytes for task in work.tasks):
        return work, []
    found = [task if type(task.input) is bytes else _with_input(conn, task) for task in work.tasks]
    refused = [task for task in found if isinstance(task, Refused)]
    return work._replace(tasks=[task for task in found if not isinstance(task, Refused)]), refused


def _with_input(conn: Connection, task: ClaimedTask) -> ClaimedTask | Refused:
    if task.deaths is not None:  # it is not to be run
        return task._replace(input=b"")
    name = f'step "{task.step_slug}" task {task.task_index}'
    try:
        row = conn.execute(
            "select input, flow_input, paged from pgflow.paged_input(%s::uuid, %s, %s::int)",
            task[:3],
            binary=True,
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege:  # the role's rights are older than this function
        row = None
    except (psycopg.Error, MemoryError) as error:
        if conn.broken or not concerns_data(error):
            raise
        said = "not enough memory" if isinstance(error, MemoryError) else str(error).partition("\n")[0]
        return Refused(task, f"{name}: its input cannot be read: {said}")
    if row is not None and row[0] is not None:
        paged = None if row[2] is None else msgspec.json.decode(row[2], type=dict[str, int | None])
        return task._replace(input=row[0], flow_input=row[1], paged=paged)
    return Refused(task, f"{name}: its input is too large for one JSON value in PostgreSQL")
