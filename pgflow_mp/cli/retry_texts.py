"""What the command retry says that it will do, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pgflow_mp.observe.text import plural

if TYPE_CHECKING:
    from pgflow_mp.db.engine import RunRow
    from pgflow_mp.db.retrying import Choice, RetriedStep

NAMED: Final = 3
"""Items of a step that are named."""


def nothing(choice: Choice, run: RunRow) -> str:
    """That there is nothing to do."""
    what = "no item of it has failed" if choice.is_all else "no failed item of it is one of these"
    name = f"run {run.run_id} of {run.flow_slug}"
    return f"There is nothing to try again in {name}, which is {run.status}: {what}."


def plan_of(plan: list[RetriedStep], run: RunRow, named: Mapping[tuple[str, int], str]) -> str:
    """What a retry does, or would do, a line for each step. ``named``: items by step and index, as shown."""
    width = max(len(step.step) for step in plan)
    lines = [f"Run {run.run_id} of {run.flow_slug} is {run.status}. To be done:"]
    lines += [f"  {step.step:<{width}}  {_line(step, named)}" for step in plan]
    return "\n".join(lines)


def _line(step: RetriedStep, named: Mapping[tuple[str, int], str]) -> str:
    if step.is_recomputed:
        if step.status == "skipped":
            return "was skipped, and is decided about again"
        return "is computed again" + (
            f", {plural(step.recomputed or 0, 'item')}" if step.recomputed != 1 else ""
        )
    parts: list[str] = []
    if step.retried:
        first = step.first_indexes[:NAMED]
        some = ", ".join(f"[{index}] {named.get((step.step, index), '')}".rstrip() for index in first)
        some += ", ..." if step.retried > len(first) else ""
        are = "is" if step.retried == 1 else "are"
        parts.append(f"{plural(step.retried, 'failed item')} {are} tried again: {some}")
    if step.unfinished:
        goes = "goes" if step.unfinished == 1 else "go"
        parts.append(
            f"{plural(step.unfinished, 'item')} that {_were(step.unfinished)} not finished {goes} on"
        )
    if step.fails_again:
        parts.append(
            f"{plural(step.kept, 'item')} {'stays' if step.kept == 1 else 'stay'} failed, of which it "
            f"tolerates {step.most}: the run fails again when the rest is done"
        )
    elif step.kept:
        parts.append(
            f"{plural(step.kept, 'item')} {'stays' if step.kept == 1 else 'stay'} failed, as it tolerates"
        )
    return "; ".join(parts) or "goes on"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
