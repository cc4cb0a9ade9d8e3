"""What an operator has to know, in sentences: what waits for a worker that is not there, what is paused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pgflow_mp.observe.run_reports import RunReport
from pgflow_mp.observe.text import clock, plural
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
            found.append(
                Sentence(
                    f"{flow.flow_slug} is paused: {plural(flow.active_runs, 'run')} on hold.", link, False
                )
            )
        elif flow.active_runs and flow.unserved:
            found.append(Sentence(f"{plural(flow.active_runs, 'run')} {_unserved(flow)}.", link, True))
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


def _unserved(flow: FlowReport) -> str:
    state = "queued" if flow.queued_runs and flow.queued_runs == flow.active_runs else "under way"
    if set(flow.unserved) >= set(flow.steps) or not flow.workers:
        return f"{state}, no worker serves {flow.flow_slug}"
    return f"of {flow.flow_slug} {state}, no worker serves {_listed(flow.unserved)}"


def of_run(run: RunReport) -> list[Sentence]:
    """About one run."""
    found = []
    if run.unserved and run.status == "started":
        found.append(
            Sentence(
                f"No worker alive serves {_listed(run.unserved)} of this flow: nothing of that is worked on.",
                "/workers",
                True,
            )
        )
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
        found.append(Sentence("Paused: workers take nothing of it until it is resumed.", "", False))
    return found


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:4], *([plural(len(names) - 4, "more step")] if len(names) > 4 else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
