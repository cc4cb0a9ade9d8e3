"""From the rows of a worker, and what it told of itself, to what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from pgflow_mp.db.reads.lists import WorkerEntry
from pgflow_mp.db.reads.recorded import LaneRow, ProcessRow
from pgflow_mp.observe.worker_reports import LaneReport, WorkerCondition, WorkerInfo


def worker_info(entries: Sequence[WorkerEntry], process: ProcessRow | None) -> WorkerInfo:
    """Of what one process registered; ``process`` is None where it told nothing of itself."""
    alive = [entry for entry in entries if entry.is_alive]
    state: WorkerCondition = "running" if process is not None and process.busy_lanes else "idle"
    if not alive:
        stopped = all(entry.stopped_at is not None and entry.died_at is None for entry in entries)
        state = "stopped" if stopped else "dead"
    elif any(entry.is_deprecated for entry in alive):
        state = "draining"
    ends = [entry.stopped_at for entry in entries if entry.stopped_at is not None]
    info = WorkerInfo(
        name=entries[0].name,
        state=state,
        worker_ids=[entry.worker_id for entry in entries],
        flows=sorted({entry.flow_slug for entry in entries if entry.flow_slug is not None}),
        queues=sorted({entry.queue_name for entry in entries}),
        started_at=min(entry.started_at for entry in entries),
        last_seen_at=max(entry.last_heartbeat_at for entry in entries),
        stopped_at=max(ends) if ends and not alive else None,
        version=entries[0].version,
    )
    if process is None:
        return info
    return msgspec.structs.replace(
        info,
        started_at=process.started_at,
        version=process.version,
        host=process.host,
        pid=process.pid,
        executor=process.executor,
        labels=process.labels,
        lane_count=process.lanes,
        told_at=process.state_at,
        busy_lanes=process.busy_lanes,
        utilisation=process.utilisation,
        claimed=process.claimed,
        unsettled=process.unsettled,
        cpu=process.cpu,
        rss=process.rss,
        lanes=[_lane(lane, info.last_seen_at) for lane in process.lane_states] if alive else [],
    )


def _lane(lane: LaneRow, now: datetime) -> LaneReport:
    return LaneReport(
        lane=lane.lane,
        state="idle" if lane.step is None else "running",
        pid=lane.pid or None,
        run_id=lane.run,
        flow_slug=lane.flow,
        step_slug=lane.step,
        index=lane.index,
        attempt=lane.attempt,
        seconds=None if lane.since is None else max(0.0, (now - lane.since).total_seconds()),
        cpu=lane.cpu,
        rss=lane.rss,
    )
