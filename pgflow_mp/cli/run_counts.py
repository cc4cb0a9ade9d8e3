"""Runs in a table of counts, for status --group."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.table import Column, Table

from pgflow_mp.cli.run_table import NARROWEST
from pgflow_mp.cli.screen import console, paint
from pgflow_mp.observe.run_reports import STATUSES, RunState
from pgflow_mp.observe.wording import words

Counts = Mapping[str, Counter[RunState]]


def grouped(counts: Counts, by: str) -> list[dict[str, Any]]:
    """One object for each flow, with its states, or for each state."""
    if by == "flow":
        return [
            {"flow_slug": flow, "runs": each.total(), "states": dict(each)} for flow, each in counts.items()
        ]
    return [{"state": state, "runs": number} for state, number in _by_state(counts).items()]


def print_counts(counts: Counts, by: str) -> None:
    """The same as a table on standard output."""
    states = _by_state(counts)
    numbers = ["runs"] if by == "status" else [words(state) for state in states]
    table = Table(
        Column("status" if by == "status" else "flow", no_wrap=True),
        *(Column(name, justify="right") for name in numbers),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    if by == "status":
        for state, number in states.items():
            table.add_row(paint(words(state), state), f"{number:,}")
    for flow, each in counts.items() if by == "flow" else ():
        table.add_row(flow, *(f"{each[state]:,}" if each[state] else "" for state in states))
    screen = console(sys.stdout)
    screen.width = max(screen.width, NARROWEST)
    screen.print(table)


def _by_state(counts: Counts) -> dict[RunState, int]:
    """How many runs are in each state that any is in, those that go on first."""
    total = sum(counts.values(), Counter[RunState]())
    return {state: total[state] for state in STATUSES if total[state]}
