"""From what workers have told of a run to what is told of it: a connection in, structs out."""

from __future__ import annotations

from math import inf
from typing import Final
from uuid import UUID

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import recorded
from pgflow_mp.observe.work_reports import SlowItem, SpanReport, StepTimesReport
from pgflow_mp.time_buckets import quantile

SLOWEST: Final = 10
"""Items of a step that are named, unless told otherwise."""


def read_step_times(conn: Connection, run_id: str | UUID, *, slowest: int = SLOWEST) -> list[StepTimesReport]:
    """Of the steps of a run, in their order, of which any attempt has ended; each with its slowest items."""
    reports = []
    for row in recorded.item_times(conn, run_id):
        slow = recorded.slowest_items(conn, run_id, row.step_slug, max(1, slowest))
        longest = slow[0].seconds if slow else inf
        reports.append(
            StepTimesReport(
                step_slug=row.step_slug,
                workers=row.processes,
                attempts=row.items,
                failed=row.failed,
                seconds=row.seconds,
                mean=row.seconds / max(1, row.items),
                p50=min(longest, quantile(row.counts, 0.5) or 0.0),
                p90=min(longest, quantile(row.counts, 0.9) or 0.0),
                p99=min(longest, quantile(row.counts, 0.99) or 0.0),
                counts=row.counts,
                slowest=[_slow(item) for item in slow[:slowest]],
                first_at=row.first_at,
                last_at=row.last_at,
            )
        )
    return reports


def _slow(item: recorded.SlowItemRow) -> SlowItem:
    return SlowItem(step_slug=item.step_slug, index=item.item_index, seconds=item.seconds)


def read_spans(conn: Connection, run_id: str | UUID, limit: int = 20_000) -> list[SpanReport]:
    """What lanes did of a run, in the order of beginnings: at most some 4,000 of each worker."""
    return [
        SpanReport(
            worker=f"{row.host}:{row.pid}" if row.host is not None else row.process_id[:8],
            lane=row.lane,
            step_slug=row.step_slug,
            first_index=row.first_index,
            items=row.items,
            failed=row.failed,
            outcome=row.outcome,
            seconds=row.seconds,
            started_at=row.started_at,
            ended_at=row.ended_at,
        )
        for row in recorded.run_spans(conn, run_id, limit)
    ]
