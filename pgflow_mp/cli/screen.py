"""Printing for people, with rich: colours on a terminal, plain text elsewhere."""

from __future__ import annotations

from typing import IO, Any, Final

from rich.console import Console
from rich.text import Text

_UNSEEN: Final = 200
STYLES: Final = {
    "completed": "green",
    "completed_with_failures": "yellow",
    "failed": "red",
    "started": "cyan",
    "running": "cyan",
    "waiting": "yellow",
    "paused": "magenta",
    "dead": "red",
    "draining": "yellow",
}


class _Plain(Console):
    """A console that nobody looks at: what it prints has no blanks at the ends of lines."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))
        self.file.flush()


def console(stream: IO[str] | None = None) -> Console:
    """A console on ``stream`` (None: standard error) that does not cut lines where nobody sees an edge."""
    screen = Console(file=stream, stderr=stream is None, highlight=False)
    if not screen.is_terminal:
        screen = _Plain(file=stream, stderr=stream is None, highlight=False, width=_UNSEEN)
    return screen


def paint(text: str, state: str) -> Text:
    """A text in the colour of a state."""
    return Text(text, style=STYLES.get(state, "dim"), no_wrap=True)


def print_line(screen: Console, *parts: str | tuple[str, str] | Text) -> None:
    """A line that ends at the edge of a terminal, and is not cut anywhere else. Parts as of Text.assemble."""
    seen = screen.is_terminal
    screen.print(Text.assemble(*parts), no_wrap=True, overflow="ellipsis" if seen else "ignore", crop=seen)
