"""What failed, in groups of alike errors: each with examples, their inputs shortened, tracebacks folded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pgflow_mp.observe.reports import FailedItem, FailureGroup, Fate
from pgflow_mp.observe.run_html.gathering import GROUPS, LINES, RunDocument
from pgflow_mp.observe.run_html.markup import (
    Cell,
    Html,
    folded,
    one_line,
    paragraph,
    table,
    text,
    without_secrets,
)
from pgflow_mp.observe.text import plural

_INPUT: Final = 300
_ERROR: Final = 6_000
"""Characters of an error, with its traceback, that are shown."""
_WORDS: Final[dict[Fate, str]] = {
    "failed": "failed their step",
    "tolerated": "were tolerated",
    "skipped": "had their step skipped",
}


def failures_of(document: RunDocument) -> Iterator[str]:
    """The section: groups with examples, then lines of others, then how many there are besides."""
    found = document.failures
    if not found.failed:
        yield paragraph("No item has failed.")
        return
    counts = {fate: found.count(fate) for fate in _WORDS}
    told = ", ".join(f"{count:,} {_WORDS[fate]}" for fate, count in counts.items() if count)
    yield paragraph(
        f"{plural(found.failed, 'item')} in {plural(len(found.groups), 'group')} of alike errors: {told}."
    )
    for group in found.groups[:GROUPS]:
        yield _group(group)
    rest = found.groups[GROUPS:]
    lines: list[list[Cell]] = [
        [group.step, group.outcome, one_line(group.error, 200), group.items] for group in rest[:LINES]
    ]
    if len(rest) > LINES:
        items = sum(group.items for group in rest[LINES:])
        lines.append(["", "", f"{len(rest) - LINES:,} more groups", items])
    if lines:
        yield table("Further groups", ("step", "outcome", "error", "items"), lines, numbers=(3,))


def _group(group: FailureGroup) -> str:
    outcome = _WORDS[group.outcome]
    head = f"{plural(group.items, 'item')} of {group.step} {outcome}"
    error = one_line(group.error, 400)
    examples = "".join(_example(each, group) for each in group.examples)
    return (
        f'<div class="group {group.outcome}"><h3>{text(head)}</h3><code>{text(error)}</code>{examples}</div>'
    )


def _example(item: FailedItem, group: FailureGroup) -> str:
    shown = one_line(item.shown(_INPUT), _INPUT)
    line = f"index {item.index}, {plural(item.attempts, 'attempt')}"
    given = Html(f" <code>{text(shown)}</code>") if shown else Html("")
    error = without_secrets(item.error, _ERROR).strip()
    summary = Html(f"{text(line)}{given}")
    if error == group.error:
        return f"<p>{summary}</p>"
    return folded(summary, Html(f"<pre>{text(error)}</pre>"))
