"""Reports of runs, steps, items, workers and flows, read from the database: a connection in, structs out.

Lists come in pages, newest first; the next page begins behind what ``mark_of`` says of the last one. A
connection is in autocommit mode and passed through ``wire.adapt``, as all that ``db`` opens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Unpack
from uuid import UUID

from pgflow_mp.db import engine, pausing
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists, recorded, worked
from pgflow_mp.db.reads.lists import Mark, RunEntry, WorkerEntry
from pgflow_mp.observe.lacking import explained
from pgflow_mp.observe.report_making import item_report, run_details
from pgflow_mp.observe.run_reports import OPEN_STATES, ItemReport, RunDetails, RunReport, RunState, Sought
from pgflow_mp.observe.worker_infos import worker_info
from pgflow_mp.observe.worker_reports import FlowReport, WorkerInfo

PAGE: Final = 50
SOUGHT: Final = 200
"""Runs that are read at once where those of some states are wanted."""


def read_runs(
    conn: Connection, limit: int = PAGE, *, before: Mark | None = None, **sought: Unpack[Sought]
) -> list[RunReport]:
    """``limit`` of the runs that are meant, newest first, behind ``before``."""
    found: list[RunReport] = []
    pages = pages_of_runs(conn, limit, before, **sought)
    while len(found) < limit and (page := next(pages, None)) is not None:
        found += page[0]
    return found[:limit]


def pages_of_runs(
    conn: Connection,
    size: int,
    before: Mark | None,
    *,
    flow: str | None = None,
    states: Collection[RunState] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tags: Sequence[str] = (),
    key: str | None = None,
) -> Iterator[tuple[list[RunReport], Mark | None]]:
    """Of ``size`` runs after the other those that are meant, and behind which to go on, None at the end."""
    statuses = None
    if states is not None:
        statuses = sorted({"started" if state in OPEN_STATES else state for state in states})
    some = set(states or ()).intersection(OPEN_STATES)  # which of them a run is in, only its items tell
    if some and len(some) < len(OPEN_STATES):
        size = SOUGHT
    while True:
        entries = lists.list_runs(
            conn,
            size,
            flow=flow,
            statuses=statuses,
            since=since,
            until=until,
            tags=tags,
            key=key,
            before=before,
        )
        found = [each for each in _reports(conn, entries) if states is None or each.state in states]
        before = (entries[-1].started_at, entries[-1].run_id) if len(entries) >= size else None
        yield found, before
        if before is None:
            return


def mark_of(run: RunReport) -> Mark:
    """Where the page behind this run begins."""
    return run.started_at, run.run_id


def read_run(conn: Connection, run_id: str | UUID) -> RunDetails | None:
    """The run with its steps; None for an unknown one, or one of a flow that our role may not use."""
    entry = lists.one_run(conn, run_id)
    if entry is None:
        return None
    steps = lists.list_steps(conn, [entry.run_id])[entry.run_id]
    run = run_details(entry, steps, worked.worker_spans(conn, entry.started_at), _now(entry))
    return explained(conn, [run])[0]


def read_items(
    conn: Connection,
    run_id: str | UUID,
    step: str,
    limit: int = PAGE,
    *,
    start: int = 0,
    statuses: Sequence[str] | None = None,
    chars: int = 200,
) -> list[ItemReport]:
    """``limit`` items of a step from index ``start`` on; with ``statuses`` (of pgflow.items) only those.

    Inputs and outputs are shortened to so many ``chars``. Nothing of a step that has not started.
    """
    entries = lists.list_items(conn, run_id, step, limit, start=start, statuses=statuses, chars=chars)
    if not entries:
        return []
    steps = engine.run_progress(conn, run_id)
    failed_step = any(each.step_slug == step and each.status in ("failed", "skipped") for each in steps)
    return [item_report(each, failed_step) for each in entries]


def read_workers(conn: Connection, *, alive_only: bool = True, limit: int = 1000) -> list[WorkerInfo]:
    """Workers, those with the last sign of life first; at most so many rows that they registered are read."""
    processes: dict[tuple[str, str], list[WorkerEntry]] = {}
    registered = lists.list_workers(conn, limit, alive_only=alive_only)
    told = recorded.worker_processes(conn, [entry.worker_id for entry in registered]) if registered else {}
    for entry in registered:
        process = told.get(entry.worker_id)
        key = (entry.name, "" if ":" in entry.name else entry.worker_id)  # the usual name is a process's own
        processes.setdefault(key if process is None else ("", process.process_id), []).append(entry)
    return [worker_info(entries, told.get(entries[0].worker_id)) for entries in processes.values()]


def read_flows(conn: Connection, limit: int = 200, *, after: str = "") -> list[FlowReport]:
    """``limit`` flows by their slugs, behind one of them."""
    entries = lists.list_flows(conn, limit, after=after)
    if not entries:
        return []
    day_ago = datetime.now(entries[0].created_at.tzinfo) - timedelta(days=1)
    pauses = pausing.list_pauses(conn) if any(entry.is_paused for entry in entries) else []
    until = {pause.flow_slug: pause.until for pause in pauses if pause.run_id is None}
    activity = lists.flow_activity(conn, [entry.flow_slug for entry in entries], day_ago)
    reports = []
    for entry in entries:
        now = activity[entry.flow_slug]
        reports.append(
            FlowReport(
                flow_slug=entry.flow_slug,
                steps=entry.steps,
                queue_mode=entry.queue_mode,
                max_attempts=entry.max_attempts,
                base_delay=entry.base_delay,
                timeout=entry.timeout,
                created_at=entry.created_at,
                active_runs=entry.active,
                queued_runs=max(0, entry.active - now.running_runs - now.waiting_runs),
                running_runs=now.running_runs,
                waiting_runs=now.waiting_runs,
                running_items=now.running_items,
                waiting_items=now.waiting_items,
                next_retry=now.next_in,
                completed_day=now.completed_since,
                failed_day=now.failed_since,
                oldest_started_at=entry.oldest_started_at,
                last_started_at=entry.last_started_at,
                workers=entry.workers,
                unserved=entry.unserved,
                paused=entry.is_paused,
                paused_until=until.get(entry.flow_slug),
            )
        )
    return explained(conn, reports)


def read_flow(conn: Connection, slug: str) -> FlowReport | None:
    """One flow; None for an unknown one, or one that our role may not use."""
    if not slug:
        return None
    before = slug[:-1] + chr(ord(slug[-1]) - 1) + "\x7f"  # by bytes, no slug lies between this and the slug
    return next((flow for flow in read_flows(conn, 1, after=before) if flow.flow_slug == slug), None)


def read_worker(conn: Connection, worker_id: str) -> WorkerInfo | None:
    """The worker that has this id, alive or not; None if it is not among the latest thousand."""
    workers = read_workers(conn, alive_only=False)
    return next((worker for worker in workers if worker_id in worker.worker_ids), None)


def _now(entry: RunEntry) -> datetime:
    return datetime.now(entry.started_at.tzinfo)


def _reports(conn: Connection, entries: list[RunEntry]) -> list[RunReport]:
    """These runs, in their order."""
    if not entries:
        return []
    steps = lists.list_steps(conn, [entry.run_id for entry in entries])
    spans = worked.worker_spans(conn, min(entry.started_at for entry in entries))
    details = (run_details(entry, steps[entry.run_id], spans, _now(entry)) for entry in entries)
    return explained(
        conn,
        [
            RunReport(**{name: getattr(each, name) for name in RunReport.__struct_fields__})
            for each in details
        ],
    )
