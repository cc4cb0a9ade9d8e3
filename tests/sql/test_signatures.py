"""Signatures and attributes of the public functions: clients call by argument name (contract 1, 3, 16)."""

from __future__ import annotations

import pytest

from .helpers import Db, Row

SIGNATURES = {
    "is_valid_slug(slug text)": "boolean",
    "is_local()": "boolean",
    "calculate_retry_delay(base_delay numeric, attempts_count integer)": "integer",
    "create_flow(flow_slug text, max_attempts integer DEFAULT NULL, base_delay integer DEFAULT NULL,"
    " timeout integer DEFAULT NULL)": "pgflow.flows",
    "add_step(flow_slug text, step_slug text, deps_slugs text[] DEFAULT '{}', max_attempts integer"
    " DEFAULT NULL,"
    " base_delay integer DEFAULT NULL, timeout integer DEFAULT NULL, start_delay integer DEFAULT NULL,"
    " step_type text DEFAULT 'single', required_input_pattern jsonb DEFAULT NULL,"
    " forbidden_input_pattern jsonb DEFAULT NULL, when_unmet text DEFAULT 'skip',"
    " when_exhausted text DEFAULT 'fail')": "pgflow.steps",
    "_get_flow_shape(p_flow_slug text)": "jsonb",
    "_compare_flow_shapes(p_local jsonb, p_db jsonb)": "text[]",
    "_create_flow_from_shape(p_flow_slug text, p_shape jsonb, p_queue_mode text DEFAULT 'flow')": "void",
    "ensure_flow_compiled(flow_slug text, shape jsonb, allow_data_loss boolean)": "jsonb",
    "ensure_flow_compiled(flow_slug text, shape jsonb, queue_mode text DEFAULT 'flow', route_map jsonb"
    " DEFAULT NULL)": "jsonb",
    "is_valid_queue_name(queue_name text)": "boolean",
    "_resolve_step_queue_name(p_flow_slug text, p_step_slug text, p_step_index integer)": "text",
    "_derive_queue_routes(p_flow_slug text, p_shape jsonb, p_queue_mode text)": "jsonb",
    "_assert_step_queue_available(p_flow_slug text, p_queue_name text)": "boolean",
    "_listed_queue_name(p_queue_name text)": "text",
    "delete_flow_and_data(p_flow_slug text)": "void",
    "start_flow(flow_slug text, input jsonb, run_id uuid DEFAULT NULL)": "SETOF pgflow.runs",
    "start_flow_with_states(flow_slug text, input jsonb, run_id uuid DEFAULT NULL)": "jsonb",
    "get_run_with_states(run_id uuid)": "jsonb",
    "start_ready_steps(run_id uuid)": "void",
    "cascade_complete_taskless_steps(run_id uuid)": "integer",
    "cascade_resolve_conditions(run_id uuid)": "boolean",
    "_cascade_force_skip_steps(run_id uuid, step_slug text, skip_reason text)": "integer",
    "maybe_complete_run(run_id uuid)": "void",
    "_archive_task_message(p_run_id uuid, p_step_slug text, p_task_index integer)": "void",
    "start_tasks(flow_slug text, msg_ids bigint[], worker_id uuid)": "SETOF pgflow.step_task_record",
    "start_tasks(flow_slug text, msg_ids bigint[], worker_id uuid, queue_name text, step_slug text"
    " DEFAULT NULL)": "SETOF pgflow.step_task_record",
    "complete_task(run_id uuid, step_slug text, task_index integer, output jsonb)": "SETOF pgflow.step_tasks",
    "fail_task(run_id uuid, step_slug text, task_index integer, error_message text)": "SETOF"
    " pgflow.step_tasks",
    "set_vt_batch(queue_name text, msg_ids bigint[], vt_offsets integer[])": "TABLE(msg_id bigint,"
    " read_ct integer, enqueued_at timestamp with time zone, vt timestamp with time zone, message jsonb,"
    " headers jsonb)",
    "poll_for_tasks(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5,"
    " poll_interval_ms integer DEFAULT 100)": "SETOF pgflow.step_task_record",
    "requeue_stalled_tasks()": "integer",
    "setup_requeue_stalled_tasks_cron(cron_interval text DEFAULT '15 seconds')": "text",
    "prune_data_older_than(retention_interval interval)": "void",
    "track_worker_function(function_name text, start_mode text DEFAULT 'http')": "void",
    "mark_worker_stopped(worker_id uuid)": "void",
    "ensure_workers()": "TABLE(function_name text, invoked boolean, request_id bigint)",
    "setup_ensure_workers_cron(cron_interval text DEFAULT '1 second')": "text",
    "cleanup_ensure_workers_logs(retention_hours integer DEFAULT 24)": "TABLE(cron_deleted bigint)",
}

DEFINERS = {
    "get_run_with_states",
    "start_flow_with_states",
    "requeue_stalled_tasks",
    "setup_requeue_stalled_tasks_cron",
    "setup_ensure_workers_cron",
    "cleanup_ensure_workers_logs",
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_function_has_exactly_the_contract_signature(plain_db: Db, signature: str) -> None:
    name = signature.split("(")[0]
    found = plain_db.rows(
        "select regexp_replace(pg_get_function_arguments(oid), '::[a-z]+(\\[\\])?', '', 'g') as arguments,"
        " pg_get_function_result(oid) as result"
        " from pg_proc where pronamespace = 'pgflow'::regnamespace and proname = %s",
        name,
    )
    expected = {s: result for s, result in SIGNATURES.items() if s.startswith(f"{name}(")}
    assert {f"{name}({f.arguments})": f.result for f in found} == expected


def test_the_stall_helper_is_found_by_its_one_text_argument(plain_db: Db) -> None:
    assert plain_db.value(
        "select to_regprocedure('pgflow.setup_requeue_stalled_tasks_cron(text)') is not null"
    )


@pytest.mark.parametrize("name", sorted({s.split("(")[0] for s in SIGNATURES}))
def test_security_definer_is_only_where_the_contract_says(plain_db: Db, name: str) -> None:
    definer = plain_db.value(
        "select distinct prosecdef from pg_proc where pronamespace = 'pgflow'::regnamespace and proname = %s",
        name,
    )
    assert definer == (name in DEFINERS)


def test_every_function_of_the_schema_has_a_fixed_search_path(plain_db: Db) -> None:
    open_path = plain_db.column(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'pgflow'::regnamespace"
        " and prokind in ('f', 'p')"
        " and not coalesce(proconfig::text like '%search_path=%', false)"
        # inlinable SQL helpers cannot carry settings; they may only be immutable expressions
        " and not (prolang = (select oid from pg_language where lanname = 'sql') and provolatile = 'i')"
    )
    assert open_path == []


@pytest.mark.parametrize(
    ("name", "volatility"),
    [
        ("is_valid_slug", "i"),
        ("calculate_retry_delay", "i"),
        ("is_valid_queue_name", "i"),
        ("_resolve_step_queue_name", "i"),
        ("_derive_queue_routes", "v"),
        ("_assert_step_queue_available", "v"),
        ("_listed_queue_name", "s"),
        ("is_local", "s"),
        ("_get_flow_shape", "s"),
        ("_compare_flow_shapes", "s"),
    ],
)
def test_volatility_is_as_documented(plain_db: Db, name: str, volatility: str) -> None:
    assert (
        plain_db.value(
            "select provolatile::text from pg_proc where pronamespace = 'pgflow'::regnamespace and"
            " proname = %s",
            name,
        )
        == volatility
    )


@pytest.mark.parametrize("name", ["is_local", "calculate_retry_delay"])
def test_helpers_are_parallel_safe(plain_db: Db, name: str) -> None:
    assert (
        plain_db.value(
            "select proparallel::text from pg_proc where pronamespace = 'pgflow'::regnamespace and"
            " proname = %s",
            name,
        )
        == "s"
    )


def test_no_trigger_rewrites_a_row_of_the_engine_but_for_its_queue(plain_db: Db) -> None:
    assert (
        plain_db.column(
            "select tgname::text from pg_trigger t join pg_class c on c.oid = t.tgrelid"
            " where c.relnamespace = 'pgflow'::regnamespace and not tgisinternal"
            " and tgtype & 3 = 3"  # before, for each row
            " and c.relname in ('flows', 'steps', 'deps', 'runs', 'step_states', 'step_tasks')"
            " and tgqual is null"  # the others are for rows that name no queue
        )
        == []
    )
    assert plain_db.rows(
        "select c.relname::text as table, pg_get_triggerdef(t.oid) like %s as spares_the_engine"
        " from pg_trigger t join pg_class c on c.oid = t.tgrelid where tgname = 'name_queue' order by 1",
        "%BEFORE INSERT%WHEN ((new.queue_name IS NULL))%",
    ) == [
        Row(table="step_tasks", spares_the_engine=True),
        Row(table="steps", spares_the_engine=True),
    ]


def test_the_engine_needs_no_schema_of_supabase(plain_db: Db) -> None:
    assert (
        plain_db.column(
            "select nspname::text from pg_namespace where nspname in ('realtime', 'cron', 'net', 'vault')"
        )
        == []
    )
