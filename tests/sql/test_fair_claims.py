"""``start_run`` and fair claims among the runs of a flow (ours): equal shares, higher priority first."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest

from .helpers import (
    Db,
    claim,
    complete,
    drain,
    fail,
    flow,
    make_visible,
    map_step,
    run_row,
    setup,
    start,
    statuses,
    step,
    tasks,
)
from .test_claim_tasks import take


def start_run(db: Db, slug: str, input: str, priority: int = 0) -> uuid.UUID:
    run: uuid.UUID = db.value(
        "select pgflow.start_run(flow_slug => %s, input => %s::jsonb, priority => %s)", slug, input, priority
    )
    return run


def shares(db: Db, slug: str, qty: int) -> Counter[uuid.UUID]:
    return Counter(row.run_id for row in take(db, slug, qty))


def test_a_run_started_by_start_run_is_like_any_other(db: Db) -> None:
    setup(db, "sequential")
    run = start_run(db, "sequential", '{"a": 1}')
    assert statuses(db, run) == {"first": "started", "second": "created", "last": "created"}
    assert run_row(db, run).input == {"a": 1}
    given = uuid.uuid4()
    assert db.value("select pgflow.start_run('sequential', '{}', %s)", given) == given
    assert db.refused("select pgflow.start_run('sequential', '{}', %s)", given).sqlstate == "23505"


def test_two_runs_share_a_claim(db: Db) -> None:
    setup(db, "root_map")
    one, two = (start(db, "root_map", list(range(20))) for _ in range(2))
    found = shares(db, "root_map", 10)
    assert 4 <= found[one] <= 6
    assert found[one] + found[two] == 10


def test_claims_smaller_than_the_number_of_runs_are_shared_too(db: Db) -> None:
    setup(db, "root_map")
    runs = [start(db, "root_map", list(range(100))) for _ in range(5)]
    found: Counter[uuid.UUID] = Counter()
    for _ in range(40):
        found += shares(db, "root_map", 2)
    assert all(3 <= found[run] <= 40 for run in runs)


def test_a_small_run_does_not_wait_behind_a_big_one(db: Db) -> None:
    setup(db, "root_map")
    start(db, "root_map", list(range(3000)))
    small = start(db, "root_map", [1])
    assert shares(db, "root_map", 100)[small] == 1


def test_what_one_run_does_not_use_goes_to_the_others(db: Db) -> None:
    setup(db, "root_map")
    start(db, "root_map", [1])
    start(db, "root_map", list(range(50)))
    assert shares(db, "root_map", 30).total() == 30
    assert shares(db, "root_map", 30).total() == 21


def test_a_higher_priority_is_claimed_first(db: Db) -> None:
    setup(db, "root_map")
    low = start(db, "root_map", list(range(10)))
    high = start_run(db, "root_map", "[1, 2, 3, 4, 5]", 5)
    assert shares(db, "root_map", 4) == {high: 4}
    assert shares(db, "root_map", 4) == {high: 1, low: 3}


def test_a_negative_priority_comes_last(db: Db) -> None:
    setup(db, "root_map")
    last = start_run(db, "root_map", "[1, 2, 3]", -1)
    normal = start(db, "root_map", [1, 2, 3])
    assert shares(db, "root_map", 3) == {normal: 3}
    assert shares(db, "root_map", 3) == {last: 3}


def test_a_delayed_run_of_high_priority_does_not_stop_the_others(db: Db) -> None:
    flow(db, "f", map_step("m"), base_delay=60)
    normal = start(db, "f", [1, 2])
    high = start_run(db, "f", "[1, 2]", 9)
    claim(db, "f", 4)
    for i in range(2):
        fail(db, high, "m", "later", i)
        db.do(
            "select pgflow.release_tasks('f', last_worker_id, array[message_id]) from pgflow.step_tasks"
            " where run_id = %s and task_index = %s",
            normal,
            i,
        )
    assert shares(db, "f", 10) == {normal: 2}
    make_visible(db, "f")
    assert shares(db, "f", 10) == {high: 2}


@pytest.mark.parametrize("runs", [3, 40])
def test_every_run_ends_however_many_there_are(db: Db, runs: int) -> None:
    setup(db, "root_map")
    started = [start_run(db, "root_map", "[1, 2, 3]", n % 3) for n in range(runs)]
    while rows := take(db, "root_map", 17):
        for row in rows:
            complete(db, row.run_id, row.step_slug, row.task_index, row.task_index)
    assert {run_row(db, run).status for run in started} == {"completed"}


def test_tasks_handed_back_early_in_a_long_map_are_claimed_again(db: Db) -> None:
    setup(db, "root_map")
    run, other = start(db, "root_map", list(range(1500))), start(db, "root_map", [1])
    rows = [r for r in take(db, "root_map", 2000) if r.run_id == run]
    assert len(rows) == 1500
    db.do(
        "select pgflow.complete_tasks(%s, 'items', array_agg(i), array_agg(to_jsonb(i)))"
        " from generate_series(5, 1499) i",
        run,
    )
    ids = [r.msg_id for r in rows if r.task_index < 5]
    db.do(
        "select pgflow.release_tasks('root_map', last_worker_id, %s::bigint[]) from pgflow.step_tasks"
        " where run_id = %s and task_index = 0",
        ids,
        run,
    )
    assert shares(db, "root_map", 10)[run] == 5
    complete(db, other, "items", 1, 0)


def test_several_steps_of_several_runs_are_worked_to_the_end(db: Db) -> None:
    flow(db, "f", "a", map_step("m", "a"), step("b", "a"), step("z", "m", "b"))
    runs = [start(db, "f") for _ in range(5)]
    assert drain(db, "f", {"a": [1, 2]}) == 5 * 5
    assert {run_row(db, run).status for run in runs} == {"completed"}
    assert all(len(tasks(db, run)) == 5 for run in runs)
