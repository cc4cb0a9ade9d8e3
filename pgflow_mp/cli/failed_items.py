"""How commands tell of failed items: groups of those that failed alike, and single ones with their errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

from pgflow_mp.cli.screen import print_line
from pgflow_mp.observe.text import essence, plural, shorten
from pgflow_mp.redaction import printable

if TYPE_CHECKING:
    from rich.console import Console

    from pgflow_mp.observe.reports import FailedItem, FailureGroup, RunFailures

ROOM: Final = 6
"""Groups that leave room on a screen for what else there is to tell of a run."""
_FATES: Final = {
    "failed": "failed",
    "skipped": "failed and had the step skipped",
    "tolerated": "failed and tolerated",
}
_LINE: Final = 200  # characters of an error
_INPUT, _LONG_INPUT, _SHORTEST = 40, 100, 20  # columns of an input beside its error, above it, at least


def print_groups(
    screen: Console, failures: RunFailures, room: int, more: str, *, examples: bool = True
) -> None:
    """All that failed in few lines: so many groups at most; ``more`` is the command that tells of others."""
    shown = failures.groups[:room]
    for fate, words in _FATES.items():
        count = failures.count(fate)  # type: ignore[arg-type]
        if not count:
            continue
        kinds = _kinds([group for group in failures.groups if group.outcome == fate])
        style = "bold red" if fate == "failed" else "bold yellow"
        screen.print()
        print_line(screen, (f"{count:,} {words}", style), kinds)
        groups = [group for group in shown if group.outcome == fate]
        wide = max((len(f"{group.items:,}") for group in groups), default=0)
        for group in groups:
            _print_group(screen, group, wide, examples)
    if len(failures.groups) > room:
        rest = failures.groups[room:]
        others = f"{sum(group.items for group in rest):,} with {plural(len(rest), 'other error')}"
        screen.print(f"  ... and {others}: {more}", soft_wrap=True)


def _kinds(groups: list[FailureGroup]) -> str:
    counts = {
        kind: sum(group.items for group in groups if group.kind == kind) for kind in ("timed out", "crashed")
    }
    told = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    return f" ({', '.join(told)})" if told else ""


def _print_group(screen: Console, group: FailureGroup, wide: int, examples: bool) -> None:
    if group.items == 1 and group.examples and examples:
        line = Text.assemble("  ", *_item_line(group.examples[0]))
        if line.cell_len <= screen.width:
            print_line(screen, line)
            return
    count = f"{group.items:,}".rjust(wide)
    print_line(screen, f"  {count} x ", (group.step, "bold"), f": {shorten(group.error, _LINE)}")
    if examples and (places := _places(group, screen.width - wide - 10)):
        print_line(screen, " " * (wide + 5), ("e.g. ", "dim"), places)


def _places(group: FailureGroup, columns: int) -> str:
    """As many of a group's examples as fit: ``[1] "a.gz", [12] "b.gz"``."""
    told, left = "", columns
    for example in group.examples:
        before = f"{', ' if told else ''}[{example.index}] "
        room = left - len(before)
        if told and room < _SHORTEST:
            break
        shown = example.shown(min(_LONG_INPUT if not told else _INPUT, max(_SHORTEST, room)))
        told += f"{before}{shown}".rstrip()
        left = columns - cell_len(told)
    return told


def _item_line(item: FailedItem) -> list[str | tuple[str, str]]:
    what = essence(item.error, beside=(item.step, item.index))
    return [*_item_name(item, _INPUT), f": {what}"]


def _item_name(item: FailedItem, columns: int) -> list[str | tuple[str, str]]:
    shown = item.shown(columns)
    times = f" after {item.attempts} attempts" if item.attempts > 1 else ""
    return [(f"{item.step}[{item.index}]", "bold"), f" {shown}".rstrip(), times]


def print_items(
    screen: Console, items: Iterable[FailedItem], *, brief: bool = False, whole: bool = False
) -> int:
    """Items with their errors as they are stored, or ``brief``ly in a line each; how many they were.

    With their ``whole`` inputs, if these have been read.
    """
    count = 0
    for item in items:
        count += 1
        if brief:
            print_line(screen, *_item_line(item))
        else:
            screen.print()
            room = max(_SHORTEST, min(_LONG_INPUT, screen.width - len(item.step) - 30))
            print_line(screen, "  ", *_item_name(item, room), ":")
            for line in printable(item.error).rstrip().split("\n"):
                screen.print(f"    {line}".rstrip(), soft_wrap=True, markup=False)
        if whole and item.input_bytes is not None:
            given = printable(bytes(item.raw_input).decode("utf-8", "replace"))
            screen.print(f"    input: {given}", soft_wrap=True, markup=False)
    return count
