"""Where a worker is heading, and the end of its threads."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from pgflow_mp.worker.stats import Ending


@dataclass(slots=True)
class Course:
    """Where the worker is heading. Threads: the main loop's, but for ask_to_stop()."""

    run_id: str | None = None
    run_status: str | None = None
    ending: Ending | None = None
    error: BaseException | None = None
    stopping: bool = False
    paused: bool = False
    """Nothing more is claimed. Set from any thread."""
    _asked: deque[None] = field(default_factory=deque)

    def ask_to_stop(self) -> None:
        """Stop in order; a second time: at once. From any thread or signal handler."""
        self._asked.append(None)  # two at the same moment count as two: += might lose one

    @property
    def stop_requests(self) -> int:
        """How often it was asked to stop."""
        return len(self._asked)

    def end(self, ending: Ending) -> None:
        """End for this reason, unless there is one already."""
        self.ending = self.ending or ending


def join(thread: threading.Thread, timeout: float) -> None:
    """Wait for the end of a thread, if it was started."""
    if thread.ident is not None:
        thread.join(timeout)
