"""One typed function for each SQL function that the worker and the client call.

Connections are psycopg's, in autocommit mode and passed through ``wire.adapt`` once: payloads are raw
JSON in bytes, ids are text. Every function here is one round trip and one transaction.

What an item of a map costs the server, in batches of 500: seven row writes (the queue's row is inserted,
updated in place and moved to the archive; the task's row is inserted and updated twice, in place), 15 WAL
records, 1.6 kB of WAL and 18 to 27 microseconds of CPU. A call costs 0.4 ms besides, counters included: they
are updated once a call. 40 % of the WAL is written when the step is spawned. That each task's row and its
entry in the index name the queue (contract 0.17 section 2.3) is 1.6 % of the WAL and 5 % of the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import psycopg

from pgflow_mp.db import rights
from pgflow_mp.db.wire import Int4Array, Int8Array, RawJson, RawJsonArray

Connection = psycopg.Connection[tuple[Any, ...]]


class ClaimedTask(NamedTuple):
    """A task that this worker holds. ``timeout`` is the step's effective one, in seconds.

    ``deaths``: how many workers died with it; it is to be failed for that, not to be run. None: run it.
    ``paged``: parents whose outputs are too large to be part of the input, see ``pgflow.paged_input``.
    """

    run_id: str
    step_slug: str
    task_index: int
    msg_id: int
    attempt: int
    input: bytes
    flow_input: bytes | None
    timeout: int
    deaths: int | None = None
    paged: dict[str, int | None] | None = None


class OwnRun(NamedTuple):
    """The run that a worker serves, whose work it claims first; ``only``: and no other's."""

    run_id: str
    only: bool = False


class Settled(NamedTuple):
    """What became of a batch: ``rejected`` are task indexes whose result was stale or late."""

    accepted: int
    rejected: list[int]
    step_status: str | None
    run_status: str | None


class Beat(NamedTuple):
    """What a heartbeat tells about one worker id."""

    worker_id: str
    deprecated: bool
    stopped: bool


class Compiled(NamedTuple):
    """Outcome of ``ensure_flow_compiled``: compiled, verified, recompiled or mismatch.

    ``kind`` of a mismatch: "shape", or "routing" where only the queues differ.
    """

    status: str
    differences: list[str]
    kind: str | None


class StepProgress(NamedTuple):
    """One step of a run. Task counts are None while they are not known yet."""

    step_slug: str
    step_type: str
    status: str
    initial_tasks: int | None
    remaining_tasks: int | None
    failed_tasks: int
    error_message: str | None
    skip_reason: str | None
    started_at: datetime | None
    finished_at: datetime | None


class RunRow(NamedTuple):
    """A row of ``pgflow.runs`` without input and output, which ``db.reads`` has for when they are wanted."""

    run_id: str
    flow_slug: str
    status: str
    remaining_steps: int
    started_at: datetime
    completed_at: datetime | None
    failed_at: datetime | None


RUN_COLUMNS: Final = "run_id, flow_slug, status, remaining_steps, started_at, completed_at, failed_at"


_OF_OWN: Final = ", %s::uuid, %s::boolean"


def claim_tasks(
    conn: Connection,
    flow_slug: str,
    worker_id: str,
    qty: int,
    lease: int | None = None,
    *,
    with_input: bool = True,
    own: OwnRun | None = None,
) -> list[ClaimedTask]:
    """Claim up to ``qty`` tasks for ``lease`` seconds (default: the flow's longest timeout + 2).

    Fewer where their inputs hold more than about 16 MB. ``own``: without inputs, those of that run first. Use
    :func:`pgflow_mp.db.claiming.claim` where one task without an input must not cost the others.
    """
    function = "claim_tasks" if with_input else "claim_tasks_without_input"
    rows = conn.execute(
        "select run_id, step_slug, task_index, msg_id, attempt, input, flow_input, timeout, deaths "  # noqa: S608
        f"from pgflow.{function}(%s, %s::uuid, %s::int, %s::int{'' if own is None else _OF_OWN})",
        (flow_slug, worker_id, qty, lease, *(own or ())),
        binary=True,
    ).fetchall()
    return [ClaimedTask(*row) for row in rows]


COMPLETE_TASKS: Final = (
    "select accepted, rejected, step_status, run_status "
    "from pgflow.complete_tasks(%s::uuid, %s, %s, %s, %s::uuid, %s, %s)"
)
FAIL_TASKS: Final = (
    "select accepted, rejected, step_status, run_status "
    "from pgflow.fail_tasks(%s::uuid, %s, %s, %s::text[], %s::uuid, %s, %s::boolean[], %s)"
)


def complete_tasks(
    conn: Connection,
    run_id: str,
    step_slug: str,
    indexes: Sequence[int],
    outputs: Sequence[bytes],
    worker_id: str,
    attempts: Sequence[int],
) -> Settled:
    """Record the outputs of tasks of one step; only those that this worker holds at these attempts."""
    row = conn.execute(
        COMPLETE_TASKS,
        (
            *(run_id, step_slug, Int4Array(indexes), RawJsonArray(outputs)),
            *(worker_id, Int4Array(attempts), Int8Array(())),
        ),
        binary=True,
    ).fetchone()
    return Settled._make(cast("tuple[Any, ...]", row))


def fail_tasks(
    conn: Connection,
    run_id: str,
    step_slug: str,
    indexes: Sequence[int],
    errors: Sequence[str],
    worker_id: str,
    attempts: Sequence[int],
    permanent: Sequence[bool],
) -> Settled:
    """Record failures of tasks of one step: retried with backoff, or failed for good."""
    row = conn.execute(
        FAIL_TASKS,
        (
            run_id,
            step_slug,
            Int4Array(indexes),
            list(errors),
            worker_id,
            Int4Array(attempts),
            list(permanent),
            Int8Array(()),
        ),
        binary=True,
    ).fetchone()
    return Settled._make(cast("tuple[Any, ...]", row))


def release_tasks(conn: Connection, flow_slug: str, worker_id: str, msg_ids: Sequence[int]) -> int:
    """Hand tasks back uncharged and visible at once; the number that were still held."""
    row = conn.execute(
        "select pgflow.release_tasks(%s, %s::uuid, %s)", (flow_slug, worker_id, Int8Array(msg_ids))
    ).fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def extend_tasks(
    conn: Connection, flow_slug: str, worker_id: str, msg_ids: Sequence[int], lease: int
) -> list[int]:
    """Extend leases to ``lease`` seconds from now; the message ids that are no longer held."""
    rows = conn.execute(
        "select pgflow.extend_tasks(%s, %s::uuid, %s, %s::int)",
        (flow_slug, worker_id, Int8Array(msg_ids), lease),
    ).fetchall()
    return [row[0] for row in rows]


def register_worker(
    conn: Connection,
    worker_id: str,
    queue_name: str,
    function_name: str,
    dead_after: float | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write the worker's row. After ``dead_after`` seconds without a heartbeat its tasks are taken over.

    ``labels``: what it has, for steps that require it.
    """
    conn.execute(
        "select pgflow.register_worker(%s::uuid, %s, %s, make_interval(secs => %s::float8), %s::text[])",
        (worker_id, queue_name, function_name, dead_after, [*labels]),
    )


def heartbeat(conn: Connection, worker_ids: Sequence[str]) -> list[Beat]:
    """Refresh the heartbeats of these worker ids."""
    rows = conn.execute(
        "select worker_id, deprecated, stopped from pgflow.heartbeat(%s::uuid[])", (list(worker_ids),)
    ).fetchall()
    return [Beat._make(row) for row in rows]


def stop_workers(conn: Connection, worker_ids: Sequence[str]) -> None:
    """Mark these worker ids as stopped."""
    conn.execute("select pgflow.stop_workers(%s::uuid[])", (list(worker_ids),))


def track_worker_function(conn: Connection, function_name: str) -> None:
    """Register the worker's name as that of a process, which nobody calls (contract worker section 2)."""
    conn.execute("select pgflow.track_worker_function(%s, 'process')", (function_name,))


def ensure_flow_compiled(
    conn: Connection, flow_slug: str, shape: bytes, queue_mode: str = "flow"
) -> Compiled:
    """Create the flow from its shape, or compare it with the stored one (contract sql section 4.6)."""
    row = conn.execute(
        "select r ->> 'status', array(select jsonb_array_elements_text(r -> 'differences')), "
        "r ->> 'mismatchKind' from pgflow.ensure_flow_compiled(%s, %s, %s::text) r",
        (flow_slug, RawJson(shape), queue_mode),
    ).fetchone()
    return Compiled._make(cast("tuple[Any, ...]", row))


def start_flow(
    conn: Connection, flow_slug: str, input: bytes, run_id: str | UUID | None = None, *, priority: int = 0
) -> str:
    """Start a run with this input (raw JSON); its id. Runs of higher priority are claimed first."""
    row = conn.execute(
        "select pgflow.start_run(%s, %s, %s::uuid, %s::int)",
        (flow_slug, RawJson(input), None if run_id is None else str(run_id), priority),
    ).fetchone()
    return cast(str, cast("tuple[Any, ...]", row)[0])


def get_run(conn: Connection, run_id: str | UUID) -> RunRow | None:
    """The run's row, or None."""

    def select(conn: Connection, source: str) -> RunRow | None:
        query = f"select {RUN_COLUMNS} from {source}"  # noqa: S608
        row = conn.execute(query, (str(run_id),), binary=True).fetchone()
        return None if row is None else RunRow._make(row)

    return rights.read(
        conn,
        lambda conn: select(conn, "pgflow.runs where run_id = %s::uuid"),
        lambda conn: select(conn, "pgflow.run_heads(array[%s]::uuid[])"),
    )


def run_status(conn: Connection, run_id: str | UUID) -> str | None:
    """started, completed or failed; None for an unknown run."""

    def select(conn: Connection, source: str) -> str | None:
        row = conn.execute(f"select status from {source}", (str(run_id),)).fetchone()  # noqa: S608
        return None if row is None else cast(str, row[0])

    return rights.read(
        conn,
        lambda conn: select(conn, "pgflow.runs where run_id = %s::uuid"),
        lambda conn: select(conn, "pgflow.run_heads(array[%s]::uuid[])"),
    )


def run_progress(conn: Connection, run_id: str | UUID) -> list[StepProgress]:
    """The run's steps in definition order, with their counters."""
    rows = conn.execute(
        "select step_slug, step_type, status, initial_tasks, remaining_tasks, failed_tasks, error_message, "
        "skip_reason, started_at, finished_at from pgflow.run_progress(%s::uuid)",
        (str(run_id),),
        binary=True,  # times that no DateStyle changes
    ).fetchall()
    return [StepProgress._make(row) for row in rows]


def cancel_run(conn: Connection, run_id: str | UUID, reason: str = "Run cancelled") -> RunRow:
    """End a running run as failed; a finished one is returned as it is."""
    row = conn.execute(
        f"select {RUN_COLUMNS} from pgflow.cancel_run(%s::uuid, %s)",  # noqa: S608
        (str(run_id), reason),
        binary=True,
    ).fetchone()
    return RunRow._make(cast("tuple[Any, ...]", row))


def retry_failed_tasks(conn: Connection, run_id: str | UUID) -> int:
    """Start a failed run again with its unfinished tasks only; how many were queued."""
    row = conn.execute("select pgflow.retry_failed_tasks(%s::uuid)", (str(run_id),)).fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])
