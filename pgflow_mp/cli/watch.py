"""status --watch: the same again and again, until nothing of it goes on."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

_EVERY: Final = 2.0
"""Seconds between two looks."""
_OPEN: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_CLOSE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Another screen, without a cursor, on which lines end at the edge; and back."""


class Look(NamedTuple):
    """What there is to show. ``key`` changes with what it says, but for times that go on by themselves."""

    show: Callable[[], None]
    key: object
    goes_on: bool


def watch(look: Callable[[], Look], *, draws: bool, every: float = _EVERY) -> None:
    """Draw it on the terminal all the time, or print it whenever it has changed; returns when it has ended.

    Ctrl-C ends it, too, as KeyboardInterrupt. What was seen last stays on the terminal.
    """
    if draws:
        _redraw(look, every)
        return
    last: object = None
    while True:
        found = look()
        if found.key != last:
            found.show()
            sys.stdout.flush()
        last = found.key
        if not found.goes_on:
            return
        time.sleep(every)


def _redraw(look: Callable[[], Look], every: float) -> None:
    found = look()
    try:
        if found.goes_on:
            _write(_OPEN)
            while found.goes_on:
                _write("\x1b[H" + _drawn(found) + "\x1b[J")
                time.sleep(every)
                found = look()
    finally:
        _write(_CLOSE)
        found.show()


def _drawn(found: Look) -> str:
    """As many of its lines as fit the terminal."""
    from pgflow_mp.cli.screen import console

    height = console(sys.stdout).height
    with contextlib.redirect_stdout(_Drawing()) as drawing:
        found.show()
    lines = [
        *drawing.getvalue().splitlines()[: max(1, height - 2)],
        f"{time.strftime('%H:%M:%S')}  Ctrl-C ends this",
    ]
    return "\r\n".join(f"\x1b[2K{line}" for line in lines)  # behind a full line its last column would go


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _Drawing(io.StringIO):
    """Takes what is meant for the terminal."""

    def isatty(self) -> bool:
        return True
