"""``claim_tasks`` (ours): read, start and input in one round trip."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import (
    WORKER,
    Db,
    Row,
    complete,
    fail,
    flow,
    lease,
    make_visible,
    map_step,
    read,
    setup,
    start,
    start_tasks,
    state,
    step,
    task,
    tasks,
    worker,
)


def take(db: Db, slug: str, qty: int = 100, seconds: int | None = None, by: uuid.UUID = WORKER) -> list[Row]:
    worker(db, slug, by)
    return db.rows(
        "select *, input::text as input_text from pgflow.claim_tasks(%s, %s, %s, %s)", slug, by, qty, seconds
    )


def test_tasks_come_in_message_order_with_all_a_worker_needs(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m"), timeout=9), ["a", "b", "c"])
    rows = take(db, "f")
    assert [
        (r.run_id, r.step_slug, r.task_index, r.msg_id, r.attempt, r.input, r.flow_input, r.timeout)
        for r in rows
    ] == [(run, "m", i, i + 1, 1, "abc"[i], None, 9) for i in range(3)]
    assert {t.status for t in tasks(db, run)} == {"started"}
    assert {t.last_worker_id for t in tasks(db, run)} == {WORKER}


def test_the_quantity_is_a_limit(db: Db) -> None:
    start(db, setup(db, "root_map"), list(range(10)))
    assert [len(take(db, "root_map", n)) for n in (3, 4, 100, 1)] == [3, 4, 3, 0]


@pytest.mark.parametrize("qty", [0, -1])
def test_no_quantity_claims_nothing(db: Db, qty: int) -> None:
    run = start(db, setup(db, "one"))
    assert take(db, "one", qty) == []
    assert task(db, run, "only").status == "queued"


def test_inputs_are_those_of_start_tasks(db: Db) -> None:
    flow(db, "f", "root", map_step("m", "root"), step("s", "root"), map_step("mm", "m"))
    run = start(db, "f", {"in": 1})
    (root,) = take(db, "f")
    assert (root.input_text, root.flow_input) == ("{}", {"in": 1})
    complete(db, run, "root", [None, {"x": 1}])
    found = {(r.step_slug, r.task_index): r.input_text for r in take(db, "f")}
    assert found == {("m", 0): "null", ("m", 1): '{"x": 1}', ("s", 0): '{"root": [null, {"x": 1}]}'}
    complete(db, run, "m", "A", 0)
    complete(db, run, "m", "B", 1)
    assert [r.input for r in take(db, "f")] == ["A", "B"]


def test_the_default_lease_is_the_slowest_step_s_timeout_and_two(db: Db) -> None:
    flow(db, "f", step("a", timeout=100), "b", timeout=20)
    start(db, "f")
    rows = take(db, "f")
    assert [r.timeout for r in rows] == [100, 20]
    assert all(101 < lease(db, "f", r.msg_id) <= 102 for r in rows)


def test_a_lease_can_be_asked_for(db: Db) -> None:
    start(db, setup(db, "one"))
    (row,) = take(db, "one", 1, 7)
    assert 6 < lease(db, "one", row.msg_id) <= 7


def test_what_is_not_claimable_is_left_out(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1), "b")
    gone, live = start(db, "f"), start(db, "f")
    db.do("update pgflow.runs set status = 'failed' where run_id = %s", gone)
    assert {(r.run_id, r.step_slug) for r in take(db, "f")} == {(live, "a"), (live, "b")}


def test_a_retry_is_claimed_with_its_attempt(db: Db) -> None:
    run = start(db, setup(db, "one"))
    take(db, "one")
    fail(db, run, "only")
    assert take(db, "one") == []
    make_visible(db, "one")
    assert [r.attempt for r in take(db, "one")] == [2]


def test_an_unknown_flow_gives_no_rows(db: Db) -> None:
    assert take(db, "nope") == []


def test_an_unknown_worker_is_refused_and_nothing_is_claimed(db: Db) -> None:
    run = start(db, setup(db, "one"))
    refusal = db.refused("select * from pgflow.claim_tasks('one', gen_random_uuid(), 1)")
    assert refusal.sqlstate == "23503"
    assert task(db, run, "only").status == "queued"
    assert len(take(db, "one")) == 1


def test_contract_workers_and_ours_share_a_queue(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    ids = read(db, "root_map", 1, 60)
    (ours,) = take(db, "root_map")
    assert ours.task_index == 1
    (theirs,) = start_tasks(db, "root_map", ids)
    assert theirs.task_index == 0
    complete(db, run, "items", 1, 0)
    complete(db, run, "items", 2, 1)
    assert state(db, run, "items").output == [1, 2]


def test_two_claims_never_share_a_task_even_when_messages_reappear(db: Db) -> None:
    start(db, setup(db, "root_map"), list(range(5)))
    assert len(take(db, "root_map", 3)) == 3
    make_visible(db, "root_map")
    assert [r.task_index for r in take(db, "root_map", 10, by=uuid.uuid4())] == [3, 4]


@pytest.mark.parametrize("count", [20_000, 20_001, 45_000])
@pytest.mark.slow
def test_a_map_larger_than_one_spawn_window_is_worked_to_the_end(db: Db, count: int) -> None:
    run = start(db, setup(db, "root_map"), list(range(count)))
    done = 0
    while rows := take(db, "root_map", 5000):
        if rows[0].step_slug != "items":
            break
        indexes: Any = [r.task_index for r in rows]
        db.do(
            "select pgflow.complete_tasks(%s, 'items', %s::int[],"
            " (select array_agg(to_jsonb(i)) from unnest(%s::int[]) i))",
            run,
            indexes,
            indexes,
        )
        done += len(rows)
    assert done == count
    assert (
        db.value("select jsonb_array_length(output) from pgflow.step_states where step_slug = 'items'")
        == count
    )
    assert rows[0].step_slug == "total"
    assert rows[0].input["items"] == list(range(count))
