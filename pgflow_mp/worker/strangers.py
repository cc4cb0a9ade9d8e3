"""Steps that a flow has in the database and not in the code here: it was extended by code that is newer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from pgflow_mp.db import engine, item_ranges
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.item_ranges import ClaimedWork


class Strangers:
    """Hands their work back, uncharged, the first time that it is met, and keeps it from being claimed again.

    ``steps`` are those whose work is ours, by flow. Threads: the claimer's only.
    """

    def __init__(self, steps: Mapping[str, Collection[str]], say: Callable[[str], None]) -> None:
        self._steps = steps
        self._say = say
        self._met: dict[str, set[str]] = {}

    def of(self, flow: str) -> Collection[str]:
        """Those that were met so far."""
        return self._met.get(flow, ())

    def hand_back(self, conn: Connection, flow: str, worker_id: str, work: ClaimedWork) -> ClaimedWork:
        """What is left of a claim without work of unknown steps, which is released."""
        known = self._steps[flow]
        met = {task.step_slug for task in work.tasks}.union(lease.step_slug for lease in work.leases)
        met.difference_update(known)
        if not met:
            return work
        tasks = [task for task in work.tasks if task.step_slug in met]
        if tasks:
            engine.release_tasks(conn, flow, worker_id, [task.msg_id for task in tasks])
        for lease in work.leases:
            if lease.step_slug in met:
                item_ranges.release_ranges(
                    conn,
                    lease.run_id,
                    lease.step_slug,
                    worker_id,
                    [lease.lease_no],
                    [lease.first_index],
                    [lease.items],
                )
        for step in sorted(met.difference(self.of(flow))):
            self._say(
                f'flow {flow} has a step "{step}", which is newer than the code here: its items are left to '
                "workers that know it; restart this one with the new code and it does them"
            )
        self._met[flow] = met.union(self.of(flow))
        return ClaimedWork(
            [task for task in work.tasks if task.step_slug in known],
            [page for page in work.pages if page.step_slug in known],
            [lease for lease in work.leases if lease.step_slug in known],
            work.limited,
        )
