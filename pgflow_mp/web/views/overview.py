"""The first page: how much is queued, running, waiting and failed, and what nobody works on."""

from __future__ import annotations

from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.observe import read_reports
from pgflow_mp.observe.run_reports import RunState
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.sentences import sentences
from pgflow_mp.web.throughput import now_done

_SHOWN = 8
_ACTIVE: Final[tuple[RunState, ...]] = ("queued", "running", "waiting", "paused")
_MOST_FLOWS = 500


def overview(conn: Connection, asked: PageQuery) -> Drawn:
    """What goes on in the whole database, as far as our role may see it."""
    flows = read_reports.read_flows(conn, _MOST_FLOWS)
    active = read_reports.read_runs(conn, _SHOWN, states=_ACTIVE)
    recent = read_reports.read_runs(
        conn, _SHOWN, states=("completed", "completed_with_failures", "failed", "cancelled")
    )
    workers = read_reports.read_workers(conn)
    waits = [flow.next_retry for flow in flows if flow.next_retry is not None]
    oldest = [flow.oldest_started_at for flow in flows if flow.oldest_started_at is not None]
    values = {
        "queued": sum(flow.queued_runs for flow in flows),
        "running": sum(flow.running_runs for flow in flows),
        "running_items": sum(flow.running_items for flow in flows),
        "waiting": sum(flow.waiting_runs for flow in flows),
        "waiting_items": sum(flow.waiting_items for flow in flows),
        "next_retry": min(waits, default=None),
        "failed": sum(flow.failed_day for flow in flows),
        "completed": sum(flow.completed_day for flow in flows),
        "oldest": min(oldest, default=None),
        "throughput": now_done("", {run.run_id: (run.done, run.seconds) for run in active}),
        "active": active,
        "recent": recent,
        "workers": workers,
        "sentences": sentences(flows, workers),
        "flows": flows,
    }
    parts = {"now": "parts/overview.html"}
    return Drawn("overview.html", parts, values)
