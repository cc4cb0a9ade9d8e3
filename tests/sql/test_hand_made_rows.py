"""Suites and operators write rows by hand: the engine takes them as they are (contract 2.5, 2.6, 16)."""

from __future__ import annotations

import uuid

import pytest

from .helpers import (
    WORKER,
    Db,
    claim,
    complete,
    drain,
    fail,
    flow,
    map_step,
    queue,
    run_row,
    setup,
    start,
    start_tasks,
    state,
    statuses,
    step,
    task,
    task_statuses,
    tasks,
    work,
    worker,
)


def hand_made_run(db: Db, flow_slug: str, input: str = "{}") -> uuid.UUID:
    run: uuid.UUID = db.value(
        "insert into pgflow.runs (flow_slug, input, remaining_steps)"
        " select %s, %s::jsonb, count(*) from pgflow.steps where flow_slug = %s returning run_id",
        flow_slug,
        input,
        flow_slug,
    )
    return run


def hand_made_map(db: Db, done: int = 0) -> uuid.UUID:
    """A started map of three started tasks, every row inserted by hand."""
    setup(db, "root_map")
    worker(db, "root_map")
    run = hand_made_run(db, "root_map", '["a", "b", "c"]')
    db.do(
        "insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks,"
        " remaining_tasks, remaining_deps, started_at)"
        " values ('root_map', %s, 'items', 'started', 3, 3, 0, now()),"
        " ('root_map', %s, 'total', 'created', 1, null, 1, null)",
        run,
        run,
    )
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, status, started_at)"
        " select 'root_map', %s, 'items', i, 'started', now() from generate_series(0, 2) i",
        run,
    )
    return run


def test_a_hand_made_map_completes(db: Db) -> None:
    run = hand_made_map(db)
    for index in range(3):
        (row,) = complete(db, run, "items", index * 10, index)
        assert row.status == "completed"
    assert state(db, run, "items").output == [0, 10, 20]
    assert state(db, run, "total").status == "started"
    assert queue(db, "root_map") == [("total", 0)]


def test_a_hand_made_map_fails(db: Db) -> None:
    run = hand_made_map(db)
    db.do("update pgflow.step_tasks set attempts_count = 3")
    (row,) = fail(db, run, "items", "boom", 1)
    assert row.status == "failed"
    assert run_row(db, run).status == "failed"
    assert task_statuses(db, run, "items") == ["cancelled", "failed", "cancelled"]


def test_tasks_added_to_a_started_step_by_hand_are_counted(db: Db) -> None:
    run = start(db, setup(db, "root_map"), ["a"])
    db.do("update pgflow.step_states set initial_tasks = 3, remaining_tasks = 3 where step_slug = 'items'")
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, status, started_at)"
        " select 'root_map', %s, 'items', i, 'started', now() from generate_series(1, 2) i",
        run,
    )
    claim(db, "root_map")
    for index in range(3):
        complete(db, run, "items", index, index)
    assert state(db, run, "items").output == [0, 1, 2]


@pytest.mark.parametrize("output", ["null", "'{\"a\": 1}'", "'7'", "'[\"x\"]'", "'[1, 2, 3, 4, 5, 6, 7, 8]'"])
def test_a_task_count_set_by_hand_is_spawned_whatever_the_parent_gave(db: Db, output: str) -> None:
    run = start(db, setup(db, "single_then_map"))
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, completed_at = now(),"
        f" output = {output} where step_slug = 'source'"
    )
    db.do("update pgflow.step_states set remaining_deps = 0, initial_tasks = 3 where step_slug = 'each'")
    db.do("select pgflow.start_ready_steps(%s)", run)
    assert [t.task_index for t in tasks(db, run, "each")] == [0, 1, 2]
    found = [t for t in claim(db, "single_then_map", 10) if t.step_slug == "each"]
    assert [t.task_index for t in found] == [0, 1, 2]


def test_a_map_over_a_map_completed_by_hand_gets_the_stored_elements(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1, 2])
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, completed_at = now(),"
        " output = '[\"p\", \"q\"]' where step_slug = 'm1'"
    )
    db.do("update pgflow.step_states set remaining_deps = 0, initial_tasks = 2 where step_slug = 'm2'")
    db.do("select pgflow.start_ready_steps(%s)", run)
    found = [t for t in claim(db, "map_chain", 10) if t.step_slug == "m2"]
    assert [t.input for t in found] == ["p", "q"]


def test_a_parent_completed_by_hand_feeds_its_child(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, completed_at = now(),"
        " output = '{\"hand\": \"made\"}' where step_slug = 'first'"
    )
    db.do("update pgflow.step_states set remaining_deps = 0 where step_slug = 'second'")
    db.do("select pgflow.start_ready_steps(%s)", run)
    found = [t for t in claim(db, "sequential", 5) if t.step_slug == "second"]
    assert [t.input for t in found] == [{"first": {"hand": "made"}}]


def test_an_output_changed_by_hand_is_what_the_child_of_a_single_step_sees(db: Db) -> None:
    start(db, setup(db, "sequential"))
    work(db, "sequential", {"first": 1})
    db.do("update pgflow.step_states set output = '{\"changed\": true}' where step_slug = 'first'")
    assert claim(db, "sequential")[0].input == {"first": {"changed": True}}


def test_a_task_put_to_started_by_hand_completes(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do("update pgflow.step_tasks set status = 'started', started_at = now()")
    (row,) = complete(db, run, "first", 1)
    assert (row.status, row.attempts_count) == ("completed", 0)
    assert state(db, run, "second").status == "started"


def test_a_task_put_back_to_queued_by_hand_is_claimed_again(db: Db) -> None:
    run = start(db, setup(db, "one"))
    worker(db, "one")
    claim(db, "one")
    db.do("update pgflow.step_tasks set status = 'queued', started_at = null")
    assert [t.run_id for t in start_tasks(db, "one", [1])] == [run]
    assert task(db, run, "only").attempts_count == 2


def test_a_step_skipped_by_hand_is_an_absent_parent(db: Db) -> None:
    run = start(db, setup(db, "two_roots"))
    claim(db, "two_roots", 2)
    db.do(
        "update pgflow.step_states set status = 'skipped', skip_reason = 'by hand', skipped_at = now(),"
        " remaining_tasks = null where step_slug = 'root_a'"
    )
    db.do("update pgflow.step_states set remaining_deps = 1 where step_slug = 'last'")
    db.do("update pgflow.runs set remaining_steps = 2 where run_id = %s", run)
    complete(db, run, "root_b", 5)
    assert claim(db, "two_roots")[0].input == {"root_b": 5}


def test_options_changed_by_hand_count_from_the_next_call(db: Db) -> None:
    flow(db, "f", step("a"), max_attempts=1)
    run = start(db, "f")
    claim(db, "f")
    db.do("update pgflow.flows set opt_max_attempts = 3, opt_base_delay = 0")
    assert fail(db, run, "a")[0].status == "queued"
    db.do("update pgflow.steps set opt_max_attempts = 1")
    claim(db, "f")
    assert fail(db, run, "a")[0].status == "failed"


def test_a_message_archived_by_hand_does_not_stop_the_task(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    db.do("select pgmq.archive('sequential', 1::bigint)")
    assert complete(db, run, "first", 1)[0].status == "completed"
    assert state(db, run, "second").status == "started"


def test_a_purged_queue_does_not_stop_a_failure(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    db.do("select pgmq.purge_queue('one')")
    assert fail(db, run, "only")[0].status == "queued"
    db.do("update pgflow.step_tasks set status = 'started', started_at = now(), attempts_count = 9")
    assert fail(db, run, "only")[0].status == "failed"
    assert run_row(db, run).status == "failed"


def test_a_step_added_after_a_run_began_does_not_touch_that_run(db: Db) -> None:
    flow(db, "f", "a")
    run = start(db, "f")
    db.do("select pgflow.add_step('f', 'b', array['a'])")
    db.do("select pgflow.add_step('f', 'm', array['a'], step_type => 'map')")
    assert drain(db, "f") == 1
    assert statuses(db, run) == {"a": "completed"}
    assert run_row(db, run).status == "completed"


def test_the_worker_row_may_be_written_by_hand_with_positional_values(db: Db) -> None:
    setup(db, "one")
    start(db, "one")
    db.do("insert into pgflow.workers values (%s, 'one', 'fn', now(), null, null, now())", WORKER)
    assert len(start_tasks(db, "one", [1])) == 1


def test_a_map_of_hand_made_tasks_is_read_back_in_order(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), ["a", "b", "c"])
    change = "update pgflow.step_tasks set status = %s, output = to_jsonb(task_index), completed_at = now()"
    db.do(f"{change} where task_index <> 1", "completed")
    db.do("update pgflow.step_tasks set status = 'started', started_at = now() where task_index = 1")
    db.do("update pgflow.step_states set remaining_tasks = 1")
    complete(db, run, "m", "last", 1)
    assert state(db, run, "m").output == [0, "last", 2]


def test_a_hand_made_child_of_a_hand_made_map_reads_the_stored_array(db: Db) -> None:
    flow(db, "f", map_step("parent"), map_step("child", "parent"))
    worker(db, "f")
    run = hand_made_run(db, "f", "[1, 2, 3, 4, 5, 6]")
    db.do(
        "insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks,"
        " remaining_tasks, output, started_at, completed_at)"
        " values ('f', %s, 'parent', 'completed', 6, 0, '[10, 11, 12, 13, 14, 15]', now(), now()),"
        " ('f', %s, 'child', 'started', 6, 6, null, now(), null)",
        run,
        run,
    )
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, message_id)"
        " select 'f', %s, 'child', i, pgmq.send('f', '{}') from generate_series(0, 5) i",
        run,
    )
    found = start_tasks(db, "f", [1, 3, 6])
    assert sorted((t.task_index, t.input) for t in found) == [(0, 10), (2, 12), (5, 15)]


def test_a_map_started_by_hand_before_its_parent_map_is_done_reads_what_the_parent_stored(db: Db) -> None:
    run = start(db, setup(db, "map_chain"), [1, 2])
    db.do("update pgflow.step_states set remaining_deps = 0, initial_tasks = 2 where step_slug = 'm2'")
    db.do("select pgflow.start_ready_steps(%s)", run)
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, completed_at = now(),"
        " output = '[\"p\", \"q\"]' where step_slug = 'm1'"
    )
    found = [t for t in claim(db, "map_chain", 10) if t.step_slug == "m2"]
    assert [t.input for t in found] == ["p", "q"]


def started_by_hand(db: Db, flow_slug: str, slug: str, initial: int, remaining: int | None) -> uuid.UUID:
    """A run whose only step is started, with two started tasks."""
    worker(db, flow_slug)
    run = hand_made_run(db, flow_slug, "[1, 2]")
    db.do(
        "insert into pgflow.step_states (flow_slug, run_id, step_slug, status, initial_tasks,"
        " remaining_tasks, started_at) values (%s, %s, %s, 'started', %s, %s, now())",
        flow_slug,
        run,
        slug,
        initial,
        remaining,
    )
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, status, started_at)"
        " select %s, %s, %s, i, 'started', now() from generate_series(0, 1) i",
        flow_slug,
        run,
        slug,
    )
    return run


def test_no_tasks_are_added_to_a_step_that_has_its_tasks_by_hand(db: Db) -> None:
    run = started_by_hand(db, flow(db, "f", map_step("m")), "m", 1, 2)
    (row,) = complete(db, run, "m", "a")
    assert row.status == "completed"
    assert (state(db, run, "m").status, state(db, run, "m").remaining_tasks) == ("started", 1)
    assert task_statuses(db, run, "m") == ["completed", "started"]
    complete(db, run, "m", "b", 1)
    assert state(db, run, "m").output == ["a", "b"]


def test_a_step_with_an_unknown_number_of_tasks_left_is_not_done(db: Db) -> None:
    run = started_by_hand(db, flow(db, "f", map_step("m")), "m", 2, None)
    (row,) = complete(db, run, "m", "a")
    assert row.status == "completed"
    assert (state(db, run, "m").status, state(db, run, "m").remaining_tasks) == ("started", None)
    assert task_statuses(db, run, "m") == ["completed", "started"]
    db.do("update pgflow.step_states set remaining_tasks = 1")
    complete(db, run, "m", "b", 1)
    assert state(db, run, "m").output == ["a", "b"]
    assert run_row(db, run).status == "completed"


def test_a_window_that_exists_by_hand_is_not_added_to_while_the_number_left_is_unknown(db: Db) -> None:
    run = started_by_hand(db, flow(db, "f", map_step("m")), "m", 50_000, None)
    db.do("update pgflow.step_states set spawned_tasks = 20000")
    complete(db, run, "m", "a")
    assert (state(db, run, "m").status, state(db, run, "m").spawned_tasks) == ("started", 20_000)
    assert len(tasks(db, run, "m")) == 2
