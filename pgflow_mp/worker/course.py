"""Where a worker is heading."""

from __future__ import annotations

from dataclasses import dataclass

from pgflow_mp.worker.stats import Ending


@dataclass(slots=True)
class Course:
    """Where the worker is heading: set by the loop, its owner, and signal handlers."""

    run_id: str | None = None
    run_status: str | None = None
    ending: Ending | None = None
    error: BaseException | None = None
    stop_requests: int = 0
    stopping: bool = False

    def end(self, ending: Ending) -> None:
        """End for this reason, unless there is one already."""
        self.ending = self.ending or ending
