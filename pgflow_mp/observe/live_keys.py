"""Single keys from a terminal while a picture is shown on it."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

_LOOK: Final = 0.5  # seconds between looks at whether the terminal is ours
_MOST: Final = 64


class LiveKeys:
    """Calls ``on_key`` for each key that is typed, while this process is in the foreground.

    The terminal then neither echoes nor waits for the end of a line; Ctrl-C and Ctrl-Z do what they did. In
    the background nothing is read, which would stop the process. close() puts the terminal back; so does the
    end of the process, unless it is killed.

    Threads: ``on_key`` is called in a thread of this object. close() is for any other.
    """

    def __init__(self, on_key: Callable[[str], None], descriptor: int) -> None:
        import termios

        self._fd = descriptor
        self._on_key = on_key
        self._before: Any = termios.tcgetattr(descriptor)
        self._is_set = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._read, self._write = os.pipe()
        atexit.register(self.close)
        self._thread = threading.Thread(target=self._listen, name="pgflow-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read nothing more, and put the terminal back."""
        if self._closed.is_set():
            return
        self._closed.set()
        os.write(self._write, b".")
        self._thread.join(2.0)
        self._put_back()
        os.close(self._write)
        os.close(self._read)
        atexit.unregister(self.close)

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        while not self._closed.is_set():
            ours = self._is_ours()
            if ours:
                self._set()
                poll.register(self._fd, select.POLLIN)
            ready = dict(poll.poll(_LOOK * 1000))
            if ours:
                poll.unregister(self._fd)
            if self._closed.is_set() or not ready.get(self._fd) or not self._is_ours():
                continue
            try:
                data = os.read(self._fd, _MOST)
            except OSError:
                data = b""
            if not data:  # the terminal is gone
                return
            self._told(data)

    def _told(self, data: bytes) -> None:
        if data[:1] == b"\x1b" and len(data) > 1:  # an arrow and the like
            return
        for key in data.decode("utf-8", "ignore"):
            with contextlib.suppress(Exception):
                self._on_key(key)

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return False

    def _set(self) -> None:
        """At every turn: a shell that had the terminal meanwhile may have left it otherwise."""
        import termios

        with self._lock, contextlib.suppress(termios.error):
            if self._closed.is_set():
                return
            mode = termios.tcgetattr(self._fd)
            wanted = mode[3] & ~(termios.ICANON | termios.ECHO)
            if mode[3] != wanted:
                mode[3] = wanted
                mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
                termios.tcsetattr(self._fd, termios.TCSANOW, mode)
            self._is_set = True

    def _put_back(self) -> None:
        import termios

        with self._lock, contextlib.suppress(termios.error):
            if self._is_set and self._is_ours():
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)


def listen(on_key: Callable[[str], None]) -> LiveKeys | None:
    """On standard input, if that is a terminal."""
    try:
        descriptor = sys.stdin.fileno()
        if not os.isatty(descriptor):
            return None
        import termios
    except (AttributeError, OSError, ValueError, ImportError):
        return None
    try:
        return LiveKeys(on_key, descriptor)
    except termios.error:
        return None
