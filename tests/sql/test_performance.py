"""Time bounds of the contract (6.1, 6.5, 7) with room for a busy machine."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import (
    WORKER,
    Db,
    claim,
    complete,
    drain,
    flow,
    map_step,
    run_row,
    setup,
    start,
    start_tasks,
    step,
    worker,
)

pytestmark = pytest.mark.slow

ROOM = 3
"""The machine may be this much slower than the contract's bounds allow."""


def elements(count: int) -> list[dict[str, Any]]:
    """Objects of about 150 bytes."""
    return [
        {"id": i, "name": f"item {i}", "text": "x" * 90, "tags": ["a", "b"], "n": i * 1.5}
        for i in range(count)
    ]


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@pytest.mark.parametrize(("count", "limit"), [(1_000, 0.150), (10_000, 0.800)])
def test_a_root_map_starts_within_its_bound(db: Db, count: int, limit: float) -> None:
    setup(db, "root_map")
    given = Jsonb(elements(count))
    taken = [seconds(lambda: db.do("select pgflow.start_flow('root_map', %s)", given)) for _ in range(3)]
    assert min(taken) < limit * ROOM


def test_spawning_scales_linearly(db: Db) -> None:
    setup(db, "root_map")
    per_size = {}
    for count in (100, 1_000, 10_000):
        begin = partial(db.do, "select pgflow.start_flow('root_map', %s)", Jsonb(elements(count)))
        runs = [seconds(begin) for _ in range(3)]
        per_size[count] = min(runs) / count
    assert per_size[10_000] < 2 * per_size[100]
    assert per_size[10_000] < 0.005


@pytest.mark.parametrize(("count", "limit"), [(1, 0.050), (10, 0.120), (50, 0.500)])
def test_a_claim_is_within_its_bound_at_every_size(db: Db, count: int, limit: float) -> None:
    setup(db, "root_map")
    worker(db, "root_map")
    taken = {}
    for size in (100, 1_000, 10_000):
        start(db, "root_map", elements(size))
        ids = db.column(
            "select max(message_id) - g from pgflow.step_tasks, generate_series(0, %s) g group by g",
            count - 1,
        )
        runs = [seconds(partial(start_tasks, db, "root_map", ids)) for _ in range(10)]
        taken[size] = statistics.mean(runs)
        assert taken[size] < limit * ROOM
        assert max(runs) < 15 * taken[size] * ROOM
    assert max(taken.values()) - min(taken.values()) < 0.050 * ROOM


def test_claiming_by_the_batch_is_cheaper(db: Db) -> None:
    setup(db, "root_map")
    start(db, "root_map", elements(10_000))
    singles = [seconds(lambda: claim(db, "root_map", 1)) for _ in range(10)]
    tens = [seconds(lambda: claim(db, "root_map", 10)) for _ in range(10)]
    assert statistics.median(tens) / 10 * 1.5 < statistics.median(singles)


@pytest.mark.parametrize("length", [10, 30, 49])
def test_an_empty_chain_cascades_within_its_bound(db: Db, length: int) -> None:
    flow(db, "f", map_step("m0"), *[map_step(f"m{i}", f"m{i - 1}") for i in range(1, length)])
    taken = seconds(lambda: start(db, "f", []))
    assert taken < 5
    assert taken < 0.100 * length


@pytest.mark.parametrize("shape", ["root_map", "single_then_map", "map_chain"])
def test_the_cost_of_a_claimed_element_does_not_grow_with_the_array(db: Db, shape: str) -> None:
    """Neither root, nor dependent, nor chained maps may read the whole array once a task."""
    setup(db, shape)
    per_claim = {}
    for size in (200, 10_000):
        run = start(db, shape, elements(size))
        if shape == "single_then_map":
            (task,) = [t for t in claim(db, shape, 50) if t.step_slug == "source"]
            complete(db, task.run_id, "source", elements(size))
        elif shape == "map_chain":
            settle_all(db, shape, run, "m1", size)
        runs = [seconds(lambda: claim(db, shape, 50)) for _ in range(4)]
        per_claim[size] = min(runs)
        db.do("delete from pgmq.q_" + shape)
    assert per_claim[10_000] < 2.5 * per_claim[200] + 0.01


def settle_all(db: Db, slug: str, run: object, step_slug: str, count: int) -> None:
    done = 0
    while done < count:
        rows = db.rows(
            "select task_index, attempt from pgflow.claim_tasks(%s, %s, 1000)", slug, worker(db, slug)
        )
        db.do(
            "select pgflow.complete_tasks(%s, %s, %s::int[], %s::text[]::jsonb[], %s, %s::int[])",
            run,
            step_slug,
            [r.task_index for r in rows],
            [json.dumps(r.task_index) for r in rows],
            WORKER,
            [r.attempt for r in rows],
        )
        done += len(rows)


def test_a_wide_flow_of_many_steps_stays_fast(db: Db) -> None:
    """40 parallel branches with a join: conditions and counters must not cost a scan of the run each."""
    names = [f"s{i}" for i in range(40)]
    flow(db, "f", "root", *[step(n, "root") for n in names], step("join", *names))
    run = start(db, "f")
    assert seconds(lambda: drain(db, "f")) < 3
    assert run_row(db, run).status == "completed"


def test_a_hundred_thousand_tasks_end_in_one_array_in_order(db: Db) -> None:
    setup(db, "root_map")
    run = start(db, "root_map", [1] * 100_000)
    settle_all(db, "root_map", run, "items", 100_000)
    assert db.value(
        "select output = (select jsonb_agg(i) from generate_series(0, 99999) i) from pgflow.step_states"
        " where step_slug = 'items'"
    )
