"""How many runs there are of each flow, in each state."""

from __future__ import annotations

from collections import Counter
from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import lists
from pgflow_mp.observe.read_reports import mark_of, read_runs
from pgflow_mp.observe.run_reports import OPEN_STATES, RunState

_PAGE: Final = 500


def count_runs(conn: Connection, flow: str | None = None) -> dict[str, Counter[RunState]]:
    """Runs by state, by flow, of those that have any; the states are those of read_runs."""
    found: dict[str, Counter[RunState]] = {}
    before = None
    while True:
        page = read_runs(conn, _PAGE, flow=flow, states=OPEN_STATES, before=before)
        for run in page:
            found.setdefault(run.flow_slug, Counter())[run.state] += 1
        if len(page) < _PAGE:
            break
        before = mark_of(page[-1])
    for each in lists.count_ended_runs(conn, flow):
        state: RunState = "cancelled" if each.is_cancelled else "failed"
        if each.status == "completed":
            state = "completed_with_failures" if each.has_failures else "completed"
        found.setdefault(each.flow_slug, Counter())[state] += each.runs
    return dict(sorted(found.items()))
