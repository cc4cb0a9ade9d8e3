"""What workers have told of themselves and of the time that items took."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from pgflow_mp.db.engine import Connection


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """A lane, and what it runs, if anything that the caller may see. ``cpu`` in CPUs, ``rss`` in bytes."""

    lane: int
    pid: int = 0
    cpu: float | None = None
    rss: int | None = None
    flow: str | None = None
    run: str | None = None
    step: str | None = None
    index: int | None = None
    attempt: int | None = None
    since: datetime | None = None


class ProcessRow(NamedTuple):
    """A worker's process, as it told of itself; what follows ``state_at`` is how it was then.

    ``cpu``: CPUs in use, ``rss``: bytes, both of all its processes; ``utilisation`` (0..1): of its lanes'
    time; ``claimed`` items are held, of ``unsettled`` ones the end is not recorded yet.
    """

    process_id: str
    host: str
    pid: int
    version: str
    executor: str
    lanes: int
    labels: list[str]
    flows: list[str]
    started_at: datetime
    state_at: datetime | None
    busy_lanes: int | None
    utilisation: float | None
    cpu: float | None
    rss: int | None
    claimed: int | None
    unsettled: int | None
    lane_states: list[LaneRow]


class ItemTimesRow(NamedTuple):
    """Attempts of a step's items that were timed, over all workers: ``counts`` by bucket (``time_buckets``).

    One that was retried counts as often, one whose worker died with it does not, one whose result was refused
    as late does. Of those in ranges that took less than 250 microseconds the mean of some neighbours was
    counted (``executors.tallies``).
    """

    step_slug: str
    processes: int
    items: int
    failed: int
    seconds: float
    counts: list[int]
    first_at: datetime
    last_at: datetime


class SlowItemRow(NamedTuple):
    """An item and its slowest attempt, in seconds."""

    step_slug: str
    item_index: int
    seconds: float
    process_id: str


class SpanRow(NamedTuple):
    """What a lane did from ``started_at`` to ``ended_at``: one chunk, or several that followed each other.

    ``items`` attempts from ``first_index`` on, not necessarily next to each other, of which ``failed``
    failed, and handlers ran for ``seconds``. ``outcome``: completed, failed (some did), died (its process).
    """

    process_id: str
    host: str | None
    pid: int | None
    lane: int
    step_slug: str
    first_index: int
    items: int
    failed: int
    outcome: str
    seconds: float
    started_at: datetime
    ended_at: datetime


def worker_processes(conn: Connection, worker_ids: Sequence[str]) -> dict[str, ProcessRow]:
    """By worker id the processes of those that have told of themselves."""
    rows = conn.execute(
        "select worker_id::text, process_id::text, host, pid, version, executor, lanes, labels, flows, "
        "started_at, state_at, busy_lanes, utilisation, cpu, rss, claimed, unsettled, lane_states::text "
        "from pgflow.worker_processes(%s::uuid[])",
        (list(worker_ids),),
    ).fetchall()
    return {row[0]: ProcessRow._make((*row[1:-1], _lanes(row[-1]))) for row in rows}


def _lanes(text: str) -> list[LaneRow]:
    return msgspec.json.decode(text, type=list[LaneRow])


def item_times(conn: Connection, run_id: str | UUID) -> list[ItemTimesRow]:
    """Of the steps of a run, in their order, of which any attempt was timed."""
    rows = conn.execute(
        "select step_slug, processes, items, failed, seconds, counts, first_at, last_at "
        "from pgflow.item_times(%s::uuid)",
        (run_id,),
    ).fetchall()
    return [ItemTimesRow._make(row) for row in rows]


def slowest_items(
    conn: Connection, run_id: str | UUID, step: str | None = None, limit: int = 10
) -> list[SlowItemRow]:
    """Of a run, or of one step of it: at most ten of a step are known of each worker."""
    rows = conn.execute(
        "select step_slug, item_index, seconds, process_id::text from pgflow.slowest_items(%s::uuid, %s, %s)",
        (run_id, step, limit),
    ).fetchall()
    return [SlowItemRow._make(row) for row in rows]


def run_spans(conn: Connection, run_id: str | UUID, limit: int = 20_000) -> list[SpanRow]:
    """What lanes did of a run, in the order of beginnings: at most some 4,000 of each worker."""
    rows = conn.execute(
        "select process_id::text, host, pid, lane, step_slug, first_index, items, failed, outcome, seconds, "
        "started_at, ended_at from pgflow.run_spans(%s::uuid, %s)",
        (run_id, limit),
    ).fetchall()
    return [SpanRow._make(row) for row in rows]
