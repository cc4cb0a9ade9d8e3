"""Live progress on a terminal: a bar per step with rate and time left, lanes, failures, trouble."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from pgflow_mp.observe.observer import FailedAttempt, Level, ProgressSnapshot, StepSnapshot
from pgflow_mp.observe.picture import Picture
from pgflow_mp.observe.plain import failure_line, failure_lines
from pgflow_mp.observe.terminal import TerminalTakeover
from pgflow_mp.observe.text import clock, percent, rate, shorten, shorten_middle
from pgflow_mp.redaction import printable

logger = logging.getLogger("pgflow_mp")

_REFRESH: Final = 8  # times a second
_FAILURES_SHOWN: Final = 10
_STYLES: Final = {"error": "bold red", "warn": "yellow", "info": "", "debug": "dim"}
_MARKS: Final = {
    "created": ("·", "dim"),
    "started": ("▸", "cyan"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
}


class LiveObserver:
    """Draws the latest snapshot a few times a second; messages and failures scroll by above it.

    ``title`` is the first line; ``preliminary`` stands there until there is something to work on.
    ``names_flows``: name the flow with each step. Use close() before anything else is printed; the last
    picture stays.

    Threads: whoever is observed calls what an Observer has, from one thread; note() and close() are for any.
    Another thread draws: what it reads is replaced as a whole.
    """

    def __init__(
        self,
        title: str,
        *,
        preliminary: str | None = None,
        names_flows: bool = False,
        console: Console | None = None,
    ) -> None:
        self._terminal = TerminalTakeover(self._print_foreign) if console is None else None
        if console is None:
            assert self._terminal is not None  # noqa: S101 - made in the line above
            console = Console(file=self._terminal.stream, force_terminal=True, highlight=False)
        self.console = console
        self._title = title if preliminary is None else preliminary
        self._final_title = title
        self._names_flows = names_flows
        self._snapshot: ProgressSnapshot | None = None
        self._state = "starting"
        self._note = ""
        self._failures = 0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._lock = threading.Lock()
        self._live = Live(
            console=self.console,
            get_renderable=self._render,
            refresh_per_second=_REFRESH,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        if self._terminal is not None:
            self._live._live_render = Picture(self.console, self._terminal.size)
        self._live.start()

    def open(self) -> None:
        """Show the title itself; the first state "running" does it, too."""
        self._title = self._final_title

    def on_state(self, state: str) -> None:
        """Show the state in the last line."""
        if state == "running":
            self.open()
        self._state = str(state)

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        """Keep it for the next picture."""
        self._snapshot = snapshot

    def on_message(self, level: Level, text: str) -> None:
        """Print it above the picture."""
        if logger.isEnabledFor({"error": 40, "warn": 30, "info": 20, "debug": 10}[level]):
            self.console.print(Text(printable(text), style=_STYLES[level]))

    def on_failure(self, failure: FailedAttempt) -> None:
        """Print the first failures above the picture."""
        self._failures += 1
        if self._failures > _FAILURES_SHOWN:
            return
        room, style = self.console.width - 1, "red" if failure.final else "yellow"
        lines = [failure_line(failure, failure.shown(max(12, room // 2)))]
        if cell_len(lines[0]) > room:  # what it is, and below it what happened
            lines = failure_lines(failure, failure.shown(max(12, room - len(failure.step) - 12)))
        for line in lines:
            self.console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")
        if self._failures == _FAILURES_SHOWN:
            self.console.print(Text("Further failures are only counted.", style="dim"))

    def note(self, text: str) -> None:
        """Show ``text`` in the last line from now on."""
        self._note = text

    def close(self) -> None:
        """Draw the last picture and give the terminal back."""
        with self._lock:
            if self._ended is None:
                self._ended = time.monotonic()
                self._live.stop()
                if self._terminal is not None:
                    self._terminal.close()

    def _print_foreign(self, line: str) -> None:
        """A line that somebody else printed: a handler, the log."""
        self.console.print(Text.from_ansi(line))

    def _render(self) -> RenderableType:
        snapshot = self._snapshot
        parts: list[RenderableType] = [Text(shorten(self._title, self.console.width - 1), style="bold")]
        if snapshot is not None and snapshot.steps:
            steps, hidden = _visible(snapshot.steps, max(3, self.console.height - 6))
            parts.append(self._table(steps))
            if hidden:
                parts.append(Text(f"  ... {hidden} more steps", style="dim"))
        if self._ended is None:
            parts.append(self._status(snapshot))
        return Group(*parts)

    def _table(self, steps: list[StepSnapshot]) -> Table:
        widest = max(12, self.console.width - 56)
        names = [f"{s.flow}.{s.slug}" if self._names_flows else s.slug for s in steps]
        names = [shorten_middle(name, widest) for name in names]
        table = Table.grid(
            Column(width=1),
            Column(no_wrap=True, overflow="ellipsis"),
            Column(ratio=1, min_width=8),
            Column(justify="right", no_wrap=True),
            Column(justify="right", no_wrap=True),
            Column(justify="right", no_wrap=True),
            Column(no_wrap=True),
            padding=(0, 1),
            expand=True,
        )
        for name, step in zip(names, steps, strict=True):
            mark, style = _MARKS.get(step.status, ("·", ""))
            counts = f"{step.done:,}" if step.total is None else f"{step.done:,}/{step.total:,}"
            running = step.status == "started"
            table.add_row(
                Text(mark, style=style),
                Text(name, style="" if running else style),
                _bar(step),
                "" if step.status in ("created", "skipped") else counts,
                percent(step.done, step.total) if step.total and running else "",
                rate(step.rate) if step.rate > 0 and step.total != 1 else "",
                _remark(step),
            )
        return table

    def _status(self, snapshot: ProgressSnapshot | None) -> RenderableType:
        elapsed = clock(time.monotonic() - self._began)
        words = [elapsed]
        if snapshot is not None:
            words.append(f"{snapshot.lanes_busy}/{snapshot.lanes} workers busy")
            words.append(f"used {snapshot.utilisation:.0%}")
            if snapshot.queued:
                words.append(f"{snapshot.queued:,} queued")
            if snapshot.unsettled:
                words.append(f"{snapshot.unsettled:,} to record")
        line = Text(" · ".join(words), style="dim")
        if snapshot is not None and snapshot.connection != "connected":
            trouble = re.sub(r"cannot connect to \S+: ", "", snapshot.connection).partition(" (")[0]
            line = Text(trouble, style="yellow")
        elif self._note:
            line.append(f" · {self._note}", style="yellow")
        elif self._state != "running":
            line.append(f" · {self._state}", style="yellow")
        line.no_wrap, line.overflow = True, "ellipsis"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, line)
        return grid


def _bar(step: StepSnapshot) -> RenderableType:
    if step.status == "skipped":
        return Text("skipped", style="dim")
    if step.total is None:
        return Text("")
    total = max(step.total, 1)
    done = total if step.status == "completed" else step.done
    return ProgressBar(total=total, completed=done, complete_style="cyan", finished_style="green")


def _remark(step: StepSnapshot) -> Text:
    remark = Text()
    if step.eta is not None and step.rate > 0 and step.status == "started":
        remark.append(f"{clock(step.eta)} left")
    if step.failed:
        remark.append(" " if remark else "").append(f"{step.failed:,} failed", style="red")
    return remark


def _visible(steps: tuple[StepSnapshot, ...], room: int) -> tuple[list[StepSnapshot], int]:
    """The steps that fit, in their order: those that move or failed first, then those to come."""
    if len(steps) <= room:
        return list(steps), 0
    order = {"started": 1, "failed": 0, "created": 2}

    def rank(number: int) -> tuple[int, int]:
        step = steps[number]
        moving = step.status == "started" and step.done > 0
        return (0 if moving else order.get(step.status, 3)), number

    ranked = sorted(range(len(steps)), key=rank)
    chosen = sorted(ranked[: room - 1])
    return [steps[number] for number in chosen], len(steps) - len(chosen)
