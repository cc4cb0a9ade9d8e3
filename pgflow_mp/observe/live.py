"""Live progress on a terminal: steps, processes, failures, trouble; keys show more of it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pgflow_mp.observe import live_keys
from pgflow_mp.observe.failure_tally import FailureTally
from pgflow_mp.observe.live_screen import KEYS, Scene, Trends, draw
from pgflow_mp.observe.observer import FailedAttempt, Level, ProgressSnapshot, RunNote, Steer
from pgflow_mp.observe.picture import Picture
from pgflow_mp.observe.plain import failure_line, failure_lines, other_run
from pgflow_mp.observe.terminal import TerminalTakeover
from pgflow_mp.observe.text import plural
from pgflow_mp.redaction import printable

logger = logging.getLogger("pgflow_mp")

_REFRESH: Final = 4  # times a second
_FAILURES_SHOWN: Final = 10
_STYLES: Final = {"error": "bold red", "warn": "yellow", "info": "", "debug": "dim"}
_TURNS: Final = ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\")


class LiveObserver:
    """Draws the latest snapshot a few times a second; messages and failures scroll by above it.

    ``title`` is the first line; ``preliminary`` stands there until there is something to work on.
    ``names_flows``: name the flow with each step. ``takes_keys``: those of ``live_screen.KEYS`` do what they
    say, where standard input is a terminal. Lines about others than its ``own_run`` name theirs. Use close()
    before anything else is printed; the last picture stays.

    Threads: whoever is observed calls what an Observer has, from one thread; note() and close() are for any.
    Another thread draws, and a third one reads keys: what they read is replaced as a whole.
    """

    def __init__(
        self,
        title: str,
        *,
        preliminary: str | None = None,
        names_flows: bool = False,
        console: Console | None = None,
        takes_keys: bool = False,
        own_run: str | None = None,
    ) -> None:
        self._terminal = TerminalTakeover(self._print_foreign) if console is None else None
        if console is None:
            assert self._terminal is not None  # noqa: S101 - made in the line above
            console = Console(file=self._terminal.stream, force_terminal=True, highlight=False)
        self.console = console
        self._title = title if preliminary is None else preliminary
        self._final_title = title
        self._names_flows = names_flows
        self._own_run = own_run
        self._snapshot: ProgressSnapshot | None = None
        self._trends = Trends()
        self._tally = FailureTally()
        self._runs = self._failed_runs = 0
        self._state = "starting"
        self._note = self._panel = ""
        self._failures = 0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._lock = threading.Lock()
        self._steer: Steer | None = None
        self._keys: live_keys.LiveKeys | None = None
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
        if takes_keys:
            self._keys = live_keys.listen(self._on_key)

    def open(self) -> None:
        """Show the title itself; the first state "running" does it, too."""
        self._title = self._final_title

    def attach(self, steer: Steer) -> None:
        """This is what keys steer."""
        self._steer = steer

    def on_state(self, state: str) -> None:
        """Show the state in the last line."""
        if state == "running":
            self.open()
        self._state = str(state)

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        """Keep it for the next picture."""
        self._snapshot = snapshot
        self._trends.add(time.monotonic(), snapshot)

    def on_message(self, level: Level, text: str) -> None:
        """Print it above the picture."""
        if logger.isEnabledFor({"error": 40, "warn": 30, "info": 20, "debug": 10}[level]):
            self.console.print(Text(printable(text), style=_STYLES[level]))

    def on_run(self, note: RunNote) -> None:
        """Count it."""
        if note.status != "started":
            self._runs += 1
            self._failed_runs += note.status != "completed"

    def on_failure(self, failure: FailedAttempt) -> None:
        """Print the first failures above the picture, and count all of them in groups."""
        self._failures += 1
        self._tally.add(failure)
        if self._failures > _FAILURES_SHOWN:
            return
        room, style = self.console.width - 1, "red" if failure.final else "yellow"
        whose = other_run(failure, self._own_run)
        lines = [whose + failure_line(failure, failure.shown(max(12, room // 2)))]
        if cell_len(lines[0]) > room:  # what it is, and below it what happened
            least = len(whose) + len(failure.step) + 12
            lines = failure_lines(failure, failure.shown(max(12, room - least)))
            lines[0] = whose + lines[0]
        for line in lines:
            self.console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")
        if self._failures == _FAILURES_SHOWN:
            more = "f shows them in groups." if self._keys else ""
            self.console.print(Text(f"Further failures are only counted. {more}".rstrip(), style="dim"))

    def note(self, text: str) -> None:
        """Show ``text`` in the last line from now on."""
        self._note = text

    def close(self) -> None:
        """Draw the last picture and give the terminal back."""
        if self._keys is not None:
            self._keys.close()
        with self._lock:
            if self._ended is None:
                self._ended = time.monotonic()
                self._live.stop()
                if self._terminal is not None:
                    self._terminal.close()

    # -- keys --------------------------------------------------------------------------------------

    def _on_key(self, key: str) -> None:
        key = key.lower()
        if key == "q":
            if not self._note:
                os.kill(os.getpid(), signal.SIGINT)  # all that Ctrl-C does
        elif key == "p":
            if self._steer is not None and self._snapshot is not None:
                self._steer.pause(not self._snapshot.paused)
        elif key in KEYS:
            self._panel = "" if self._panel == key else key
            self._live.refresh()
        elif key == "\x1b":
            self._panel = ""

    # -- the picture -------------------------------------------------------------------------------

    def _print_foreign(self, line: str) -> None:
        """A line that somebody else printed: a handler, the log."""
        self.console.print(Text.from_ansi(line))

    def _render(self) -> RenderableType:
        now = time.monotonic()
        is_plain = not (self.console.encoding or "").lower().startswith("utf")
        turns = _TURNS[is_plain]
        scene = Scene(
            self._title,
            self._snapshot,
            now - self._began,
            turns[int(now * _REFRESH) % len(turns)] if self._ended is None else "",
            self._state,
            self._note,
            self._names_flows,
            self._trends,
            tuple(self._tally.groups()) if self._failures else (),
            self._ended_runs(),
            self._panel,
            self._keys is not None,
            is_plain,
        )
        return Group(*draw(scene, self.console.width, self.console.height))

    def _ended_runs(self) -> str:
        if not self._runs or not self._names_flows:
            return ""
        failed = f" ({self._failed_runs:,} failed)" if self._failed_runs else ""
        return f"{plural(self._runs, 'run')} ended{failed}"
