"""Boxes, lanes, claims and completions in simulated time; simulate_scale.py plays it.

What lanes, claims and completions do when is what the worker does (pgflow_mp/worker/planner.py, chunks.py,
settle.py), chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final

import simpy

CHUNK: Final = 0.2  # seconds of work in a chunk: worker/chunks.py, TARGET
DEEPEST: Final = 0.1  # seconds: of shorter items a lane has its next chunk in time: chunks.py
MOST_IN_CHUNK: Final = 500  # items: chunks.py, LARGEST
AHEAD: Final = 0.6  # seconds of work per lane worth holding: planner.py, horizon
LOW: Final = 0.6  # a claim is made when this share of it is missing: planner.py
LINGER: Final = 0.5  # seconds that outcomes in the midst of a map wait: settle.py, MIDST times linger
BEGIN: Final = 4.0  # seconds after which steady() counts
SPAN: Final = 8.0  # ... and for how long
FULL: Final = 20_000  # items that wait no longer: groups.py, FULL, times range_groups.py, LIGHT
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of the server (``claim`` to ``box``), of a box's parent and lanes; bytes of log."""

    claim: float = 450e-6
    """A claim of one map."""
    complete: float = 450e-6
    """A completion with its transaction, ``part`` for each stretch of items in it, ``item`` for each item."""
    part: float = 15e-6
    item: float = 0.6e-6
    box: float = 8.0e-3
    """Each second: heartbeat, report, look for work."""
    chunk: float = 600e-6
    """The parent, for each chunk that a lane gets."""
    lane_item: float = 25e-6
    """A lane, for each item besides the item's own time."""
    session: float = 300e-6
    """The client of a session that only measures, for each claim and completion."""
    commit: float = 0.3e-3
    """Seconds until a commit is on the disk."""
    wait: float = 0.17e-3
    """CPU of the server for waiting apart from a commit, for each claim and completion of a shared map."""
    wal_element: float = 20.0
    wal_claim: float = 1200.0
    wal_complete: float = 2200.0
    wal_part: float = 220.0
    wal_item: float = 20.0
    """Bytes of write-ahead log: an element, a claim, a completion, its parts, a result; of integers."""


COSTS: Final = Costs()


@dataclass(frozen=True, slots=True)
class Setting:
    """``boxes`` of ``lanes`` lanes, that share ``maps`` maps of ``items`` items of ``seconds`` each.

    The server has ``cores`` CPUs; with ``shared`` parents and lanes use the same ones, as in measuring.
    ``payload`` is bytes of an item's result more than an integer has.
    """

    boxes: int
    lanes: int
    seconds: float
    items: int
    maps: int = 1
    cores: int = 2
    shared: bool = False
    payload: int = 0


@dataclass(slots=True)
class Told:
    """What a simulation tells: seconds from the start to the last completion, and what was used."""

    seconds: float = 0.0
    server_cpu: float = 0.0
    parent_cpu: float = 0.0
    wal_bytes: float = 0.0
    claims: int = 0
    completions: int = 0
    items: int = 0
    waited: float = 0.0
    """Seconds that completions waited for another one of their run."""


class Server:
    """Cores, a log whose commits go to the disk together, and two locks a map: of claims, of completions."""

    def __init__(self, env: simpy.Environment, setting: Setting, costs: Costs, told: Told) -> None:
        self.env = env
        self.costs = costs
        self.told = told
        self.cores = simpy.Resource(env, setting.cores)
        self.claiming = [simpy.Resource(env, 1) for _ in range(setting.maps)]
        self.completing = [simpy.Resource(env, 1) for _ in range(setting.maps)]
        self.flushed = env.event()
        self.dirty = env.event()
        env.process(self._flush())

    def _flush(self) -> Process:
        while True:
            yield self.dirty
            self.dirty, ended, self.flushed = self.env.event(), self.flushed, self.env.event()
            yield self.env.timeout(self.costs.commit)
            ended.succeed()

    def call(self, lock: simpy.Resource, cpu: float, wal: float, *, shared: bool) -> Process:
        """One transaction: its lock, a core, the commit, for which sharers wait without the lock."""
        began = self.env.now
        with lock.request() as mine:
            yield mine
            self.told.waited += self.env.now - began
            yield from burn(self.env, self.cores, cpu)
            self.told.server_cpu += cpu
            self.told.wal_bytes += wal
            if not shared:
                yield self._durable()
        if shared:
            yield from burn(self.env, self.cores, self.costs.wait)
            self.told.server_cpu += self.costs.wait
            yield self._durable()

    def _durable(self) -> simpy.Event:
        """What is written so far is on the disk."""
        if not self.dirty.triggered:
            self.dirty.succeed()
        return self.flushed


def burn(env: simpy.Environment, cores: simpy.Resource, cpu: float) -> Process:
    """Use one of the cores."""
    with cores.request() as core:
        yield core
        yield env.timeout(cpu)


class Box:
    """A worker: its parent claims and completes, its lanes work."""

    def __init__(self, server: Server, setting: Setting, left: list[int], number: int) -> None:
        self.env = server.env
        self.server = server
        self.setting = setting
        self.left = left
        self.number = number
        self.shared = setting.boxes > setting.maps
        self.waiting = self.under_way = 0
        self.outcomes: list[int] = []
        self.changed = self.env.event()
        self.cores = server.cores if setting.shared else simpy.Resource(self.env, setting.lanes)
        self.parent = simpy.Resource(self.env, 1)
        for process in (
            self._claim(),
            self._complete(),
            self._beat(),
            *(self._lane() for _ in range(setting.lanes)),
        ):
            self.env.process(process)

    def tell(self) -> None:
        """Something is different."""
        changed, self.changed = self.changed, self.env.event()
        changed.succeed()

    def _map(self) -> int | None:
        """The map to claim from, one after the other; None: nothing is left."""
        for step in range(self.setting.maps):
            at = (self.number + step) % self.setting.maps
            if self.left[at]:
                return at
        return None

    def _claim(self) -> Process:
        setting, costs, told = self.setting, self.server.costs, self.server.told
        wanted = setting.lanes * AHEAD
        while True:
            missing = wanted - (self.waiting + self.under_way) * min(setting.seconds, AHEAD)
            at = self._map()
            if at is None:
                return
            if missing < LOW * wanted and not (self.waiting == 0 and missing > 0):
                yield self.changed
                continue
            told.claims += 1
            quantity = min(100_000, max(1, int(missing / min(setting.seconds, AHEAD))))
            lock = self.server.claiming[at]
            yield self.env.process(self.server.call(lock, costs.claim, costs.wal_claim, shared=self.shared))
            got = min(quantity, self.left[at])
            self.left[at] -= got
            self.waiting += got
            self.tell()

    def _fetch(self) -> Generator[simpy.Event, Any, int]:
        setting, costs = self.setting, self.server.costs
        while not self.waiting:
            yield self.changed
        fair = max(math.ceil(self.waiting / (2 * setting.lanes)), int(0.002 / setting.seconds))
        count = max(1, min(int(CHUNK / setting.seconds), fair, MOST_IN_CHUNK, self.waiting))
        self.waiting -= count
        self.under_way += count
        with self.parent.request() as mine:
            yield mine
            yield from burn(self.env, self.cores, costs.chunk)
            self.server.told.parent_cpu += costs.chunk
        self.tell()
        return count

    def _lane(self) -> Process:
        setting, costs = self.setting, self.server.costs
        following = self.env.process(self._fetch())
        while True:
            count = yield following
            if setting.seconds <= DEEPEST:
                following = self.env.process(self._fetch())
            yield from burn(self.env, self.cores, count * costs.lane_item)
            yield self.env.timeout(count * setting.seconds)
            self.under_way -= count
            self.outcomes.append(count)
            if setting.seconds > DEEPEST:
                following = self.env.process(self._fetch())
            self.tell()

    def _complete(self) -> Process:
        setting, costs, told = self.setting, self.server.costs, self.server.told
        while True:
            while not self.outcomes:
                yield self.changed
            over = not self.waiting and self._map() is None
            due = self.env.timeout(LINGER / 2 if over else LINGER)
            while not due.processed and sum(self.outcomes) < FULL:
                yield due | self.changed
            taken, self.outcomes = self.outcomes, []
            items, parts = sum(taken), len(taken)
            cpu = costs.complete + parts * costs.part + items * costs.item
            wal = costs.wal_complete + parts * costs.wal_part + items * (costs.wal_item + setting.payload)
            told.completions += 1
            lock = self.server.completing[self.number % setting.maps]
            yield self.env.process(self.server.call(lock, cpu, wal, shared=self.shared))
            told.items += items
            told.seconds = self.env.now

    def _beat(self) -> Process:
        while True:
            yield self.env.timeout(1.0)
            yield from burn(self.env, self.server.cores, self.server.costs.box)
            self.server.told.server_cpu += self.server.costs.box


def play(setting: Setting, costs: Costs = COSTS) -> Told:
    """Simulate a setting to its last completion."""
    env, told = simpy.Environment(), Told()
    server = Server(env, setting, costs, told)
    each = setting.items // setting.maps
    left = [each] * setting.maps
    told.wal_bytes = each * setting.maps * costs.wal_element
    for number in range(setting.boxes):
        Box(server, setting, left, number)
    ideal = setting.items * setting.seconds / setting.lanes / setting.boxes
    env.run(until=1.2 * ideal + 2)
    while told.seconds > env.now - 2:
        env.run(until=env.now + 3)
    return told


def play_sessions(sessions: int, maps: int, lease: int, seconds: float, costs: Costs = COSTS) -> int:
    """How many leases so many connections get and complete, with one of each map in a claim."""
    env, told = simpy.Environment(), Told()
    server = Server(env, Setting(0, 0, 1.0, 0, maps), costs, told)
    done = [0]
    shared = sessions > 1

    def session(number: int) -> Process:
        while True:
            lock = server.claiming[number % maps]
            yield env.process(server.call(lock, costs.claim, 0.0, shared=shared))
            for lock in server.completing:
                cpu = costs.complete + costs.part + lease / maps * costs.item
                yield env.process(server.call(lock, cpu, 0.0, shared=shared))
                yield from burn(env, server.cores, costs.session)
                done[0] += 1

    for number in range(sessions):
        env.process(session(number))
    env.run(until=seconds)
    return done[0]


def steady(setting: Setting, costs: Costs = COSTS) -> float:
    """The share of the ideal rate at which items are completed in the midst of maps, simulated."""
    endless = replace(setting, items=10**12)
    env, told = simpy.Environment(), Told()
    server = Server(env, endless, costs, told)
    left = [endless.items // endless.maps] * endless.maps
    for number in range(endless.boxes):
        Box(server, endless, left, number)
    env.run(until=BEGIN)
    before = told.items
    env.run(until=BEGIN + SPAN)
    return (told.items - before) / (setting.boxes * setting.lanes * SPAN / setting.seconds)
