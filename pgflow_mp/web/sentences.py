"""What an operator has to know, in sentences: what waits for a worker that is not there, what is paused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pgflow_mp.observe.run_reports import RunReport
from pgflow_mp.observe.text import clock, plural
from pgflow_mp.observe.wording import no_worker, paused, queue_of_flow
from pgflow_mp.observe.worker_reports import FlowReport, WorkerInfo
from pgflow_mp.web.questions import way


class Sentence(NamedTuple):
    """A text, where it leads, and whether it is bad news."""

    text: str
    link: str
    bad: bool


def sentences(flows: Sequence[FlowReport], workers: Sequence[WorkerInfo]) -> list[Sentence]:
    """About all flows; nothing where all is well."""
    found = []
    for flow in flows:
        link = way("flows", flow.flow_slug)
        if flow.paused and flow.active_runs:
            text = (
                f"{flow.flow_slug} is {paused(flow.paused_until)}: {plural(flow.active_runs, 'run')} on hold."
            )
            found.append(Sentence(text, link, False))
        elif not flow.paused and (text := queue_of_flow(flow)):
            found.append(Sentence(f"{text} of {flow.flow_slug}.", link, True))
    draining = sum(worker.state == "draining" for worker in workers)
    if draining:
        verb = "finishes what it runs" if draining == 1 else "finish what they run"
        found.append(
            Sentence(
                f"{plural(draining, 'worker')} {verb} and then stop{'s' * (draining == 1)}.",
                "/workers",
                False,
            )
        )
    return found


def of_run(run: RunReport) -> list[Sentence]:
    """About one run."""
    found = []
    if run.unserved and run.status == "started":
        text = f"N{no_worker(run.unserved, run.lacking)[1:]}: nothing of that is worked on."
        found.append(Sentence(text, "/workers", True))
    if run.state == "waiting" and run.next_retry is not None:
        found.append(
            Sentence(
                f"All that is left waits for its next attempt: {plural(run.counts.waiting, 'item')}, "
                f"the first in {clock(max(0.0, run.next_retry))}.",
                "",
                False,
            )
        )
    if run.state == "paused":
        until = " until it is resumed" if run.paused_until is None else ""
        text = paused(run.paused_until)
        found.append(Sentence(f"{text[0].upper()}{text[1:]}: workers take nothing of it{until}.", "", False))
    return found
