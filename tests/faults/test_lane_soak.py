"""Random faults at random moments: every item of every chunk is reported exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest
from lane_harness import Harness, lanes

from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.lanes.watchdog import Watchdog
from pgflow_mp.executors.messages import Kind
from pgflow_mp.executors.verdicts import KillReason

HARMLESS = [["echo", 1], ["big", 200_000], ["sleep", 0.002], ["sys_exit", 1], ["echo", [1, 2]], ["pid", None]]
HARMFUL = [["segfault", None], ["os_exit", 0], ["kill_self", 9], ["close_everything", None], ["spin", None]]


struck: set[int] = set()
"""Generations of processes that were sent a signal."""


def kill(harness: Harness, chance: random.Random) -> None:
    if there := harness.pool.lanes(retiring=True):
        someone = chance.choice(there)
        struck.add(someone.generation)
        with contextlib.suppress(ProcessLookupError):
            os.kill(
                someone.pid, chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV])
            )


def can_work(harness: Harness, lane: int) -> bool:
    """Whether it runs an item. One that was stopped while it was idle is found out only now: it is replaced,
    and the item handed back, charged to nobody.
    """
    seq = harness.submit([["echo", 1]], lane=lane)
    harness.until(lambda: seq in harness.done, 30.0)
    (outcome,) = harness.of(seq)
    if outcome.kind != Kind.NOT_RUN:
        assert outcome.kind == Kind.COMPLETED
        return True
    death = [death for death in harness.deaths if death.lane == lane][-1]
    assert death.generation in struck
    assert death.verdict is None
    return False


def cancel(harness: Harness, chance: random.Random) -> None:
    harness.pool.kill(chance.randrange(4), KillReason(Cause.CANCELLED), grace=chance.choice([0.0, 0.05]))


def recycle(harness: Harness, chance: random.Random) -> None:
    harness.pool.recycle(chance.randrange(4))


def resize(harness: Harness, chance: random.Random) -> None:
    harness.pool.resize(chance.randint(2, 5))


def call_back(harness: Harness, _chance: random.Random) -> None:
    harness.pool.skip_rest()


FAULTS: list[Callable[[Harness, random.Random], None]] = [
    kill,
    kill,
    kill,
    cancel,
    recycle,
    resize,
    call_back,
]


@pytest.mark.parametrize(
    ("seed", "seconds"), [(1, 1.5), *(pytest.param(seed, 30.0, marks=pytest.mark.slow) for seed in (2, 3, 4))]
)
def test_every_item_is_reported_once_whatever_dies(seed: int, seconds: float) -> None:
    chance = random.Random(seed)
    struck.clear()
    sizes: dict[int, int] = {}
    with lanes(4) as harness:
        harness.watchdog = Watchdog(harness.pool, grace=0.1, stall_after=0.5)
        until, next_fault = time.monotonic() + seconds, 0.0
        while time.monotonic() < until:
            for lane, room in harness.pool.rooms():
                for _ in range(room):
                    orders = chance.choices(HARMLESS, k=chance.randint(1, 30))
                    if chance.random() < 0.05:
                        orders[chance.randrange(len(orders))] = chance.choice(HARMFUL)
                    if (seq := harness.try_submit(orders, lane=lane, timeout=0.3)) is not None:
                        sizes[seq] = len(orders)
            harness.tick()
            if time.monotonic() > next_fault:
                chance.choice(FAULTS)(harness, chance)
                next_fault = time.monotonic() + chance.uniform(0.01, 0.1)
        harness.until(lambda: set(sizes) <= harness.done, 20.0)
        assert {seq: len(harness.of(seq)) for seq in sizes} == sizes
        kinds = Counter(
            int(outcome.kind) for found in harness.outcomes.values() for outcome in found.values()
        )
        assert kinds[0] > 100
        assert min(kinds[1], kinds[3], len(harness.deaths)) > 5
        for allowed in ({True, False}, {True}):  # no signals are sent any more
            harness.all_ready()
            assert {can_work(harness, lane) for lane in range(harness.pool.size)} <= allowed
