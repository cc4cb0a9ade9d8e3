"""Random interleavings of several workers on a small map in ranges against a model in Python.

The model knows where each item is and predicts what every call takes and refuses; which free items a claim
gets is the engine's choice, but they must have been free.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from psycopg.types.json import Json

from .helpers import Db, run_row, state
from .range_work import (
    Lease,
    assert_whole,
    claim_work,
    complete_parts,
    dies,
    fail_items,
    hired,
    mapped,
    policy,
    release,
    results,
)

MAX_ATTEMPTS = 2


@dataclass
class Item:
    """What the model knows of one item: free, leased, queued, started, cancelled, failed or completed."""

    where: str = "free"
    worker: uuid.UUID | None = None
    lease_no: int = 0
    lease: int = 0  # which claim it came by: leases of one number may lie side by side
    attempts: int = 0
    output: Any = None


@dataclass
class Model:
    db: Db
    rng: random.Random
    run: uuid.UUID
    items: list[Item]
    workers: list[uuid.UUID] = field(default_factory=list)
    past: list[tuple[uuid.UUID, Lease]] = field(default_factory=list)
    leases: int = 0
    outputs: int = 0

    def where(self, *places: str) -> list[int]:
        return [i for i, item in enumerate(self.items) if item.where in places]

    def hire(self) -> None:
        self.workers.append(hired(self.db, worker=uuid.UUID(int=self.rng.getrandbits(128))))

    def output(self) -> int:
        self.outputs += 1
        return self.outputs

    # -- steps ----------------------------------------------------------------------------------------

    def claim(self, limit: int = 12) -> bool:
        """One claim of one worker; whether it got anything."""
        worker = self.rng.choice(self.workers)
        claimed = claim_work(self.db, self.rng.randint(0, limit), worker, qty=self.rng.randint(0, 3))
        for lease in claimed.leases:
            self.leases += 1
            for i in range(*lease.bounds):
                assert self.items[i].where == "free"
                assert self.items[i].lease_no < lease.lease_no
                self.items[i] = Item("leased", worker, lease.lease_no, self.leases)
            self.past.append((worker, lease))
        for task in claimed.tasks:
            item = self.items[task.task_index]
            assert (item.where, task.input) == ("queued", {"n": task.task_index})
            item.where, item.worker, item.attempts = "started", worker, item.attempts + 1
            assert item.attempts == task.attempt
            if task.deaths is not None:
                self.settle_task(task.task_index, permanent=True)
        return bool(claimed.leases or claimed.tasks)

    def part(self) -> tuple[uuid.UUID, tuple[int, int, int]] | None:
        """Of a lease of now or of before; sometimes a little wrong."""
        if not self.past:
            return None
        worker, lease = self.rng.choice(self.past[-12:])
        first = self.rng.randint(*lease.bounds) - (self.rng.random() < 0.1)
        count = self.rng.randint(0, max(1, lease.bounds[1] - first)) + (self.rng.random() < 0.1)
        if self.rng.random() < 0.1:
            worker = self.rng.choice(self.workers)
        return worker, (lease.lease_no + (self.rng.random() < 0.05), first, count)

    def holds(self, worker: uuid.UUID, part: tuple[int, int, int]) -> bool:
        lease_no, first, count = part
        if count <= 0 or first < 0 or first + count > len(self.items):
            return False
        items = self.items[first : first + count]
        return len({item.lease for item in items}) == 1 and all(
            (item.where, item.worker, item.lease_no) == ("leased", worker, lease_no) for item in items
        )

    def complete(self) -> None:
        parts = [p for p in (self.part() for _ in range(self.rng.randint(1, 3))) if p is not None]
        if not parts:
            return
        worker = parts[0][0]
        mine = [part for _, part in parts]
        outputs = [[self.output() for _ in range(max(0, count))] for _, _, count in mine]
        on = self.is_on()
        settled = complete_parts(self.db, self.run, mine, outputs, worker=worker)
        accepted, rejected = 0, []
        for part, values in zip(mine, outputs, strict=True):
            if on and self.holds(worker, part):
                accepted += part[2]
                for i, value in enumerate(values, part[1]):
                    self.items[i] = Item("completed", output=value)
            else:
                rejected.append(part[1])
        assert (settled.accepted, settled.rejected) == (accepted, rejected)

    def fail(self) -> None:
        found = self.part()
        if found is None:
            return
        worker, (lease_no, first, count) = found
        indexes = self.rng.sample(range(first, first + max(1, count)), k=max(1, count // 2))
        permanent = self.rng.random() < 0.3
        on = self.is_on()
        settled = fail_items(
            self.db, self.run, indexes, lease_no=lease_no, permanent=permanent, worker=worker
        )
        rejected = []
        for i in indexes:
            if on and self.holds(worker, (lease_no, i, 1)):
                self.items[i] = Item("failed" if permanent else "queued", attempts=1)
            else:
                rejected.append(i)
        assert (settled.accepted, settled.rejected) == (len(indexes) - len(rejected), rejected)

    def hand_back(self) -> None:
        found = self.part()
        if found is None:
            return
        worker, part = found
        count = release(self.db, self.run, [part], worker=worker)
        if self.holds(worker, part):
            assert count == part[2]
            for i in range(part[1], part[1] + part[2]):
                self.items[i] = Item("free", lease_no=part[0])
        else:
            assert count == 0

    def settle_task(self, index: int | None = None, *, permanent: bool = False) -> None:
        started = self.where("started")
        if index is None and not started:
            return
        index = self.rng.choice(started) if index is None else index
        item = self.items[index]
        if permanent or self.rng.random() < 0.3:
            self.db.do(
                "select pgflow.fail_tasks(%s, 'm', array[%s], '{x}', %s, array[%s], array[%s])",
                *(self.run, index, item.worker, item.attempts, permanent),
            )
            item.where = "failed" if permanent or item.attempts >= MAX_ATTEMPTS else "queued"
        else:
            item.where, item.output = "completed", self.output()
            self.db.do(
                "select pgflow.complete_tasks(%s, 'm', array[%s], array[%s::jsonb], %s, array[%s])",
                *(self.run, index, Json(item.output), item.worker, item.attempts),
            )

    def die(self) -> None:
        worker = self.rng.choice(self.workers)
        self.workers.remove(worker)
        self.hire()
        held = [i for i in self.where("leased", "started") if self.items[i].worker == worker]
        if self.rng.random() < 0.4:
            count = self.db.value("select pgflow.retire_worker(%s)", worker)
        else:
            count = dies(self.db, worker)
        assert count == len(held)
        cornered = set(self.db.column("select task_index from pgflow.step_tasks where run_id = %s", self.run))
        for i in held:
            item = self.items[i]
            if item.where == "started":
                item.where, item.attempts = "queued", max(0, item.attempts - 1)
            elif i in cornered:
                self.items[i] = Item("queued")
            else:
                self.items[i] = Item("free", lease_no=item.lease_no)

    def is_on(self) -> bool:
        return not self.where("cancelled") and run_row(self.db, self.run).status == "started"

    def cancel_and_retry(self) -> None:
        self.db.do("select pgflow.cancel_run(%s)", self.run)
        for i in self.where("leased"):
            self.items[i] = Item("free", lease_no=self.items[i].lease_no)
        for i in self.where("queued", "started"):
            self.items[i].where = "cancelled"
        for _ in range(self.rng.randint(0, 3)):
            self.rng.choice([self.complete, self.fail])()
            assert not self.claim()
        again = self.db.value("select pgflow.retry_failed_tasks(%s)", self.run)
        assert again == len(self.items) - len(self.where("completed"))
        for i in self.where("cancelled", "failed"):
            self.items[i] = Item("queued")

    def check(self) -> None:
        assert_whole(self.db, self.run)
        at = state(self.db, self.run, "m")
        assert at.failed_tasks == len(self.where("failed"))
        if at.status == "started":
            assert at.remaining_tasks == len(self.items) - len(self.where("completed", "failed"))
        tasks = self.db.rows("select * from pgflow.step_tasks where run_id = %s", self.run)
        for task in tasks:
            item = self.items[task.task_index]
            assert (task.status, task.attempts_count) == (item.where, item.attempts), task.task_index


def play(db: Db, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([1, 3, 20, 60, 200])
    run = mapped(db, [{"n": i} for i in range(count)], max_attempts=MAX_ATTEMPTS, base_delay=0)
    policy(db, "f", "m", tolerated_failures=count)
    model = Model(db, rng, run, [Item() for _ in range(count)])
    for _ in range(3):
        model.hire()
    moves = [model.claim] * 6 + [model.complete] * 4 + [model.fail, model.hand_back, model.die]
    moves += [model.settle_task] * 2
    for _ in range(steps):
        if run_row(db, run).status == "completed":
            break
        rng.choice(moves)() if rng.random() < 0.98 else model.cancel_and_retry()
        model.check()
    for _ in range(count * 3 + 60):
        if run_row(db, run).status == "completed":
            break
        model.claim(1000)
        for i in model.where("leased"):
            item = model.items[i]
            if item.where == "leased" and item.worker is not None:
                end = next((j for j in range(i, count) if model.items[j].lease != item.lease), count)
                values = [model.output() for _ in range(i, end)]
                parts = [(item.lease_no, i, end - i)]
                settled = complete_parts(db, run, parts, [values], worker=item.worker)
                assert settled.accepted == end - i
                for j, value in enumerate(values, i):
                    model.items[j] = Item("completed", output=value)
        for i in model.where("started"):
            model.settle_task(i)
        model.check()
    expected = [item.output for item in model.items]
    assert run_row(db, run).output == {"m": expected}
    assert results(db, run) == dict(enumerate(expected))
    assert db.value("select count(*) from pgflow.ranges") == 0
    assert db.value("select count(*) from pgmq.q_f") == 0


@pytest.mark.parametrize("seed", range(4))
def test_every_item_is_in_one_place_and_recorded_once(db: Db, seed: int) -> None:
    play(db, seed, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(4, 12), *range(100, 220)])
def test_every_item_is_in_one_place_and_recorded_once_for_long(db: Db, seed: int) -> None:
    play(db, seed, 250)
