"""The report as HTML: what :mod:`gathering` has read, in the order in which one asks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from pgflow_mp.observe.drawings.dag import conditions_of, dag
from pgflow_mp.observe.drawings.histogram import histogram
from pgflow_mp.observe.drawings.svg import seconds
from pgflow_mp.observe.drawings.timeline import timeline
from pgflow_mp.observe.drawings.trend import trend
from pgflow_mp.observe.run_html.failed_groups import failures_of
from pgflow_mp.observe.run_html.gathering import STEPS, RunDocument
from pgflow_mp.observe.run_html.markup import (
    Cell,
    Html,
    folded,
    one_line,
    paragraph,
    section,
    state,
    table,
    text,
)
from pgflow_mp.observe.run_html.style import PAGE_STYLE
from pgflow_mp.observe.run_html.usage import usage_of
from pgflow_mp.observe.text import duration, plural, size

_MOST_DRAWN: Final = 150
"""Steps of a flow that are drawn."""
_MOST_WORKERS: Final = 100
_FEW: Final = 10
"""Attempts of which no histogram is drawn."""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_PARTS: Final = {
    "steps": "Steps",
    "lanes": "Lanes over time",
    "times": "Item times",
    "failures": "What failed",
    "options": "Options",
    "environment": "Environment",
}


def write(document: RunDocument) -> str:
    """The page. It runs no script and asks for nothing from elsewhere, and forbids both."""
    run = document.run
    title = f"{run.flow_slug} {run.run_id[:8]} {run.state.replace('_', ' ')}"
    links = "".join(f'<a href="#{name}">{text(words)}</a>' for name, words in _PARTS.items())
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{text(title)}</title><style>{PAGE_STYLE}</style></head><body>",
        f"<header>{_head(document)}<nav>{links}</nav></header><main>",
        section("steps", _PARTS["steps"], *_steps(document)),
        section("lanes", _PARTS["lanes"], *_lanes(document)),
        section("times", _PARTS["times"], *_times(document)),
        section("failures", _PARTS["failures"], *failures_of(document)),
        section("options", _PARTS["options"], _options(document)),
        section("environment", _PARTS["environment"], _environment(document)),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _at(when: datetime | None) -> str:
    """A time in UTC to the second: who reads it may be elsewhere."""
    return "" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _head(document: RunDocument) -> str:
    run, counts = document.run, document.run.counts
    facts = [f"run {run.run_id}", f"started {_at(run.started_at)}", f"worked on for {duration(run.seconds)}"]
    if run.finished_at is not None:
        facts.insert(2, f"ended {_at(run.finished_at)}")
    if run.key is not None:
        facts.append(f"key {run.key}")
    if run.tags:
        facts.append("tags " + ", ".join(run.tags))
    told = [Html(f"<h1>{text(run.flow_slug)} {state(run.state)}</h1>"), paragraph(" · ".join(facts), "faint")]
    if run.unserved:
        told.append(paragraph(f"No worker that is alive takes items of {', '.join(run.unserved)}."))
    if run.finished_at is None:
        told.append(paragraph(f"It has not ended: this is how it was at {_at(document.made_at)}."))
    if run.next_retry is not None:
        told.append(paragraph(f"The next retry is due in {seconds(run.next_retry)}."))
    errors = [step for step in run.steps if step.error_message and step.status == "failed"]
    for step in errors[:5]:
        message = one_line(step.error_message or "", 300)
        told.append(Html(f"<p>{text(step.step_slug)}: <code>{text(message)}</code></p>"))
    numbers: dict[str, int] = {
        "items": counts.items,
        "completed": counts.completed,
        "failed": counts.failed,
        "of these tolerated": counts.tolerated,
        "running": counts.running,
        "waiting for a retry": counts.waiting,
        "queued": counts.queued,
        "cancelled": counts.cancelled,
        "skipped": counts.skipped,
        "attempts": counts.attempts,
    }
    always = ("items", "completed", "failed", "attempts")
    cards = "".join(
        f"<div><dt>{name}</dt><dd>{number:,}</dd></div>"
        for name, number in numbers.items()
        if number or name in always
    )
    return f'{"".join(told)}<dl class="cards">{cards}</dl>'


def _steps(document: RunDocument) -> Iterator[str]:
    run = document.run
    if len(run.steps) <= _MOST_DRAWN:
        yield dag(run.steps, f"Steps of {run.flow_slug}", conditions=conditions_of(document.settings))
    timed = {row.step_slug: row for row in document.times}
    rows: list[list[Cell]] = []
    for step in run.steps:
        now, times = step.counts, timed.get(step.step_slug)
        rows.append(
            [
                step.step_slug,
                state(step.state),
                now.items if step.started_at is not None else step.initial_tasks,
                now.completed,
                now.failed,
                now.tolerated,
                now.running + now.waiting + now.queued,
                now.cancelled + now.skipped,
                now.attempts,
                *([seconds(times.p50), seconds(times.p99)] if times else ["", ""]),
                "" if step.seconds is None else duration(step.seconds),
            ]
        )
    now = run.counts
    rows.append(
        [
            *("all", "", now.items, now.completed, now.failed, now.tolerated),
            *(now.running + now.waiting + now.queued, now.cancelled + now.skipped, now.attempts, "", "", ""),
        ]
    )
    head = (
        *("step", "state", "items", "completed", "failed", "tolerated", "unfinished", "dropped"),
        *("attempts", "p50", "p99", "worked on"),
    )
    kept = [place for place in range(len(head)) if place not in (5, 6, 7) or rows[-1][place]]
    yield table(
        "Items of each step" + ("; dropped: they ended with their run or their step" if 7 in kept else ""),
        [head[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        numbers=range(2, len(kept)),
    )


def _lanes(document: RunDocument) -> Iterator[str]:
    begin, end, spans = document.run.started_at, document.until, document.spans
    if not spans:
        yield paragraph("No worker has told what its lanes did.", "faint")
        return
    begin = min(begin, *(span.started_at for span in spans))
    end = max(end if document.run.finished_at else begin, *(span.ended_at for span in spans))
    end += timedelta(milliseconds=1)
    usage = usage_of(spans, begin, end)
    yield paragraph(
        f"{plural(usage.lanes, 'lane')}, in use for {usage.share:.0%} of the time. Fainter: in part idle."
    )
    yield timeline(spans, begin, end)
    limit = (float(usage.lanes), plural(usage.lanes, "lane"))
    in_use = trend([usage.in_use], name="Lanes in use", limit=limit, begin=0.0)
    yield f'<div class="pair">{in_use}{trend([usage.items], name="Items a second", begin=0.0)}</div>'


def _times(document: RunDocument) -> Iterator[str]:
    if not document.times:
        yield paragraph("No worker has told how long items took.", "faint")
        return
    longest = sorted(document.times, key=lambda row: -row.seconds)[:STEPS]
    shown = [row for row in document.times if row in longest]
    note = "An attempt is timed when it ends in a lane; an item that was retried counts as often."
    yield paragraph(note, "faint")
    for row in shown:
        yield f"<h3>{text(row.step_slug)}</h3>"
        yield paragraph(
            f"{plural(row.attempts, 'attempt')} in {seconds(row.seconds)} of lanes' time, "
            f"{seconds(row.mean)} each; {row.failed:,} failed"
        )
        if row.attempts < _FEW:
            continue
        slowest = row.slowest[0].seconds if row.slowest else None
        yield histogram(row.counts, slowest=slowest, name=f"Times of {row.step_slug}", what="attempt")
        if row.slowest:
            cells: list[list[Cell]] = [[item.index, seconds(item.seconds)] for item in row.slowest]
            inner = table("Each by its slowest attempt", ("index", "took"), cells, numbers=(0, 1))
            yield folded(text(f"the slowest {plural(len(cells), 'item')}"), inner)
    if len(document.times) > len(shown):
        left = len(document.times) - len(shown)
        yield paragraph(f"Those of {plural(left, 'step')} that took less are left out.", "faint")


def _options(document: RunDocument) -> Html:
    rows: list[list[Cell]] = [
        [each.step_slug or f"{document.run.flow_slug} (flow)", each.option, one_line(each.value, 300)]
        for each in document.settings
    ]
    rows.insert(0, ["this run", "priority", document.run.priority])
    return table("As they are now; what is not set is the default.", ("of", "option", "value"), rows)


def _environment(document: RunDocument) -> Html:
    rows: list[list[Cell]] = [
        [f"worker {worker.name}", _worker(worker.version, worker.executor, worker.lane_count, worker.rss)]
        for worker in document.workers[:_MOST_WORKERS]
    ]
    known = {f"{worker.host}:{worker.pid}" for worker in document.workers}
    for name in sorted({span.worker for span in document.spans} - known)[:_MOST_WORKERS]:
        rows.append([f"worker {name}", "took part, and is forgotten"])
    rows += [[name, value] for name, value in document.environment.items()]
    if document.place:
        rows.append(["database", one_line(document.place, 300)])
    rows.append(["this report", f"made at {_at(document.made_at)}"])
    return table("Who worked on it, and where it is kept", ("what", "which"), rows)


def _worker(version: str | None, executor: str | None, lanes: int | None, rss: int | None) -> str:
    told = [f"pgflow_mp {version}" if version else "", f"executor {executor}" if executor else ""]
    told += [plural(lanes, "lane") if lanes else "", f"{size(rss)} of memory" if rss else ""]
    return ", ".join(each for each in told if each)
