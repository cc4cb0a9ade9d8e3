"""``complete_tasks`` and ``fail_tasks`` (ours): many tasks of one step, fenced by worker and attempt."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from .helpers import (
    WORKER,
    Db,
    Row,
    archive,
    claim,
    complete,
    event,
    event_names,
    events,
    fail,
    flow,
    lease,
    make_visible,
    map_step,
    queue,
    run_row,
    setup,
    snapshot,
    start,
    state,
    statuses,
    step,
    task,
    task_statuses,
    tasks,
)

OTHER = uuid.UUID(int=7)


def settle(
    db: Db,
    run: uuid.UUID,
    slug: str,
    outputs: dict[int, Any],
    by: uuid.UUID | None = WORKER,
    attempt: int = 1,
) -> Row:
    return db.row(
        "select * from pgflow.complete_tasks(%s, %s, %s::int[], %s::text[]::jsonb[], %s, %s::int[])",
        run,
        slug,
        list(outputs),
        [json.dumps(o) for o in outputs.values()],
        by,
        None if by is None else [attempt] * len(outputs),
    )


def settle_failed(
    db: Db,
    run: uuid.UUID,
    slug: str,
    errors: dict[int, str],
    permanent: tuple[int, ...] = (),
    by: uuid.UUID | None = WORKER,
    attempt: int = 1,
) -> Row:
    return db.row(
        "select * from pgflow.fail_tasks(%s, %s, %s::int[], %s::text[], %s, %s::int[], %s::boolean[])",
        run,
        slug,
        list(errors),
        list(errors.values()),
        by,
        None if by is None else [attempt] * len(errors),
        [i in permanent for i in errors],
    )


def test_a_batch_completes_many_tasks_at_once(db: Db) -> None:
    run = start(db, setup(db, "root_map"), list("abcd"))
    claim(db, "root_map", 4)
    row = settle(db, run, "items", {2: "C", 0: "A", 3: None})
    assert row == Row(accepted=3, rejected=[], step_status="started", run_status="started")
    assert state(db, run, "items").remaining_tasks == 1
    assert queue(db, "root_map") == [("items", 1)]
    row = settle(db, run, "items", {1: "B"})
    assert row == Row(accepted=1, rejected=[], step_status="completed", run_status="started")
    assert state(db, run, "items").output == ["A", "B", "C", None]
    assert state(db, run, "total").status == "started"


def test_the_last_batch_ends_the_run(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), [1, 2])
    claim(db, "f", 2)
    row = settle(db, run, "m", {0: 1, 1: 2})
    assert (row.accepted, row.step_status, row.run_status) == (2, "completed", "completed")
    assert run_row(db, run).output == {"m": [1, 2]}
    assert event_names(db, run) == ["run:started", "step:m:started", "step:m:completed", "run:completed"]


def test_the_same_batch_again_is_rejected_and_changes_nothing(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    claim(db, "root_map", 3)
    settle(db, run, "items", {0: 1, 1: 2})
    before = snapshot(db, run)
    row = settle(db, run, "items", {0: "late", 1: "late"})
    assert (row.accepted, sorted(row.rejected)) == (0, [0, 1])
    assert snapshot(db, run) == before
    row = settle(db, run, "items", {1: "late", 2: 3})
    assert (row.accepted, row.rejected) == (1, [1])
    assert state(db, run, "items").output == [1, 2, 3]


def test_a_repeated_index_within_a_batch_counts_once(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    db.do(
        "select pgflow.complete_tasks(%s, 'items', array[0, 0], array['1', '1']::jsonb[], %s, array[1, 1])",
        run,
        WORKER,
    )
    assert state(db, run, "items").remaining_tasks == 1


def test_unknown_indexes_and_unclaimed_tasks_are_rejected(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 1)
    row = settle(db, run, "items", {0: 1, 1: 2, 77: 3})
    assert (row.accepted, sorted(row.rejected)) == (1, [1, 77])
    assert task_statuses(db, run, "items") == ["completed", "queued"]


@pytest.mark.parametrize(("by", "attempt"), [(OTHER, 1), (WORKER, 2), (WORKER, 0)])
def test_a_result_of_another_worker_or_attempt_is_stale(db: Db, by: uuid.UUID, attempt: int) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    before = snapshot(db, run)
    row = settle(db, run, "items", {0: 1, 1: 1}, by, attempt)
    assert (row.accepted, sorted(row.rejected), row.step_status) == (0, [0, 1], "started")
    row = settle_failed(db, run, "items", {0: "e", 1: "e"}, by=by, attempt=attempt)
    assert (row.accepted, sorted(row.rejected)) == (0, [0, 1])
    assert snapshot(db, run) == before


def test_an_older_attempt_cannot_settle_the_newer_one(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m"), base_delay=0), [1])
    claim(db, "f")
    fail(db, run, "m")
    claim(db, "f")
    assert settle(db, run, "m", {0: "old"}, attempt=1).accepted == 0
    assert settle(db, run, "m", {0: "new"}, attempt=2).accepted == 1
    assert run_row(db, run).output == {"m": ["new"]}


def test_without_a_worker_anyone_may_settle(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    assert settle(db, run, "items", {0: 1, 1: 2}, by=None).accepted == 2


def test_a_stale_type_violation_fails_nothing(db: Db) -> None:
    run = start(db, setup(db, "single_then_map"))
    claim(db, "single_then_map")
    assert settle(db, run, "source", {0: 5}, by=OTHER).accepted == 0
    assert settle(db, run, "source", {0: 5}, attempt=9).accepted == 0
    assert run_row(db, run).status == "started"
    row = settle(db, run, "source", {0: 5})
    assert (row.accepted, row.step_status, row.run_status) == (1, "failed", "failed")


def test_on_a_failed_run_everything_is_rejected(db: Db) -> None:
    flow(db, "f", map_step("m"), step("bad", max_attempts=1))
    run = start(db, "f", [1])
    claim(db, "f", 2)
    fail(db, run, "bad")
    before = snapshot(db, run)
    row = settle(db, run, "m", {0: 1})
    assert (row.accepted, row.rejected, row.run_status) == (0, [0], "failed")
    assert snapshot(db, run) == before


def test_on_an_unknown_run_or_step_everything_is_rejected(db: Db) -> None:
    run = start(db, setup(db, "one"))
    assert settle(db, uuid.uuid4(), "only", {0: 1}).rejected == [0]
    assert settle(db, run, "nope", {0: 1}).rejected == [0]
    assert settle_failed(db, uuid.uuid4(), "only", {0: "e"}).rejected == [0]
    assert settle_failed(db, run, "nope", {0: "e"}).rejected == [0]


def test_an_empty_batch_is_no_error(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1])
    before = snapshot(db, run)
    row = settle(db, run, "items", {})
    assert (row.accepted, row.rejected, row.step_status) == (0, [], "started")
    row = settle_failed(db, run, "items", {})
    assert (row.accepted, row.rejected) == (0, [])
    assert snapshot(db, run) == before


def test_batches_start_the_next_map(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1, 2, 3])
    for slug in ("m1", "m2", "m3"):
        found = claim(db, "map_chain", 10)
        assert {t.step_slug for t in found} == {slug}
        settle(db, run, slug, {t.task_index: t.input * 10 for t in found})
    assert claim(db, "map_chain")[0].input == {"m3": [1000, 2000, 3000]}


# -- failures --------------------------------------------------------------------------------------------


def test_a_batch_of_failures_is_retried_each_with_its_backoff(db: Db) -> None:
    flow(db, "f", map_step("m"), base_delay=3, max_attempts=5)
    run = start(db, "f", [1, 2, 3])
    claim(db, "f", 3)
    fail(db, run, "m", "x", 1)
    make_visible(db, "f")
    assert [t.task_index for t in claim(db, "f", 3)] == [1]
    row = db.row(
        "select * from pgflow.fail_tasks(%s, 'm', array[0, 1], array['e0', 'e1'], %s, array[1, 2])",
        run,
        WORKER,
    )
    assert row == Row(accepted=2, rejected=[], step_status="started", run_status="started")
    assert [(t.status, t.error_message) for t in tasks(db, run)] == [
        ("queued", "e0"),
        ("queued", "e1"),
        ("started", None),
    ]
    assert 4.5 < lease(db, "f", 1) <= 6
    assert 10.5 < lease(db, "f", 2) <= 12
    assert events(db, run, "step:failed") == []


def test_a_permanent_failure_is_not_retried(db: Db) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=9))
    claim(db, "f")
    row = settle_failed(db, run, "a", {0: "bad input"}, permanent=(0,))
    assert (row.accepted, row.step_status, row.run_status) == (1, "failed", "failed")
    assert state(db, run, "a").error_message == "bad input"


def test_one_exhausted_task_of_a_batch_fails_the_run_once(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m"), max_attempts=9), [1, 2, 3, 4])
    claim(db, "f", 4)
    row = settle_failed(db, run, "m", {0: "retry", 2: "bad two", 1: "bad one"}, permanent=(1, 2))
    assert (row.accepted, row.step_status, row.run_status) == (3, "failed", "failed")
    assert task_statuses(db, run, "m") == ["cancelled", "failed", "failed", "cancelled"]
    assert state(db, run, "m").error_message == "bad one"
    assert (queue(db, "f"), len(archive(db, "f"))) == ([], 4)
    assert event_names(db, run)[-2:] == ["step:m:failed", "run:failed"]


def test_a_batch_that_exhausts_a_skip_step_skips_it_once(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1, when_exhausted="skip"), step("z", "m"))
    run = start(db, "f", [1, 2, 3])
    claim(db, "f", 3)
    row = settle_failed(db, run, "m", {0: "e0", 1: "e1"})
    assert (row.accepted, row.step_status, row.run_status) == (2, "skipped", "started")
    assert run_row(db, run).remaining_steps == 1
    assert statuses(db, run) == {"m": "skipped", "z": "started"}
    assert event(db, run, "step:skipped", "m")["error_message"] == "e0"
    assert archive(db, "f") == [("m", 0), ("m", 1), ("m", 2)]


def test_failing_and_completing_batches_mix(db: Db) -> None:
    flow(db, "f", map_step("m"), base_delay=0)
    run = start(db, "f", [1, 2, 3, 4])
    claim(db, "f", 4)
    settle(db, run, "m", {0: "a", 3: "d"})
    settle_failed(db, run, "m", {1: "e", 2: "e"})
    assert settle(db, run, "m", {1: "late"}).accepted == 0
    assert [t.task_index for t in claim(db, "f", 4)] == [1, 2]
    settle(db, run, "m", {1: "b", 2: "c"}, attempt=2)
    assert run_row(db, run).output == {"m": ["a", "b", "c", "d"]}


def test_late_failures_on_a_completed_step_are_rejected(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    complete(db, run, "only", 1)
    before = snapshot(db, run)
    row = settle_failed(db, run, "only", {0: "late"})
    assert (row.accepted, row.rejected, row.step_status) == (0, [0], "completed")
    assert snapshot(db, run) == before
    assert task(db, run, "only").error_message is None
