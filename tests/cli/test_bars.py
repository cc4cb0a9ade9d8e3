"""Bars of exports: on a terminal, once something takes its time, and never among what is written."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest

from pgflow_mp.cli import bars
from pgflow_mp.cli.asked import Asked


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def slowly(count: int, seconds: float) -> Iterator[int]:
    for n in range(count):
        if n == count // 2:
            time.sleep(seconds)
        yield n


@pytest.mark.parametrize(
    ("stream", "quiet", "shows", "expected"),
    [
        (Terminal, 0.01, True, True),
        (Terminal, 60.0, True, False),
        (Terminal, 0.01, False, False),
        (io.StringIO, 0.01, True, False),
    ],
)
def test_a_bar_shows_what_takes_its_time_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], quiet: float, shows: bool, expected: bool
) -> None:
    screen = stream()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(bars, "_QUIET", quiet)
    monkeypatch.setattr(bars, "_EVERY", 0.0)
    assert list(bars.counted(slowly(5000, 0.3), 5000, "rows", shows=shows)) == [*range(5000)]
    text = screen.getvalue()
    assert ("rows" in text and "items" in text and "/s" in text) is expected
    assert (text == "") is not expected


def test_rows_on_a_terminal_have_no_bar_among_them() -> None:
    assert not Asked("--output", "-", "jsonl", "row").is_seen_apart(Terminal())
    assert Asked("--output", "-", "jsonl", "row").is_seen_apart(io.StringIO())
    assert Asked("--output", "x", "jsonl", "row").is_seen_apart(Terminal())
