"""Waking a thread that waits for a connection, by poll(): select() ends at descriptor 1023."""

from __future__ import annotations

import contextlib
import math
import os
import select


class Wakeup:
    """A pipe that one thread waits at. wake() may be called by any thread and by a signal handler."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def wake(self) -> None:
        """End the wait under way, or else the next one. Never blocks."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake up anyway
            os.write(self._write, b"\0")

    def wait(self, seconds: float, other: int | None = None) -> bool:
        """Wait up to ``seconds`` for a wake() or for the descriptor ``other``; True if that is readable."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if other is not None:
            poll.register(other, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(math.ceil(1000 * max(0.0, seconds)))]
        if self._read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
        return other is not None and other in ready

    def close(self) -> None:
        """Free the pipe, after the thread has ended."""
        os.close(self._read)
        os.close(self._write)
