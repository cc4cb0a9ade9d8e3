"""A settler in its thread, and tasks for it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

from worker_harness import adapted, start

from pgflow_mp.db import engine
from pgflow_mp.db.engine import ClaimedTask
from pgflow_mp.worker import inbox
from pgflow_mp.worker.groups import Group
from pgflow_mp.worker.settle import Settler

WORKER = "11111111-1111-4111-8111-111111111111"


def claimed(dsn: str, flow: str, items: list[Any]) -> tuple[str, list[ClaimedTask]]:
    """A run whose first tasks WORKER holds."""
    run_id = start(dsn, flow, items)
    with adapted(dsn) as conn:
        engine.register_worker(conn, WORKER, flow, "test", 10.0)
        tasks = engine.claim_tasks(conn, flow, WORKER, 10_000)  # with what other tests left
        return run_id, [task for task in tasks if task.run_id == run_id]


def group(
    run_id: str,
    tasks: list[ClaimedTask],
    *,
    failed: bool = False,
    permanent: bool = False,
    body: bytes = b"1",
) -> Group:
    step = tasks[0].step_slug
    return Group(
        run_id,
        step,
        WORKER,
        failed,
        [task.task_index for task in tasks],
        [task.attempt for task in tasks],
        [body] * len(tasks),
        [permanent] * len(tasks) if failed else [],
    )


class _Running:
    def __init__(self, dsn: str, linger: float) -> None:
        self.posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.settler = Settler(dsn, self.posted.put, linger=linger)
        self.settler.start()

    def next(self, kind: type = inbox.BatchSettled, timeout: float = 10.0) -> Any:
        """The next post of this kind."""
        while True:
            if isinstance(post := self.posted.get(timeout=timeout), kind):
                return post


@contextlib.contextmanager
def running(dsn: str, linger: float = 0.03) -> Iterator[_Running]:
    """A settler in its thread."""
    found = _Running(dsn, linger)
    try:
        yield found
    finally:
        found.settler.close((), 5.0)
