"""Looks at what every lane does and ends what goes over its limits: time per item, memory per lane.

tick() is called every 20-100 ms from the owner's loop, next to LanePool.poll(). It never blocks. A verdict
reaches the owner as the LaneDied event of the killed process.
"""

from __future__ import annotations

import time
from typing import Final

from pgflow_mp.executors import verdicts
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes import memory
from pgflow_mp.executors.lanes.hooks import RunningItem
from pgflow_mp.executors.lanes.pool import LanePool, LaneStatus
from pgflow_mp.executors.lanes.start_note import Starting
from pgflow_mp.executors.verdicts import KillReason

_GROWTH: Final = 1.2  # over its first sample: a target that is large by itself must not be recycled for ever
_HOST_INTERVAL: Final = 1.0
_LONGER: Final = "--load-timeout allows it more"


class Watchdog:
    """Enforces the timeouts given to LanePool.submit() and the pool's memory limits.

    A process over a limit gets TERM, ``grace`` seconds, then KILL, with all it started; over its memory
    cap it is killed at once. Memory is sampled every ``sample_interval`` seconds. A process that holds a
    chunk and executes nothing for ``stall_after`` seconds (stopped between two items) is replaced.
    """

    def __init__(
        self, pool: LanePool, *, grace: float = 0.5, sample_interval: float = 0.25, stall_after: float = 10.0
    ) -> None:
        self._pool = pool
        self._grace = grace
        self._stall_after = stall_after
        self._quiet_since: dict[tuple[int, int], tuple[int, float]] = {}
        self._sample_interval = sample_interval
        self._next_sample = 0.0
        self._next_host_sample = 0.0
        self._first_sample: dict[tuple[int, int], int] = {}
        self.paused = False
        """Whether claiming should pause: the machine or the control group is short of memory."""

    def tick(self, now: float | None = None) -> None:
        """Check all lanes; ``now`` is time.monotonic()."""
        now = time.monotonic() if now is None else now
        running = list(self._pool.running())
        for item in running:
            if item.timeout is not None and item.elapsed >= item.timeout:
                error = verdicts.timeout_error(item.step, item.index, item.timeout)
                self._kill(item, KillReason(Cause.TIMEOUT, error, item.target), self._grace)
        if now >= self._next_sample:
            self._next_sample = now + self._sample_interval
            statuses, starting = self._pool.lanes(retiring=True), self._pool.starting()
            self._check_starts(starting)
            busy = {(item.lane, item.generation) for item in running} | {*starting}
            self._check_stalls(statuses, busy, now)
            self._check_memory(statuses)
        if now >= self._next_host_sample:
            self._next_host_sample = now + _HOST_INTERVAL
            self._pool.wake_server()
            self.paused = memory.under_pressure(memory.host_memory(), paused=self.paused)

    def _check_starts(self, starting: dict[tuple[int, int], Starting]) -> None:
        """on_start functions may take as long as a target may take to load."""
        limit = self._pool.start_timeout
        for (lane, generation), found in starting.items():
            if time.monotonic_ns() - found.since_ns > limit * 1e9:
                reason = KillReason(Cause.STALLED, f"took longer than {limit:g} s ({_LONGER})")
                self._pool.kill(lane, reason, generation=generation, grace=self._grace)

    def _check_stalls(self, statuses: list[LaneStatus], running: set[tuple[int, int]], now: float) -> None:
        quiet: dict[tuple[int, int], tuple[int, float]] = {}
        for status in statuses:
            key = (status.lane, status.generation)
            if not status.chunks or key in running:
                continue
            finished, since = self._quiet_since.get(key, (-1, now))
            quiet[key] = (status.finished, since if finished == status.finished else now)
            if now - quiet[key][1] >= self._stall_after:
                reason = KillReason(Cause.STALLED)
                self._pool.kill(status.lane, reason, generation=status.generation, grace=0.0)
        self._quiet_since = quiet

    def _check_memory(self, statuses: list[LaneStatus]) -> None:
        limit, recycle = self._pool.max_memory, self._pool.recycle_memory
        if limit is None and recycle is None:
            return
        seen: dict[tuple[int, int], int] = {}
        for status in statuses:
            if not (used := memory.tree_rss(status.pid)):
                continue
            key = (status.lane, status.generation)
            first = seen[key] = self._first_sample.get(key, used)
            if limit is not None and used > limit:
                self._over_memory(status.lane, status.generation, used, limit)
            elif recycle is not None and used > recycle and used > first * _GROWTH:
                self._pool.recycle(status.lane, generation=status.generation)
        self._first_sample = seen

    def _over_memory(self, lane: int, generation: int, used: int, limit: int) -> None:
        for item in self._pool.running():
            if (item.lane, item.generation) == (lane, generation):
                error = verdicts.memory_error(item.step, item.index, used, limit)
                self._kill(item, KillReason(Cause.MEMORY, error, item.target), 0.0)
                return
        error = verdicts.memory_text(used, limit)
        self._pool.kill(lane, KillReason(Cause.MEMORY, error), generation=generation, grace=0.0)

    def _kill(self, item: RunningItem, reason: KillReason, grace: float) -> None:
        self._pool.kill(item.lane, reason, generation=item.generation, grace=grace)
