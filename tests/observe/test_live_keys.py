"""LiveKeys are read one by one in the foreground only, and the terminal is put back."""

from __future__ import annotations

import os
import pty
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from pgflow_mp.observe.live_keys import LiveKeys


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_raw(descriptor: int) -> bool:
    return not termios.tcgetattr(descriptor)[3] & (termios.ICANON | termios.ECHO)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, list[bool]]]:
    """Both ends of a terminal, and whether we are in its foreground, which is no terminal of ours."""
    ours, theirs = pty.openpty()
    foreground = [True]
    monkeypatch.setattr(LiveKeys, "_is_ours", lambda self: foreground[0])
    yield ours, theirs, foreground
    os.close(ours)
    os.close(theirs)


def test_keys_come_without_an_end_of_line_and_the_terminal_is_put_back(
    terminal: tuple[int, int, list[bool]],
) -> None:
    ours, theirs, _ = terminal
    found: list[str] = []
    before = termios.tcgetattr(theirs)
    keys = LiveKeys(found.append, theirs)
    until(lambda: is_raw(theirs))
    os.write(ours, "fé".encode())
    until(lambda: found == ["f", "é"])
    os.write(ours, b"\x1b[A")  # an arrow is no Escape
    time.sleep(0.1)
    os.write(ours, b"?")
    until(lambda: found == ["f", "é", "?"])
    keys.close()
    keys.close()
    assert termios.tcgetattr(theirs)[3] == before[3]


def test_in_the_background_nothing_is_read_or_changed(terminal: tuple[int, int, list[bool]]) -> None:
    ours, theirs, foreground = terminal
    foreground[0] = False
    found: list[str] = []
    keys = LiveKeys(found.append, theirs)
    os.write(ours, b"f\n")
    time.sleep(0.7)
    assert (found, is_raw(theirs)) == ([], False)
    foreground[0] = True
    until(lambda: is_raw(theirs))
    os.write(ours, b"w")
    until(lambda: "w" in found)
    keys.close()


def test_what_a_key_does_wrong_ends_nothing(terminal: tuple[int, int, list[bool]]) -> None:
    ours, theirs, _ = terminal
    found: list[str] = []

    def react(key: str) -> None:
        found.append(key)
        raise ValueError(key)

    keys = LiveKeys(react, theirs)
    until(lambda: is_raw(theirs))
    os.write(ours, b"ab")
    until(lambda: found == ["a", "b"])
    keys.close()
