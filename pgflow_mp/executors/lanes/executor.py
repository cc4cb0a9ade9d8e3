"""The default executor: a pool of lanes, each a process of its own, with a watchdog over them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.lanes.watchdog import Watchdog
from pgflow_mp.executors.messages import AnyChunk, FlowInfo, Setup
from pgflow_mp.executors.protocol import ALL_ABILITIES, LaneNow, Limits, OnEvent
from pgflow_mp.executors.stacks import LaneStack
from pgflow_mp.executors.verdicts import KillReason


class LaneExecutor:
    """``Executor`` over a LanePool and its Watchdog."""

    name: Final = "lanes"
    abilities: Final = ALL_ABILITIES

    def __init__(self, pool: LanePool, watchdog: Watchdog | None = None) -> None:
        self.pool = pool
        self._watchdog = watchdog or Watchdog(pool)

    @property
    def capacity(self) -> int:
        return self.pool.size

    @property
    def paused(self) -> bool:
        return self._watchdog.paused

    @property
    def in_flight(self) -> int:
        return self.pool.in_flight

    def start(self) -> list[FlowInfo]:
        return self.pool.start()

    def rooms(self) -> list[tuple[int, int]]:
        return self.pool.rooms()

    def submit(self, lane: int, chunk: AnyChunk, timeouts: Sequence[float | None]) -> bool:
        return self.pool.submit(lane, chunk, timeouts)

    def tick(self, now: float) -> None:
        self.pool.poll(now)
        self._watchdog.tick(now)

    def relieve(self, after: float) -> bool:
        return self.pool.relieve(after)

    def cancel(self, unwanted: Callable[[int, int], bool]) -> None:
        for running in self.pool.running():
            if unwanted(running.seq, running.target[1]):
                reason = KillReason(Cause.CANCELLED, target=running.target)
                self.pool.kill(running.lane, reason, generation=running.generation)

    def expect_stop(self) -> None:
        self.pool.expect_stop()

    def quiesce(self) -> None:
        self.pool.quiesce()

    def stop(self, grace: float) -> bool:
        return self.pool.stop(grace)

    def abort(self) -> None:
        self.pool.abort()

    def stacks(self, wait: float) -> list[LaneStack]:
        return self.pool.stacks(wait)

    def lanes_now(self) -> list[LaneNow]:
        found = {status.lane: LaneNow(status.lane, status.pid) for status in self.pool.lanes()}
        now = time.monotonic()
        for item in self.pool.running():
            found[item.lane] = LaneNow(item.lane, item.pid, item.seq, item.target[1], now - item.elapsed)
        return list(found.values())


def lanes(setup: Setup, limits: Limits, on_event: OnEvent) -> LaneExecutor:
    """The ExecutorFactory of lanes."""
    pool = LanePool(
        setup,
        limits.lanes,
        on_event,
        max_memory=limits.max_memory,
        preload=limits.preload,
        start_timeout=limits.load_timeout,
    )
    return LaneExecutor(pool)
