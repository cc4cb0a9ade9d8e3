"""What the worker's threads have in common that serve the database, each on a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from pgflow_mp.db import connection
from pgflow_mp.db.connection import Backoff
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.worker.inbox import ConnectionState, ThreadFailed
from pgflow_mp.worker.wakeup import Wakeup


class DatabaseThread(threading.Thread):
    """Does what ``_serve`` says until it is told to stop, on a new connection whenever one is lost.

    Tells ``post`` ConnectionState, and ThreadFailed where trying again cannot help.

    Threads: wake(), stop() and close() are for others; the rest is its own.
    """

    who: ClassVar[str]
    silence: ClassVar[float | None] = None
    longest_pause: ClassVar[float] = 2.0

    def __init__(self, dsn: str, post: Callable[[Any], None]) -> None:
        super().__init__(name=f"pgflow-{self.who}", daemon=True)
        self._post = post
        self._stopping = threading.Event()
        self._wakeup = Wakeup()
        self._keeper = Keeper(
            dsn,
            prepare=self._prepare,
            on_state=lambda text: post(ConnectionState(self.who, text)),
            passes=self._passes,
            stop=self._stopping,
            backoff=Backoff(cap=self.longest_pause),
            silence=self.silence,
        )

    def wake(self) -> None:
        """Have the thread look around now."""
        self._wakeup.wake()

    def stop(self) -> None:
        """End the thread, after what is under way."""
        self._stopping.set()
        self.wake()

    def close(self) -> None:
        """Free the pipe, after the thread has ended."""
        self._wakeup.close()

    def run(self) -> None:
        """The thread."""
        try:
            self._keeper.serve(self._serve)
        except BaseException as error:  # noqa: BLE001 - the main loop ends the worker
            if not self._stopping.is_set():
                self._post(ThreadFailed(self.who, error))
        finally:
            self._keeper.close()

    def _prepare(self, conn: Connection) -> None:
        """What a new connection needs before it counts as one."""

    def _passes(self, error: BaseException) -> bool:
        """Whether an error is worth another try."""
        return connection.passes_by_itself(error)

    def _serve(self, conn: Connection) -> None:
        """Serve until ``_stopping`` is set."""
        raise NotImplementedError
