"""A run: its steps with their states, what failed, how long items took, what lanes did."""

from __future__ import annotations

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists
from pgflow_mp.errors import RunNotFound
from pgflow_mp.observe import grouping, read_reports
from pgflow_mp.observe.drawings.dag import conditions_of, dag
from pgflow_mp.observe.reports import RunFailures
from pgflow_mp.observe.run_reports import RunDetails
from pgflow_mp.web.commands import command_line
from pgflow_mp.web.kept import kept
from pgflow_mp.web.questions import PageQuery, way
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.sentences import of_run
from pgflow_mp.web.throughput import now_done
from pgflow_mp.web.views.run_work import events_of, lanes_of, times_of

_GROUPS = 6
"""Failure groups that the run's page shows; others are on the pages of their steps."""


def known_run(conn: Connection, asked: PageQuery) -> RunDetails:
    """The run in the path. Raises RunNotFound."""
    found = read_reports.read_run(conn, asked.run_id)
    if found is None:
        raise RunNotFound(
            f"There is no run {asked.run_id} in this database",
            hint="It was removed, is another database's, or not yours to see.",
        )
    return found


def failures_of(conn: Connection, run: RunDetails, groups: int, step: str | None = None) -> RunFailures:
    """What failed of a run, or of one of its steps, in groups."""
    if not run.counts.failed:
        return RunFailures()
    steps = engine.run_progress(conn, run.run_id)
    return grouping.read_failures(conn, run.run_id, steps, step=step, groups=groups)


def _failures(conn: Connection, run: RunDetails) -> RunFailures:
    """Those of many thousands take a while to put into groups: not at each look anew."""
    key = ("failures", conn.info.dsn, run.run_id, run.status, run.finished_at, not run.counts.failed)
    return kept(key, lambda: failures_of(conn, run, _GROUPS))


def drawn_steps(conn: Connection, run: RunDetails) -> str:
    """The DAG as SVG; each box leads to its step."""
    conditions = conditions_of(lists.flow_settings(conn, run.flow_slug))
    name = f"Steps of {run.flow_slug}"
    return dag(
        run.steps, name, conditions=conditions, link=lambda slug: way("runs", run.run_id, "steps", slug)
    )


def run(conn: Connection, asked: PageQuery) -> Drawn:
    """The page of a run."""
    found = known_run(conn, asked)
    over = found.finished_at is not None
    rate = None if over else now_done(found.run_id, {found.run_id: (found.done, found.seconds)})
    values = {
        "run": found,
        "sentences": of_run(found),
        "graph": drawn_steps(conn, found),
        "failures": _failures(conn, found),
        "lanes": lanes_of(conn, found),
        "times": times_of(conn, found),
        "events": events_of(conn, found),
        "shown_groups": _GROUPS,
        "rate": rate if rate is not None else (found.done / found.seconds if found.seconds > 0 else None),
        "over": over,
        "status_command": command_line("status", found.run_id, options=asked.options),
        "retry_command": command_line("retry", found.run_id, options=asked.options),
        "asked": asked,
    }
    parts = {
        "head": "parts/run_head.html",
        "graph": "parts/run_graph.html",
        "steps": "parts/run_steps.html",
        "failures": "parts/run_failures.html",
        "lanes": "parts/run_lanes.html",
        "times": "parts/run_times.html",
        "log": "parts/run_log.html",
    }
    return Drawn("run.html", parts, values, over=over)
