"""Telling the database what a worker is and does (sql/functions/0692_report_worker.sql)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from pgflow_mp.db.engine import Connection


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change of a worker's process. ``age``: seconds since it was started."""

    host: str
    pid: int
    version: str
    executor: str
    lanes: int
    labels: Sequence[str]
    flows: Sequence[str]
    age: float


class LaneFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lane, and what it runs since so many seconds. ``cpu`` in CPUs, ``rss`` in bytes."""

    lane: int
    pid: int = 0
    cpu: float | None = None
    rss: int | None = None
    flow: str | None = None
    run: str | None = None
    step: str | None = None
    index: int | None = None
    attempt: int | None = None
    since: float | None = None


class StateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is. ``cpu``: processors in use; ``rss``: bytes of all its processes."""

    lanes: int
    busy_lanes: int
    utilisation: float
    cpu: float
    rss: int
    claimed: int
    unsettled: int
    lane_states: list[LaneFacts]


class TimeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts of items of a step, the first of them ``age`` seconds ago. ``counts`` by bucket."""

    run: str
    step: str
    items: int
    failed: int
    seconds: float
    counts: list[int]
    indexes: list[int]
    slowest: list[float]
    age: float


class SpanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane ran; ``start`` and ``end`` are seconds ago."""

    run: str
    step: str
    lane: int
    index: int
    items: int
    failed: int
    outcome: str
    seconds: float
    start: float
    end: float


def report_worker(
    conn: Connection,
    process_id: str,
    number: int,
    worker_ids: Sequence[str],
    about: ProcessFacts,
    state: StateFacts | None,
    times: Sequence[TimeFacts],
    spans: Sequence[SpanFacts],
) -> bool:
    """Record one report, each number once. False, and nothing is recorded, while no id is registered."""
    row = conn.execute(
        "select pgflow.report_worker(%s::uuid, %s::bigint, %s::uuid[], %s::jsonb, "
        "%s::jsonb, %s::jsonb, %s::jsonb)",
        (
            process_id,
            number,
            list(worker_ids),
            _json(about),
            None if state is None else _json(state),
            _json(times),
            _json(spans),
        ),
    ).fetchone()
    return cast(bool, cast("tuple[Any, ...]", row)[0])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
