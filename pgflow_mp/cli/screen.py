"""Printing for people, with rich: colours on a terminal, plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from pgflow_mp.observe.text import essence
from pgflow_mp.redaction import printable

if TYPE_CHECKING:
    from pgflow_mp.db.reads.tasks import FailedTask

_UNSEEN: Final = 200
STYLES: Final = {"completed": "green", "failed": "red", "started": "cyan"}


def console(stream: IO[str] | None = None) -> Console:
    """A console on ``stream`` (None: standard error) that does not cut lines where nobody sees an edge."""
    screen = Console(file=stream, stderr=stream is None, highlight=False)
    if not screen.is_terminal:
        screen = Console(file=stream, stderr=stream is None, highlight=False, width=_UNSEEN)
    return screen


def styled(status: str) -> str:
    """A status in its colour, as markup."""
    return f"[{STYLES.get(status, 'dim')}]{status}[/]"


def print_failures(
    screen: Console, failed: int, failures: Sequence[FailedTask], room: int, *, whole: bool = False
) -> None:
    """The first failures, a line each or with their ``whole`` texts, and how many more there are."""
    if not failures:
        return
    screen.print(f"\n[bold red]{failed:,} failed[/]")
    for failure in failures[:room]:
        times = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        place = (f"{failure.step}[{failure.task_index}]", "bold")
        if whole:
            screen.print(Text.assemble("\n  ", place, f"{times}:"))
            for line in printable(failure.error).rstrip().split("\n"):
                screen.print(Text(f"    {line}".rstrip()), soft_wrap=True)
        else:
            what = essence(failure.error, beside=(failure.step, failure.task_index))
            screen.print(Text.assemble("  ", place, f"{times}: {what}"))
    if failed > len(failures[:room]):
        screen.print(f"  ... and {failed - len(failures[:room]):,} more")
    screen.print()
