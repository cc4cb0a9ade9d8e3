"""Runs of flows with a queue for each step: sent, claimed, settled, recovered (contract 0.17 5 to 7)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import (
    WORKER,
    Db,
    archive,
    complete,
    event_names,
    fail,
    flow,
    map_step,
    queue,
    run_row,
    start,
    state,
    step,
    task,
    tasks,
    worker,
)
from .test_get_flow_shape import shape_step

DIAMOND = [
    shape_step("a", stepType="map"),
    shape_step("b"),
    shape_step("C", dependencies=["a", "b"]),
]


def step_flow(db: Db, slug: str, *steps: dict[str, Any], **options: int) -> str:
    db.do(
        "select pgflow.ensure_flow_compiled(%s, %s, 'step')",
        slug,
        Jsonb({"steps": list(steps), "options": options}),
    )
    return slug


def start_step(db: Db, slug: str, step_slug: str, ids: list[int] | None = None) -> list[Any]:
    worker(db, slug)
    name = f"{slug}__{step_slug}".lower()
    if ids is None:
        ids = db.column("select msg_id from pgmq.read(%s, 1, 100) order by msg_id", name)
    return db.rows(
        "select * from pgflow.start_tasks(%s, %s::bigint[], %s, %s, %s) order by msg_id",
        slug, ids, WORKER, name, step_slug,
    )  # fmt: skip


def run_all(db: Db, run: uuid.UUID) -> None:
    for found in start_step(db, "F", "a"):
        complete(db, run, "a", found.input * 2, found.task_index)
    (found,) = start_step(db, "F", "b")
    complete(db, run, "b", "b")
    (found,) = start_step(db, "F", "C")
    assert found.input == {"a": [2, 4], "b": "b"}
    complete(db, run, "C", "end")


def test_each_step_has_its_own_messages_and_ids(db: Db) -> None:
    step_flow(db, "F", *DIAMOND)
    run = start(db, "F", [1, 2])
    assert queue(db, "F__a") == [("a", 0), ("a", 1)]
    assert queue(db, "F__b") == [("b", 0)]
    found = [(t.step_slug, t.message_id, t.queue_name) for t in tasks(db, run)]
    assert found == [("a", 1, "f__a"), ("a", 2, "f__a"), ("b", 1, "f__b")]
    assert db.value("select message - 'run_id' from pgmq.q_f__b") == {
        "flow_slug": "F", "step_slug": "b", "task_index": 0,
    }  # fmt: skip
    run_all(db, run)
    assert run_row(db, run).output == {"C": "end"}
    for name, count in (("a", 2), ("b", 1), ("C", 1)):
        assert (queue(db, f"F__{name}"), len(archive(db, f"F__{name}"))) == ([], count)


def test_nothing_but_a_definition_lists_queues(db: Db) -> None:
    """Listing costs more the more queues there are."""
    step_flow(db, "F", *DIAMOND)
    flow(db, "g", map_step("m"), max_attempts=2, base_delay=0, timeout=5)
    db.do(
        "create or replace function pgmq.list_queues() returns setof pgmq.queue_record language plpgsql"
        " as $$ begin raise exception 'listed'; end $$"
    )
    run_all(db, start(db, "F", [1, 2]))
    run = start(db, "g", [1, 2, 3])
    worker(db, "g")
    db.do("select pgflow.register_worker(%s, 'g', 'test', interval '1 minute')", WORKER)
    assert len(db.rows("select * from pgflow.claim_tasks('g', %s, 3)", WORKER)) == 3
    db.do("select pgflow.extend_tasks('g', %s, '{1,2,3}', 60)", WORKER)
    assert db.value("select pgflow.release_tasks('g', %s, '{3}')", WORKER) == 1
    fail(db, run, "m", "again", 0)
    db.do("update pgflow.step_tasks set started_at = started_at - interval '1 hour',"
          " queued_at = queued_at - interval '1 hour', lease_until = null where task_index = 1")  # fmt: skip
    assert db.value("select pgflow.requeue_stalled_tasks()") == 1
    db.do("select pgflow.cancel_run(%s)", run)
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 3
    db.do("select pgflow.prune_data_older_than('1 day')")
    assert db.refused("select pgflow.create_flow('h')").message == "listed"


# -- start_tasks -----------------------------------------------------------------------------------------


def claim_refused(db: Db, *arguments: Any) -> tuple[str, str, str]:
    refusal = db.refused("select pgflow.start_tasks(%s, '{1}', %s, %s, %s)", *arguments)
    diag = refusal.error.diag
    assert refusal.sqlstate == "P0001"
    return refusal.message, diag.message_detail or "", diag.message_hint or ""


def test_a_claim_in_step_mode_names_a_step_and_its_very_queue(db: Db) -> None:
    step_flow(db, "F", *DIAMOND)
    run = start(db, "F", [1, 2])
    needs_step = 'Flow "F" uses per-step queues: an exact step_slug is required to claim tasks.'
    assert claim_refused(db, "F", WORKER, "f__b", None) == (
        needs_step,
        'Queue "f__b" is a private step queue; a claim without a step selector could mix steps.',
        (
            "Pass the exact step_slug of the polled step; direct SQL cannot obtain flow-wide claims in"
            " step mode."
        ),
    )
    refusal = db.refused("select pgflow.start_tasks('F', '{1}', %s)", WORKER)
    assert (refusal.sqlstate, refusal.message) == ("P0001", needs_step)
    for step_slug, name in (("b", "f__a"), ("B", "f__b"), ("b", "F__b"), ("nope", "f__b"), ("b", None)):
        assert claim_refused(db, "F", WORKER, name, step_slug) == (
            f'Step "{step_slug}" does not route to queue "{name or "<NULL>"}" in flow "F".',
            "The step selector must match a persisted step route (flow_slug, step_slug, queue_name) exactly.",
            "Poll the queue recorded for this step and pass its exact canonical name and spelling.",
        )
    assert {t.status for t in tasks(db, run)} == {"queued"}


def test_a_claim_in_flow_mode_names_no_step_and_the_very_queue(db: Db) -> None:
    flow(db, "LegacyCase", "a")
    run = start(db, "LegacyCase")
    worker(db, "LegacyCase")
    assert claim_refused(db, "LegacyCase", WORKER, "legacycase", "a") == (
        'Flow "LegacyCase" uses the default flow queue: a step selector is not allowed.',
        'Step "a" was supplied, but flow queue mode has no per-step queues.',
        "Omit step_slug to claim flow-wide tasks.",
    )
    call = "select * from pgflow.start_tasks(%s, '{1}', %s, %s)"
    for slug, name in (("LegacyCase", None), ("LegacyCase", "other"), ("LegacyCase", "LegacyCase"),
                       ("legacycase", "legacycase"), ("nope", "nope")):  # fmt: skip
        assert db.rows(call, slug, WORKER, name) == []
    assert task(db, run, "a").attempts_count == 0
    assert len(db.rows(call, "LegacyCase", WORKER, "legacycase")) == 1
    assert db.rows(call, "LegacyCase", WORKER, "legacycase") == []
    assert task(db, run, "a").attempts_count == 1


def test_three_arguments_are_enough_in_flow_mode_only(db: Db) -> None:
    flow(db, "LegacyCase", "a")
    start(db, "LegacyCase")
    worker(db, "LegacyCase")
    assert len(db.rows("select * from pgflow.start_tasks('LegacyCase', '{1}', %s)", WORKER)) == 1
    assert db.rows("select * from pgflow.start_tasks('nope', '{1}', %s)", WORKER) == []
    assert db.value("select to_regprocedure('pgflow.start_tasks(text, bigint[], uuid, text)') is null")


@pytest.mark.parametrize(
    ("flow_timeout", "step_timeout", "seconds"), [(60, 5, 7), (5, 90, 92), (60, 10, 12), (7, None, 9)]
)
def test_a_claim_makes_the_message_invisible_for_the_effective_timeout_and_two_seconds(
    db: Db, flow_timeout: int, step_timeout: int | None, seconds: int
) -> None:
    flow(db, "f", step("a", timeout=step_timeout), timeout=flow_timeout)
    start(db, "f")
    worker(db, "f")
    db.do("select pgflow.start_tasks('f', '{1}', %s, 'f')", WORKER)
    left = db.value("select extract(epoch from vt - clock_timestamp())::float from pgmq.q_f")
    assert seconds - 1 < left <= seconds


def test_a_claim_without_the_queue_s_table_claims_nothing(db: Db) -> None:
    flow(db, "f", "a")
    run = start(db, "f")
    worker(db, "f")
    db.do("drop table pgmq.q_f")
    refusal = db.refused("select pgflow.start_tasks('f', '{1}', %s, 'f')", WORKER)
    assert (refusal.sqlstate, refusal.message) == ("42P01", 'relation "pgmq.q_f" does not exist')
    assert task(db, run, "a").status == "queued"


def test_ids_beyond_what_a_double_holds_are_exact(db: Db) -> None:
    step_flow(db, "F", *DIAMOND)
    big = 2**53 + 1
    for name in ("a", "b"):
        db.do(f"alter table pgmq.q_f__{name} alter msg_id restart with {big}")
    start(db, "F", [1, 2])
    assert [t.msg_id for t in start_step(db, "F", "a", [big, big + 1])] == [big, big + 1]
    assert [t.msg_id for t in start_step(db, "F", "b", [big])] == [big]


# -- settling --------------------------------------------------------------------------------------------

OPEN_MESSAGE_LEAVES = """
create function pgflow_tests.refuse_open() returns trigger language plpgsql as $$
begin
    if exists (
        select 1 from pgflow.step_tasks t
        where t.message_id = old.msg_id and t.queue_name = substr(tg_table_name, 3)
          and t.status in ('queued', 'started')
    ) then
        raise exception 'message % of % left before its task was settled', old.msg_id, tg_table_name;
    end if;
    return old;
end
$$
"""


def guard(db: Db, *names: str) -> None:
    db.do(OPEN_MESSAGE_LEAVES)
    for name in names:
        db.do(
            f"create trigger guard before delete on pgmq.q_{name}"
            " for each row execute function pgflow_tests.refuse_open()"
        )


def test_a_failure_cancels_the_tasks_of_all_queues_and_archives_their_messages_after(db: Db) -> None:
    step_flow(db, "F", *DIAMOND, maxAttempts=1)
    guard(db, "f__a", "f__b")
    run = start(db, "F", [1, 2])
    start_step(db, "F", "a", [1])
    start_step(db, "F", "b")
    fail(db, run, "b", "boom")
    assert [(t.step_slug, t.status, t.attempts_count) for t in tasks(db, run)] == [
        ("a", "cancelled", 1), ("a", "cancelled", 0), ("b", "failed", 1),
    ]  # fmt: skip
    assert all(t.failed_at is None and t.error_message is None for t in tasks(db, run, "a"))
    assert (queue(db, "F__a"), queue(db, "F__b")) == ([], [])
    assert state(db, run, "a").status == "started"
    assert event_names(db, run)[-2:] == ["step:b:failed", "run:failed"]
    assert db.value("select pgflow.retry_failed_tasks(%s)", run) == 3
    assert (queue(db, "F__a"), queue(db, "F__b")) == ([("a", 0), ("a", 1)], [("b", 0)])
    run_all(db, run)
    assert run_row(db, run).status == "completed"


def test_a_type_violation_cancels_the_tasks_of_all_queues(db: Db) -> None:
    step_flow(db, "F", shape_step("a"), shape_step("b"), shape_step("m", stepType="map", dependencies=["a"]))
    guard(db, "f__a", "f__b")
    run = start(db, "F")
    start_step(db, "F", "a")
    complete(db, run, "a", {"not": "an array"})
    assert [(t.step_slug, t.status) for t in tasks(db, run)] == [("a", "failed"), ("b", "cancelled")]
    assert (archive(db, "F__a"), archive(db, "F__b")) == ([("a", 0)], [("b", 0)])
    assert event_names(db, run)[-2:] == ["run:failed", "step:a:failed"]


def test_a_forced_skip_archives_from_every_queue(db: Db) -> None:
    step_flow(db, "F", shape_step("a"), shape_step("b", dependencies=["a"]), shape_step("c"))
    guard(db, "f__a", "f__b", "f__c")
    run = start(db, "F")
    # By hand: both a step and its dependent under way.
    db.do("update pgflow.step_states set remaining_deps = 0 where step_slug = 'b'")
    db.do("select pgflow.start_ready_steps(%s)", run)
    assert db.value("select pgflow._cascade_force_skip_steps(%s, 'a', 'condition_unmet')", run) == 2
    assert [(t.step_slug, t.status) for t in tasks(db, run)] == [
        ("a", "skipped"), ("b", "skipped"), ("c", "queued"),
    ]  # fmt: skip
    assert [queue(db, f"F__{name}") for name in "abc"] == [[], [], [("c", 0)]]


def test_an_exhausted_step_that_is_skipped_skips_what_is_left_of_it(db: Db) -> None:
    step_flow(db, "F", shape_step("a", stepType="map", whenExhausted="skip"), shape_step("b"), maxAttempts=1)
    guard(db, "f__a", "f__b")
    run = start(db, "F", [1, 2, 3])
    start_step(db, "F", "a", [1, 2])
    fail(db, run, "a", "boom", 1)
    assert [(t.step_slug, t.status) for t in tasks(db, run)] == [
        ("a", "skipped"), ("a", "failed"), ("a", "skipped"), ("b", "queued"),
    ]  # fmt: skip
    remaining = run_row(db, run).remaining_steps
    fail(db, run, "a", "late", 0)
    complete(db, run, "a", "late", 0)
    assert (run_row(db, run).remaining_steps, task(db, run, "a", 0).output) == (remaining, None)


def test_an_unmet_condition_that_fails_the_run_cancels_its_tasks(db: Db) -> None:
    pattern = {"defined": True, "value": {"a": 1}}
    step_flow(
        db, "F", shape_step("a"), shape_step("b"),
        shape_step("c", dependencies=["a"], requiredInputPattern=pattern, whenUnmet="fail"),
    )  # fmt: skip
    guard(db, "f__a", "f__b")
    run = start(db, "F")
    start_step(db, "F", "a")
    complete(db, run, "a", 2)
    assert [(t.step_slug, t.status) for t in tasks(db, run)] == [("a", "completed"), ("b", "cancelled")]
    names = event_names(db, run)
    assert db.value("select pgflow.cascade_resolve_conditions(%s)", run) is False
    assert event_names(db, run) == names


def test_the_queue_of_a_task_is_the_one_it_was_sent_to(db: Db) -> None:
    step_flow(db, "F", shape_step("a", stepType="map"), maxAttempts=2, baseDelay=0)
    db.do("select pgmq.create('f__later')")
    run = start(db, "F", [1, 2])
    start_step(db, "F", "a")
    db.do("update pgflow.steps set queue_name = 'f__later'")
    fail(db, run, "a", "again", 0)
    complete(db, run, "a", 1, 1)
    assert (queue(db, "F__a"), archive(db, "F__a")) == ([("a", 0)], [("a", 1)])
    assert task(db, run, "a", 0).queue_name == "f__a"


# -- recovery and pruning --------------------------------------------------------------------------------


def test_stalled_tasks_go_back_to_their_queues(db: Db) -> None:
    step_flow(db, "F", *DIAMOND, timeout=5)
    start(db, "F", [1, 2])
    start_step(db, "F", "a")
    start_step(db, "F", "b")
    assert db.value("select pgflow.requeue_stalled_tasks()") == 0
    db.do("update pgflow.step_tasks set started_at = started_at - interval '36 s',"
          " queued_at = queued_at - interval '1 hour'")  # fmt: skip
    assert db.value("select pgflow.requeue_stalled_tasks()") == 3
    for name, count in (("a", 2), ("b", 1)):
        assert db.value(f"select count(*) from pgmq.q_f__{name} where vt <= clock_timestamp()") == count


def test_pruning_touches_the_queues_of_the_flow_and_no_other(db: Db) -> None:
    step_flow(db, "F", *DIAMOND)
    run = start(db, "F", [1, 2])
    run_all(db, run)
    db.do("select pgmq.create('f')")  # somebody else's
    db.do("insert into pgmq.a_f (msg_id, vt, archived_at) values (1, now(), now() - interval '9 days')")
    for name in ("f__a", "f__b", "f__c"):
        db.do(f"update pgmq.a_{name} set archived_at = now() - interval '9 days'")
    db.do("update pgflow.step_tasks set message_id = null where step_slug = 'b'")
    db.do(
        "update pgflow.runs set started_at = now() - interval '9 days',"
        " completed_at = now() - interval '9 days'"
    )
    db.do("select pgflow.prune_data_older_than('8 days')")
    assert db.value("select count(*) from pgflow.step_tasks") == 0
    assert [len(archive(db, name)) for name in ("f__a", "f__b", "f__c")] == [0, 0, 0]
    assert db.value("select count(*) from pgmq.a_f") == 1


# -- workers of ours -------------------------------------------------------------------------------------


def test_our_claims_are_from_the_queue_that_the_worker_is_registered_for(db: Db) -> None:
    step_flow(db, "F", *DIAMOND)
    first, second = start(db, "F", [1, 2]), start(db, "F", [3, 4])
    ids = {name: uuid.uuid4() for name in ("f__a", "f__b", "F")}
    for name, worker_id in ids.items():
        db.do("select pgflow.register_worker(%s, %s, 'test', null)", worker_id, name)
    claim = "select * from pgflow.claim_tasks('F', %s, %s)"
    assert db.rows(claim, ids["F"], 9) == []
    assert {t.run_id for t in db.rows(claim, ids["f__a"], 2)} == {first, second}
    (found,) = db.rows(claim, ids["f__b"], 1)
    assert found.step_slug == "b"
    assert db.value("select pgflow.release_tasks('F', %s, array[%s])", ids["f__b"], found.msg_id) == 1
    held = db.column("select message_id from pgflow.step_tasks where status = 'started'")
    assert db.column("select pgflow.extend_tasks('F', %s, %s::bigint[], 60)", ids["f__a"], held) == []
    assert db.column("select pgflow.extend_tasks('F', %s, %s::bigint[], 60)", ids["f__b"], held) == held
    assert db.column("select queue_name from pgflow.workers order by 1") == ["f", "f__a", "f__b"]


def test_a_dead_worker_s_tasks_go_back_to_its_queue(db: Db) -> None:
    step_flow(db, "F", *DIAMOND)
    start(db, "F", [1, 2])
    db.do("select pgflow.register_worker(%s, 'f__a', 'test', interval '1 minute')", WORKER)
    assert len(db.rows("select * from pgflow.claim_tasks('F', %s, 2)", WORKER)) == 2
    assert db.value("select pgflow.retire_worker(%s)", WORKER) == 2
    assert db.value("select count(*) from pgmq.q_f__a where vt <= clock_timestamp()") == 2


# -- rows by hand, and the registry ----------------------------------------------------------------------


def test_rows_by_hand_need_name_no_queue(db: Db) -> None:
    step_flow(db, "F", shape_step("a", stepType="map"))
    run = start(db, "F", [1])
    db.do("insert into pgflow.steps (flow_slug, step_slug, step_index) values ('F', 'x', 7)")
    insert = "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, message_id) values"
    db.do(insert + " ('F', %s, 'a', 1, null), ('F', %s, 'a', 2, null), ('F', %s, 'z', 0, 1)", run, run, run)
    assert db.value("select queue_name from pgflow.steps where step_slug = 'x'") == "f"
    assert [t.queue_name for t in tasks(db, run)] == ["f__a", "f__a", "f__a", "f"]
    refusal = db.refused(insert + " ('F', %s, 'a', 3, 1)", run)
    assert refusal.constraint == "idx_step_tasks_queue_message"


def test_how_a_worker_function_is_started_is_kept_and_told(supabase_db: Db) -> None:
    db = supabase_db
    db.do("select pgflow.track_worker_function('f')")
    assert db.value("select start_mode from pgflow.worker_functions") == "http"
    db.do("update pgflow.worker_functions set enabled = false, updated_at = now() - interval '1 hour'")
    db.do("select pgflow.track_worker_function('f', 'process')")
    assert db.rows("select start_mode, enabled, updated_at > now() as fresh from pgflow.worker_functions")[
        0
    ].__dict__ == {"start_mode": "process", "enabled": False, "fresh": True}
    db.do("select pgflow.track_worker_function('f')")
    assert db.value("select start_mode from pgflow.worker_functions") == "http"
    refusal = db.refused("select pgflow.track_worker_function('f', 'ftp')")
    assert refusal.sqlstate == "23514"
    assert refusal.message == (
        'new row for relation "worker_functions" violates check constraint'
        ' "worker_functions_start_mode_check"'
    )


@pytest.mark.parametrize("local", [True, False])
def test_only_functions_started_by_http_are_called(supabase_db: Db, local: bool) -> None:
    db = supabase_db
    if local:
        db.do("select set_config('app.settings.jwt_secret',"
              " 'super-secret-jwt-token-with-at-least-32-characters-long', true)")  # fmt: skip
    for name in ("supabase_project_id", "pgflow_auth_secret"):
        db.do("select vault.create_secret('x', %s)", name)
    db.do("select pgflow.track_worker_function('a'), pgflow.track_worker_function('b', 'process')")
    assert db.column("select function_name from pgflow.ensure_workers()") == ["a"]
    assert db.value("select last_invoked_at is null from pgflow.worker_functions where function_name = 'b'")
