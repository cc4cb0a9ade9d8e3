"""The worker ids of one worker: one per queue that it reads, and new ones when an old one cannot be trusted.

An id is given up when a claim's answer was lost (tasks may be held by it that we do not know of) or when
the database took it for dead. A former id stays alive until everything known of it is recorded; then
whatever else it holds in the database is set free.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping


class Identities:
    """Which ids are used, and which beat.

    Threads: all is the main loop's but ``beating``, which the heartbeat's thread reads: an immutable value
    that is replaced.

    ``queues`` are those that are read, each with its flow.
    """

    def __init__(self, queues: Mapping[str, str]) -> None:
        self._flows = dict(queues)
        self._current = {queue: str(uuid.uuid4()) for queue in queues}
        self._former: dict[str, str] = {}
        self.beating: tuple[str, ...] = ()
        """The ids that need heartbeats: those that are in the database."""

    def of(self, queue: str) -> str:
        """The id to claim with."""
        return self._current[queue]

    def is_known(self, worker_id: str) -> bool:
        """Whether tasks held by this id are ours."""
        return worker_id in self._former or worker_id in self._current.values()

    def queue_of(self, worker_id: str) -> str | None:
        """The queue that the id claims, or claimed, from; None if it is not ours any more."""
        for queue, current in self._current.items():
            if current == worker_id:
                return queue
        return self._former.get(worker_id)

    def flow_of(self, worker_id: str) -> str | None:
        """The flow that the id claims, or claimed, for; None if it is not ours any more."""
        queue = self.queue_of(worker_id)
        return None if queue is None else self._flows[queue]

    def registered(self, worker_id: str) -> None:
        """The id is in the database."""
        if self.is_known(worker_id) and worker_id not in self.beating:
            self.beating = (*self.beating, worker_id)

    def doubtful(self, queue: str, worker_id: str) -> None:
        """A claim with this id was lost."""
        if self._current[queue] == worker_id:
            self._former[worker_id] = queue
            self._current[queue] = str(uuid.uuid4())

    def dead(self, worker_ids: Iterable[str]) -> set[str]:
        """The database took these for dead; those of them that were in use."""
        found = {worker_id for worker_id in worker_ids if self.is_known(worker_id)}
        for queue, worker_id in self._current.items():
            if worker_id in found:
                self._current[queue] = str(uuid.uuid4())
        self._forget(found)
        return found

    def retire(self, in_use: Callable[[str], bool]) -> list[str]:
        """Give up the former ids that are not ``in_use`` any more; which these were."""
        gone = [worker_id for worker_id in self._former if not in_use(worker_id)]
        self._forget(gone)
        return gone

    def _forget(self, worker_ids: Collection[str]) -> None:
        for worker_id in worker_ids:
            self._former.pop(worker_id, None)
        self._stop_beating(set(worker_ids))

    def _stop_beating(self, worker_ids: set[str]) -> None:
        self.beating = tuple(known for known in self.beating if known not in worker_ids)
