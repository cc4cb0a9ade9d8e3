"""Random interleavings of two maps in ranges, of which the second begins with what the first has done."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from psycopg.types.json import Json

from .helpers import Db, map_step, run_row, start
from .range_work import (
    Lease,
    assert_whole,
    claim_work,
    complete_parts,
    dies,
    fail_items,
    hired,
    policy,
    ranges_flow,
    release,
    results,
)


def answer(element: Any) -> Any:
    """What the second map makes of a result of the first; null is that of a failure that was tolerated."""
    return -1 if element is None else element + 1_000_000


def inputs(db: Db, lease: Lease) -> list[Any]:
    found: dict[int, Any] = {}
    query = "select * from pgflow.range_pages(%s, %s, %s, %s)"
    for page in db.rows(query, lease.run, lease.step, lease.first, lease.items):
        found.update(enumerate(page.input, page.task_index))
    return [found[i] for i in range(*lease.bounds)]


def step(db: Db, rng: random.Random, run: uuid.UUID, worker: uuid.UUID, made: dict[int, Any]) -> None:
    """One claim; of what it answers some is completed, some fails, some is handed back, some is kept."""
    claimed = claim_work(db, rng.randint(1, 30), worker, qty=rng.randint(0, 4))
    for lease in claimed.leases:
        if lease.step == "n":
            elements = inputs(db, lease)
            assert elements == [made[i] for i in range(*lease.bounds)]
            outputs = [answer(e) for e in elements]
        else:
            outputs = [rng.randrange(1000) for _ in range(lease.items)]
        cut = rng.randint(0, lease.items)
        if cut:
            part = (lease.lease_no, lease.first, cut)
            settled = complete_parts(db, run, [part], [outputs[:cut]], worker=worker, step=lease.step)
            assert settled.accepted == cut
            if lease.step == "m":
                made.update(enumerate(outputs[:cut], lease.first))
        rest = lease.first + cut
        if rest < lease.bounds[1] and rng.random() < 0.3:
            permanent = lease.step == "m" and rng.random() < 0.5
            fail_items(
                db, run, [rest], lease_no=lease.lease_no, permanent=permanent, worker=worker, step=lease.step
            )
            if permanent:
                made[rest] = None
            rest += 1
        if rest < lease.bounds[1] and rng.random() < 0.6:
            part = (lease.lease_no, rest, lease.bounds[1] - rest)
            assert release(db, run, [part], worker=worker, step=lease.step) == part[2]
    for task in claimed.tasks:
        output = answer(task.input) if task.step_slug == "n" else rng.randrange(1000)
        if task.step_slug == "n":
            assert task.input == made[task.task_index]
        else:
            made[task.task_index] = output
        db.do(
            "select pgflow.complete_tasks(%s, %s, array[%s], array[%s::jsonb], %s, array[%s])",
            *(run, task.step_slug, task.task_index, Json(output), worker, task.attempt),
        )


def play(db: Db, seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([1, 10, 60, 150])
    ranges_flow(db, "f", map_step("m"), map_step("n", "m"), max_attempts=3, base_delay=0)
    for slug in ("m", "n"):
        policy(db, "f", slug, tolerated_failures=count, barrier=slug == "m")
    run = start(db, "f", list(range(count)))
    workers = [hired(db, worker=uuid.UUID(int=rng.getrandbits(128))) for _ in range(3)]
    made: dict[int, Any] = {}
    ahead = False
    for _ in range(600):
        at = run_row(db, run).status
        if at == "completed":
            break
        worker = rng.choice(workers)
        step(db, rng, run, worker, made)
        if rng.random() < 0.1:
            dies(db, worker) if rng.random() < 0.5 else db.do("select pgflow.retire_worker(%s)", worker)
            workers[workers.index(worker)] = hired(db, worker=uuid.UUID(int=rng.getrandbits(128)))
        if rng.random() < 0.03 and run_row(db, run).status == "started":
            db.do("select pgflow.cancel_run(%s)", run)
            db.do("select pgflow.retry_failed_tasks(%s)", run)
        assert_whole(db, run, "m")
        ahead = ahead or (bool(results(db, run, "n")) and len(results(db, run)) < count)
    else:
        for worker in workers:
            db.do("select pgflow.retire_worker(%s)", worker)
        raise AssertionError("it does not come to an end")
    assert results(db, run) == made
    assert results(db, run, "n") == {i: answer(made[i]) for i in range(count)}
    assert run_row(db, run).output == {"n": [answer(made[i]) for i in range(count)]}
    assert ahead or count < 60
    assert db.value("select count(*) from pgflow.ranges") == 0


@pytest.mark.parametrize("seed", [0, 5])
def test_what_is_passed_on_is_what_was_recorded(db: Db, seed: int) -> None:
    play(db, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(1, 5), *range(100, 160)])
def test_what_is_passed_on_is_what_was_recorded_for_long(db: Db, seed: int) -> None:
    play(db, seed)
