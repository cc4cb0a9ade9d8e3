"""``_cascade_force_skip_steps`` and ``_archive_task_message`` (contract 10.2, 10.3)."""

from __future__ import annotations

import time
import uuid

from .helpers import (
    Db,
    archive,
    claim,
    complete,
    event,
    event_names,
    flow,
    map_step,
    queue,
    reasons,
    run_row,
    setup,
    snapshot,
    start,
    state,
    statuses,
    step,
    task,
)


def skip(db: Db, run: uuid.UUID, slug: str, reason: str = "condition_unmet") -> int:
    count: int = db.value("select pgflow._cascade_force_skip_steps(%s, %s, %s)", run, slug, reason)
    return count


def test_a_step_and_its_descendants_are_skipped(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    assert skip(db, run, "second") == 2
    assert reasons(db, run) == {"first": None, "second": "condition_unmet", "last": "dependency_skipped"}
    assert run_row(db, run).remaining_steps == 1
    assert run_row(db, run).status == "started"
    assert state(db, run, "last").remaining_deps == 1
    assert db.value("select bool_and(skipped_at = now()) from pgflow.step_states where status = 'skipped'")


def test_the_given_reason_is_on_the_named_step_only(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    assert skip(db, run, "first", "handler_failed") == 3
    assert reasons(db, run) == {
        "first": "handler_failed",
        "second": "dependency_skipped",
        "last": "dependency_skipped",
    }


def test_the_run_is_not_completed_here(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    skip(db, run, "first")
    assert (run_row(db, run).status, run_row(db, run).remaining_steps) == ("started", 0)


def test_a_second_call_changes_nothing_and_returns_zero(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    skip(db, run, "second")
    before = snapshot(db, run)
    assert skip(db, run, "second") == 0
    assert snapshot(db, run) == before


def test_a_leaf_is_skipped_alone(db: Db) -> None:
    run = start(db, setup(db, "diamond"))
    assert skip(db, run, "join") == 1
    assert statuses(db, run)["left"] == "created"


def test_a_join_is_skipped_even_if_its_other_parent_is_fine(db: Db) -> None:
    run = start(db, setup(db, "diamond"))
    assert skip(db, run, "left") == 2
    assert statuses(db, run) == {"root": "started", "left": "skipped", "right": "created", "join": "skipped"}


def test_unrelated_steps_are_left(db: Db) -> None:
    run = start(db, setup(db, "two_roots_left_right"))
    assert skip(db, run, "connected_root") == 3
    assert statuses(db, run)["disconnected_root"] == "started"
    assert queue(db, "two_roots_left_right") == [("disconnected_root", 0)]


def test_completed_and_failed_steps_are_left(db: Db) -> None:
    run = start(db, setup(db, "diamond"))
    claim(db, "diamond")
    complete(db, run, "root", 1)
    assert skip(db, run, "root") == 3
    assert state(db, run, "root").status == "completed"
    assert state(db, run, "root").skip_reason is None


def test_a_started_step_loses_its_task_count_and_its_messages(db: Db) -> None:
    flow(db, "f", map_step("m"), "other", step("z", "m"))
    run = start(db, "f", [1, 2, 3])
    claim(db, "f")
    assert skip(db, run, "m") == 2
    found = state(db, run, "m")
    assert (found.status, found.remaining_tasks, found.initial_tasks) == ("skipped", None, 3)
    assert queue(db, "f") == [("other", 0)]
    assert archive(db, "f") == [("m", 0), ("m", 1), ("m", 2)]


def test_messages_of_completed_tasks_are_not_archived_twice(db: Db) -> None:
    flow(db, "f", map_step("m"))
    run = start(db, "f", [1, 2])
    claim(db, "f")
    complete(db, run, "m", 1, 0)
    skip(db, run, "m")
    assert archive(db, "f") == [("m", 0), ("m", 1)]
    assert task(db, run, "m", 0).status == "completed"


def test_messages_of_steps_skipped_earlier_are_not_touched(db: Db) -> None:
    run = start(db, setup(db, "two_roots"))
    db.do(
        "update pgflow.step_states set status = 'skipped', skip_reason = 'by hand', skipped_at = now(),"
        " remaining_tasks = null where run_id = %s and step_slug = 'root_a'",
        run,
    )
    assert skip(db, run, "root_a") == 1
    assert queue(db, "two_roots") == [("root_a", 0), ("root_b", 0)]
    assert archive(db, "two_roots") == []
    assert reasons(db, run) == {"root_a": "by hand", "root_b": None, "last": "dependency_skipped"}
    assert run_row(db, run).remaining_steps == 2


def test_one_event_per_step_in_definition_order(db: Db) -> None:
    flow(db, "f", "root", step("z", "root"), step("y", "z"), step("a", "root"), step("b", "a", "y"))
    run = start(db, "f")
    skip(db, run, "root")
    assert event_names(db, run, "step:")[1:] == [f"step:{s}:skipped" for s in ("root", "z", "y", "a", "b")]
    payload = event(db, run, "step:skipped", "b")
    assert (payload["flow_slug"], payload["step_slug"], payload["skip_reason"]) == (
        "f",
        "b",
        "dependency_skipped",
    )
    assert (payload["status"], payload["run_id"]) == ("skipped", str(run))
    assert payload["skipped_at"]


def test_a_trigger_on_the_event_table_sees_the_order(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do("create temp table seen (id serial, slug text) on commit drop")
    db.do(
        "create function pg_temp.note() returns trigger language plpgsql as $$"
        " begin insert into seen (slug) values (new.payload->>'step_slug'); return new; end $$"
    )
    db.do(
        "create trigger note after insert on realtime.messages for each row execute function pg_temp.note()"
    )
    skip(db, run, "first")
    assert db.column("select slug from seen order by id") == ["first", "second", "last"]


def test_an_unknown_run_is_named(db: Db) -> None:
    run = uuid.uuid4()
    refusal = db.refused("select pgflow._cascade_force_skip_steps(%s, 'a', 'x')", run)
    assert (refusal.sqlstate, refusal.message) == ("P0001", f"Run not found: {run}")


def test_an_unknown_step_skips_nothing(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    before = snapshot(db, run)
    assert skip(db, run, "nope") == 0
    assert snapshot(db, run) == before


def test_a_deep_ladder_of_diamonds_does_not_explode(db: Db) -> None:
    steps = [step("r0")]
    for i in range(22):
        steps += [step(f"l{i}", f"r{i}"), step(f"m{i}", f"r{i}"), step(f"r{i + 1}", f"l{i}", f"m{i}")]
    flow(db, "f", *steps)
    run = start(db, "f")
    began = time.perf_counter()
    assert skip(db, run, "r0") == 67
    assert time.perf_counter() - began < 2


def test_another_run_of_the_flow_is_untouched(db: Db) -> None:
    setup(db, "sequential")
    one, two = start(db, "sequential"), start(db, "sequential")
    skip(db, one, "first")
    assert set(statuses(db, two).values()) == {"started", "created"}
    assert db.column("select message->>'run_id' from pgmq.q_sequential") == [str(two)]


def test_a_task_inserted_by_hand_under_a_step_that_has_not_started_leaves_the_queue_too(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, message_id)"
        " select 'sequential', %s, 'second', pgmq.send('sequential', '{}')",
        run,
    )
    assert skip(db, run, "first") == 3
    assert db.value("select count(*) from pgmq.q_sequential") == 0
    assert db.value("select count(*) from pgmq.a_sequential") == 2


# -- _archive_task_message --------------------------------------------------------------------------------


def test_archive_task_message_archives_that_message_only(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2, 3])
    db.do("select pgflow._archive_task_message(%s, 'items', 1)", run)
    assert queue(db, "root_map") == [("items", 0), ("items", 2)]
    assert archive(db, "root_map") == [("items", 1)]


def test_archive_task_message_without_a_message_does_nothing(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1])
    db.do(
        "select pgflow._archive_task_message(p_run_id => %s, p_step_slug => 'items', p_task_index => 9)", run
    )
    db.do("update pgflow.step_tasks set message_id = null")
    db.do("select pgflow._archive_task_message(%s, 'items', 0)", run)
    db.do("select pgflow._archive_task_message(gen_random_uuid(), 'items', 0)")
    assert queue(db, "root_map") == [("items", 0)]
    assert archive(db, "root_map") == []
