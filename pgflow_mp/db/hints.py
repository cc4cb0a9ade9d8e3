"""What LISTEN hears: hints that a look at the database may be worth while, and nothing else.

Any role that can log in may NOTIFY any channel with any payload, as often as it likes. So a payload is never
believed, only what of it matters is kept, each once, and nothing is decoded.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final

from psycopg.pq.misc import PGnotify

from pgflow_mp.db.engine import Connection

REST: Final = 0.05
"""Seconds after a hint in which a listener does not listen: what comes meanwhile is one wake-up."""
_MOST: Final = 1000


class Hints:
    """Hears one channel on a connection whose notifications nobody else wants.

    ``meaning`` is what of a payload matters (None: nothing).
    """

    def __init__(self, conn: Connection, channel: str, meaning: Callable[[bytes], bytes | None]) -> None:
        self._pgconn = conn.pgconn
        self._meaning = meaning
        self._heard: set[bytes] = set()
        self._too_many = False
        self._pgconn.notify_handler = self._hear  # psycopg's decodes all of them, and keeps them
        conn.execute(f"listen {channel}".encode())

    def _hear(self, notify: PGnotify) -> None:
        meaning = self._meaning(notify.extra)
        if meaning is None:
            return
        if len(self._heard) < _MOST:
            self._heard.add(meaning)
        elif meaning not in self._heard:
            self._too_many = True

    def read(self) -> bool:
        """Whether there are any, with those that have arrived by now; never waits.

        Raises OperationalError where the connection is lost.
        """
        self._pgconn.consume_input()
        while notify := self._pgconn.notifies():
            self._hear(notify)
        return bool(self._heard)

    def wait(self, timeout: float) -> bool:
        """Whether there are any within ``timeout`` seconds; takes them. Raises as ``read``."""
        deadline = time.monotonic() + timeout
        ready = select.poll()
        ready.register(self._pgconn.socket, select.POLLIN)
        while not self.read():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if ready.poll(1000 * left) and not self.read():
                time.sleep(min(REST, left))
        self.take()
        return True

    def take(self) -> set[bytes] | None:
        """What has been heard since the last time; None: more than 1000 different ones."""
        heard = None if self._too_many else self._heard
        self._heard, self._too_many = set(), False
        return heard
