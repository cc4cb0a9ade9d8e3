"""Retries by real parallel connections, while others work on the run: nothing is lost or mixed up."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from pgflow_mp.testing import audit_run

from .helpers import WORKER, Db, Row, flow, make_visible, map_step, start, step
from .range_work import OTHER, hired
from .repairing import Handlers, Repair, store
from .test_concurrency import Crew, arena, crew, forget_runs

__all__ = ["arena", "crew"]
THIRD = uuid.UUID("33333333-3333-3333-3333-333333333333")
INPUT = ["1", "x", "3", "x", "5", "6", "7", "x"]
HANDLERS: Handlers = {
    "m": int,
    "n": lambda value: -1 if value is None else value + 1,
    "total": lambda given: [-1 if v is None else v for v in given["n"]],
    "each": lambda value: value * 2,
    "last": lambda given: sum(given["each"]),
}
MENDED: Handlers = {**HANDLERS, "m": lambda text: 0 if text == "x" else int(text)}
EXPECTED = {"last": sum(2 * (MENDED["m"](text) + 1) for text in INPUT)}


def prepared(db: Db, rng: random.Random, storage: str) -> tuple[uuid.UUID, list[Row]]:
    """A run on its way, and what the first worker holds of it."""
    run = start(db, "f", INPUT)
    repair = Repair(db, run, HANDLERS)
    held = repair.claim(50)
    repair.settle(held[: rng.choice([5, 8])])
    for _ in range(rng.randint(0, 3)):
        repair.settle(repair.claim(50))
    return run, held[8:] + repair.claim(rng.choice([2, 50]))


def job(name: str, run: uuid.UUID, held: list[Row], rng: random.Random) -> Any:
    items = rng.sample(held, k=len(held))

    def settle(db: Db) -> None:
        Repair(db, run, HANDLERS).settle(items)

    def work(db: Db) -> None:
        repair = Repair(db, run, MENDED, worker=OTHER)
        repair.settle(repair.claim(4))

    def release(db: Db) -> None:
        for item in items:
            if item.lease is None:
                db.do("select pgflow.release_tasks('f', %s, array[%s::bigint])", WORKER, item.msg_id)
            else:
                db.do(
                    "select pgflow.release_ranges(%s, %s, %s, array[%s::int], array[%s::int], '{1}')",
                    *(run, item.step, WORKER, item.lease, item.index),
                )

    def extend(db: Db) -> None:
        ids = [item.msg_id for item in items if item.msg_id is not None]
        db.rows("select * from pgflow.extend_tasks('f', %s, %s::bigint[], 60)", WORKER, ids)

    def cancel(db: Db) -> None:
        db.do("select pgflow.cancel_run(%s)", run)

    jobs = {
        "settle": settle,
        "work": work,
        "release": release,
        "extend": extend,
        "cancel": cancel,
        "retry": lambda db: len(db.rows("select * from pgflow.retry_items(%s)", run)),
        "retire": lambda db: db.do("select pgflow.retire_worker(%s)", WORKER),
    }
    return jobs[name]


RACES = [
    ("retry", "retry", "work", "settle"),
    ("retry", "settle", "cancel", "retry"),
    ("retry", "extend", "release", "work"),
    ("retry", "retire", "settle", "retry"),
]


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="short"), pytest.param(30, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
@pytest.mark.parametrize("race", RACES, ids="-".join)
def test_in_the_end_each_item_is_that_of_the_mended_code(
    arena: Db, crew: Crew, race: tuple[str, ...], storage: str, rounds: int
) -> None:
    steps = [map_step("m"), map_step("n", "m"), step("total", "n"), map_step("each", "total")]
    flow(arena, "f", *steps, step("last", "each"), max_attempts=1, base_delay=0)
    store(arena, "f", dict.fromkeys(["m", "n", "each"], storage), {"m": 5})
    for n in range(rounds):
        for worker in (WORKER, OTHER, THIRD):
            hired(arena, worker=worker)
            arena.do("update pgflow.workers set stopped_at = null, died_at = null, recovered_at = null")
        rng = random.Random(f"{race} {storage} {n}")
        run, held = prepared(arena, rng, storage)
        answers = crew.race(*(job(name, run, held, rng) for name in race))
        if race.count("retry") == 2 and "cancel" not in race:
            counts = [answer for name, answer in zip(race, answers, strict=True) if name == "retry"]
            assert 0 in counts or "settle" in race  # what one has done the other need not do
        assert audit_run(arena.conn, str(run)) == []
        finish(arena, run, held)
        forget_runs(arena)


def finish(db: Db, run: uuid.UUID, late: list[Row]) -> None:
    """Mend the code, retry and work to the end, with late results of before on the way."""
    third = Repair(db, run, MENDED, worker=THIRD)
    db.do("select pgflow.retire_worker(%s)", WORKER)
    db.do("select pgflow.retire_worker(%s)", OTHER)
    for _ in range(20):
        third.retry()
        make_visible(db, "f")
        for item in late:
            assert Repair(db, run, HANDLERS).complete(item, "late").accepted == 0
        third.work()
        if third.status == "completed" and not third.retry(dry_run=True):
            break
    assert (third.status, third.output) == ("completed", EXPECTED)
