"""Having a terminal to ourselves: what anybody else prints comes to us line by line."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Final, TextIO

from pgflow_mp import streams

_LONGEST: Final = 8192


class TerminalTakeover:
    """Descriptors 1 and 2, where they are a terminal, lead to ``on_line`` instead.

    That goes for processes started from now on, too: the lines that handlers print in lanes arrive here
    instead of in the middle of a picture. ``stream`` writes to the terminal. close() puts all back.

    Threads: ``on_line`` is called in a thread of this object, one line at a time, the last ones before
    close() returns. All else is for whoever made it.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        streams.flush()
        self._on_line = on_line
        self._saved = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        if not self._saved:
            raise OSError("neither standard output nor standard error is a terminal")
        self._terminal = os.dup(self._saved.get(2, next(iter(self._saved.values()))))
        self.stream: TextIO = streams.forgiving(self._terminal, reports=2)  # a terminal may go away
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        for number in self._saved:
            os.dup2(write, number)
        os.close(write)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._pump, name="pgflow-terminal", daemon=True)
        self._thread.start()

    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal; 80 x 24 where it does not know them."""
        try:
            columns, lines = os.get_terminal_size(self._terminal)
        except OSError:
            columns = lines = 0
        return os.terminal_size((columns or 80, lines or 24))

    def close(self) -> None:
        """Give the descriptors back, after what is under way has been passed on."""
        if self._closing.is_set():
            return
        streams.flush()
        for number, saved in self._saved.items():
            os.dup2(saved, number)
            os.close(saved)
        self._closing.set()
        self._thread.join(2.0)
        os.close(self._read)
        with contextlib.suppress(OSError):
            self.stream.flush()
        os.close(self._terminal)

    def _pump(self) -> None:
        rest = b""
        poll = select.poll()  # select() ends at descriptor 1023
        poll.register(self._read, select.POLLIN)
        while True:
            closing = self._closing.is_set()
            ready = poll.poll(0 if closing else 100)
            data = b""
            if ready:
                with contextlib.suppress(BlockingIOError):
                    data = os.read(self._read, 65536)
            *lines, rest = (rest + data).split(b"\n")
            if rest and (not data or len(rest) > _LONGEST):  # a line that nobody ends
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._on_line(line.decode("utf-8", "replace").rstrip("\r"))
            if closing and not data:
                return
