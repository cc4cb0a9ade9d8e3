"""Hearing which signals arrive while a worker, which handles them, is running."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pgflow_mp.cli.complaints import INTERRUPTED, TERMINATED

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass
class HeardSignals:
    """Signals that asked for a stop, in order."""

    numbers: list[int] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """128 + the first signal; of Ctrl-C if there was none."""
        return TERMINATED if self.numbers[:1] == [signal.SIGTERM] else INTERRUPTED


@contextlib.contextmanager
def listening(react: Callable[[int, int], None]) -> Iterator[HeardSignals]:
    """Call ``react(number, how many so far)`` in a thread for each SIGINT and SIGTERM. Main thread only.

    The signals themselves are handled by whoever has installed a handler. Threads: ``react`` and the numbers
    that are heard are the listening thread's; whoever is in the block reads those.
    """
    heard = HeardSignals()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        while data := ours.recv(16):
            for number in data:
                if number in _STOPPING:
                    heard.numbers.append(number)
                    with contextlib.suppress(OSError, ValueError):
                        react(number, len(heard.numbers))

    thread = threading.Thread(target=listen, name="pgflow-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join(1.0)
        ours.close()
