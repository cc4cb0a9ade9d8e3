"""What workers told of a run: lanes over time, item times, the slowest items; and what happened when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads.run_events import EventRow, run_events
from pgflow_mp.observe import read_work
from pgflow_mp.observe.drawings.histogram import histogram
from pgflow_mp.observe.drawings.timeline import timeline
from pgflow_mp.observe.drawings.trend import trend
from pgflow_mp.observe.run_html.usage import usage_of
from pgflow_mp.observe.run_reports import RunDetails
from pgflow_mp.observe.text import plural
from pgflow_mp.observe.work_reports import SlowItem, SpanReport, StepTimesReport
from pgflow_mp.web.kept import kept

_DRAWN: Final = 4
"""Steps whose times are drawn: those that took most."""
_SLOWEST: Final = 10
_EVENTS: Final = 100


class LanesDrawn(NamedTuple):
    """Lanes over time, as SVG, and in words how much they were in use."""

    told: str
    timeline: str
    in_use: str
    rate: str


class TimesDrawn(NamedTuple):
    """Item times of steps that took most, each with its histogram as SVG; the slowest items of the run."""

    steps: list[tuple[StepTimesReport, str]]
    slowest: list[SlowItem]


def lanes_of(conn: Connection, run: RunDetails) -> LanesDrawn | None:
    """None where no worker has told anything."""
    key = ("lanes", conn.info.dsn, run.run_id, run.finished_at)
    return kept(key, lambda: _draw_lanes(read_work.read_spans(conn, run.run_id), run))


def _draw_lanes(spans: Sequence[SpanReport], run: RunDetails) -> LanesDrawn | None:
    if not spans:
        return None
    begin = min(run.started_at, *(span.started_at for span in spans))
    until = run.finished_at or datetime.now(UTC)
    end = max(until, *(span.ended_at for span in spans)) + timedelta(milliseconds=1)
    usage = usage_of(spans, begin, end)
    limit = (float(usage.lanes), plural(usage.lanes, "lane"))
    return LanesDrawn(
        f"{plural(usage.lanes, 'lane')}, in use for {usage.share:.0%} of the time; fainter: in part idle",
        timeline(spans, begin, end),
        trend([usage.in_use], name="Lanes in use", limit=limit, begin=0.0),
        trend([usage.items], name="Items a second", begin=0.0),
    )


def times_of(conn: Connection, run: RunDetails) -> TimesDrawn | None:
    """None where no worker has told anything."""
    key = ("times", conn.info.dsn, run.run_id, run.finished_at)
    return kept(key, lambda: _draw_times(read_work.read_step_times(conn, run.run_id)))


def _draw_times(times: Sequence[StepTimesReport]) -> TimesDrawn | None:
    if not times:
        return None
    longest = sorted(times, key=lambda each: -each.seconds)[:_DRAWN]
    slowest = sorted((item for each in times for item in each.slowest), key=lambda item: -item.seconds)
    return TimesDrawn(
        [
            (
                each,
                histogram(
                    each.counts,
                    slowest=each.slowest[0].seconds if each.slowest else None,
                    name=f"Times of {each.step_slug}",
                    what="attempt",
                ),
            )
            for each in times
            if each in longest
        ],
        slowest[:_SLOWEST],
    )


def events_of(conn: Connection, run: RunDetails) -> list[EventRow]:
    """What happened to the run and its steps, the latest first."""
    found = run_events(conn, [run.run_id])
    found.sort(
        key=lambda each: (each.at, each.step_slug is None, each.step_index or 0, each.place), reverse=True
    )
    return found[:_EVENTS]
