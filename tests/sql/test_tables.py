"""Tables, columns, constraints and types (contract section 2)."""

from __future__ import annotations

import pytest

from .helpers import Db, Row, drain, flow, setup, start, state

COLUMNS = {
    "flows": """
        flow_slug text no -
        opt_max_attempts integer no 3
        opt_base_delay integer no 1
        opt_timeout integer no 60
        created_at timestamptz no now()
        queue_mode text no 'flow'""",
    "steps": """
        flow_slug text no -
        step_slug text no -
        step_type text no 'single'
        step_index integer no 0
        deps_count integer no 0
        opt_max_attempts integer yes -
        opt_base_delay integer yes -
        opt_timeout integer yes -
        opt_start_delay integer yes -
        required_input_pattern jsonb yes -
        forbidden_input_pattern jsonb yes -
        when_unmet text no 'skip'
        when_exhausted text no 'fail'
        created_at timestamptz no now()
        queue_name text no -""",
    "deps": """
        flow_slug text no -
        dep_slug text no -
        step_slug text no -
        created_at timestamptz no now()""",
    "runs": """
        run_id uuid no gen_random_uuid()
        flow_slug text no -
        status text no 'started'
        input jsonb no -
        output jsonb yes -
        remaining_steps integer no 0
        started_at timestamptz no now()
        completed_at timestamptz yes -
        failed_at timestamptz yes -""",
    "step_states": """
        flow_slug text no -
        run_id uuid no -
        step_slug text no -
        status text no 'created'
        remaining_tasks integer yes -
        initial_tasks integer yes -
        remaining_deps integer no 0
        output jsonb yes -
        error_message text yes -
        skip_reason text yes -
        created_at timestamptz no now()
        started_at timestamptz yes -
        completed_at timestamptz yes -
        failed_at timestamptz yes -
        skipped_at timestamptz yes -""",
    "step_tasks": """
        flow_slug text no -
        run_id uuid no -
        step_slug text no -
        message_id bigint yes -
        task_index integer no 0
        status text no 'queued'
        attempts_count integer no 0
        error_message text yes -
        output jsonb yes -
        queued_at timestamptz no now()
        started_at timestamptz yes -
        completed_at timestamptz yes -
        failed_at timestamptz yes -
        last_worker_id uuid yes -
        requeued_count integer no 0
        last_requeued_at timestamptz yes -
        permanently_stalled_at timestamptz yes -""",
    "workers": """
        worker_id uuid no -
        queue_name text no -
        function_name text no -
        started_at timestamptz no now()
        deprecated_at timestamptz yes -
        stopped_at timestamptz yes -
        last_heartbeat_at timestamptz no now()""",
    "worker_functions": """
        function_name text no -
        enabled boolean no true
        debounce interval no '00:00:06'
        last_invoked_at timestamptz yes -
        created_at timestamptz no now()
        updated_at timestamptz no now()""",
}

NAMED_CONSTRAINTS = {
    "flows": "flows_pkey slug_is_valid opt_max_attempts_is_nonnegative opt_base_delay_is_nonnegative"
    " opt_timeout_is_positive queue_mode_is_valid",
    "steps": "queue_name_is_valid"
    " steps_pkey steps_flow_slug_fkey steps_flow_slug_step_index_key steps_step_slug_check"
    " steps_step_type_check steps_deps_count_check opt_max_attempts_is_nonnegative"
    " opt_base_delay_is_nonnegative opt_timeout_is_positive opt_start_delay_is_nonnegative"
    " required_input_pattern_is_object forbidden_input_pattern_is_object when_unmet_is_valid"
    " when_exhausted_is_valid",
    "deps": "deps_pkey deps_check deps_flow_slug_dep_slug_fkey deps_flow_slug_step_slug_fkey"
    " deps_flow_slug_fkey",
    "runs": "runs_pkey runs_flow_slug_fkey runs_remaining_steps_check status_is_valid"
    " completed_at_or_failed_at"
    " completed_at_is_after_started_at failed_at_is_after_started_at",
    "step_states": "step_states_pkey status_is_valid status_and_remaining_tasks_match"
    " remaining_tasks_state_consistency initial_tasks_known_when_started output_only_for_completed_or_null"
    " skip_reason_matches_status completed_at_or_failed_at_or_skipped_at started_at_is_after_created_at"
    " skipped_at_is_after_created_at completed_at_is_after_started_at failed_at_is_after_started_at"
    " step_states_initial_tasks_check step_states_remaining_deps_check",
    "step_tasks": "step_tasks_pkey queue_name_is_valid"
    " valid_status output_valid_only_for_completed attempts_count_nonnegative"
    " completed_at_or_failed_at completed_at_is_after_queued_at failed_at_is_after_queued_at"
    " started_at_is_after_queued_at completed_at_is_after_started_at failed_at_is_after_started_at",
    "worker_functions": "worker_functions_pkey worker_functions_debounce_check"
    " worker_functions_start_mode_check",
    "workers": "workers_pkey",
}


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_begins_with_the_contract_columns_in_order(plain_db: Db, table: str) -> None:
    expected = []
    for line in COLUMNS[table].strip().splitlines():
        name, kind, null, default = line.split(maxsplit=3)
        kind = {"timestamptz": "timestamp with time zone"}.get(kind, kind)
        expected.append((name, kind, null.upper(), None if default == "-" else default.strip("'")))
    found = [
        (
            r.column_name,
            r.data_type,
            r.is_nullable,
            (r.column_default or "").split("::")[0].strip("'") or None,
        )
        for r in plain_db.rows(
            "select column_name::text, data_type::text, is_nullable::text, column_default::text"
            " from information_schema.columns where table_schema = 'pgflow' and table_name = %s"
            " order by ordinal_position",
            table,
        )
    ]
    assert found[: len(expected)] == expected
    for extra in found[len(expected) :]:
        named = extra[0] == "queue_name"  # by a trigger
        assert named or extra[2] == "YES" or extra[3] is not None, f"{extra} must be defaultable"


@pytest.mark.parametrize("table", ["flows", "steps", "runs"])
def test_a_row_type_that_clients_read_has_no_further_columns(plain_db: Db, table: str) -> None:
    count = plain_db.value(
        "select count(*) from information_schema.columns where table_schema = 'pgflow' and table_name = %s",
        table,
    )
    assert count == len(COLUMNS[table].strip().splitlines())


def test_runs_have_no_error_message(plain_db: Db) -> None:
    assert not plain_db.rows(
        "select 1 from information_schema.columns where table_schema = 'pgflow'"
        " and table_name = 'runs' and column_name = 'error_message'"
    )


@pytest.mark.parametrize("table", NAMED_CONSTRAINTS)
def test_constraints_have_the_contract_names(plain_db: Db, table: str) -> None:
    found = set(
        plain_db.column(
            "select conname::text from pg_constraint where conrelid = ('pgflow.' || %s)::regclass", table
        )
    )
    assert set(NAMED_CONSTRAINTS[table].split()) <= found


def test_the_known_tasks_check_is_found_in_the_information_schema(plain_db: Db) -> None:
    clause = plain_db.value(
        "select check_clause::text from information_schema.check_constraints"
        " where constraint_schema = 'pgflow' and constraint_name = 'initial_tasks_known_when_started'"
    )
    assert "initial_tasks" in clause


def test_the_task_record_has_the_contract_attributes_in_order(plain_db: Db) -> None:
    found = [
        (r.attname, r.kind)
        for r in plain_db.rows(
            "select attname::text, format_type(atttypid, atttypmod) as kind from pg_attribute"
            " where attrelid = 'pgflow.step_task_record'::regclass and not attisdropped order by attnum"
        )
    ]
    assert found == [
        ("flow_slug", "text"),
        ("run_id", "uuid"),
        ("step_slug", "text"),
        ("input", "jsonb"),
        ("msg_id", "bigint"),
        ("task_index", "integer"),
        ("flow_input", "jsonb"),
    ]


INDEXES = [
    "idx_deps_by_flow_step",
    "idx_deps_by_flow_dep",
    "idx_runs_flow_slug",
    "idx_runs_status",
    "idx_step_tasks_queue_message",
    "idx_workers_queue_name",
    "idx_workers_heartbeat",
    "idx_workers_started_at",
    "idx_workers_stopped_at",
    "idx_runs_started_at",
]


@pytest.mark.parametrize("name", ["deps", "runs", "workers"])
def test_small_tables_carry_their_contract_indexes(plain_db: Db, name: str) -> None:
    found = plain_db.column(
        "select indexname::text from pg_indexes where schemaname = 'pgflow' and tablename = %s", name
    )
    assert {i for i in INDEXES if i.startswith(f"idx_{name}_")} <= set(found)


# -- flows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("flow_slug", "1abc", "slug_is_valid"),
        ("flow_slug", "", "slug_is_valid"),
        ("flow_slug", "run", "slug_is_valid"),
        ("opt_max_attempts", -1, "opt_max_attempts_is_nonnegative"),
        ("opt_base_delay", -1, "opt_base_delay_is_nonnegative"),
        ("opt_timeout", 0, "opt_timeout_is_positive"),
        ("opt_timeout", -1, "opt_timeout_is_positive"),
    ],
)
def test_a_flow_with_a_bad_value_is_refused(
    plain_db: Db, column: str, value: object, constraint: str
) -> None:
    slug = {"flow_slug": "good", column: value}
    names = ", ".join(slug)
    marks = ", ".join(["%s"] * len(slug))
    refusal = plain_db.refused(f"insert into pgflow.flows ({names}) values ({marks})", *slug.values())
    assert refusal.sqlstate == "23514"
    assert refusal.message == f'new row for relation "flows" violates check constraint "{constraint}"'


def test_a_flow_inserted_by_hand_has_the_table_defaults(plain_db: Db) -> None:
    row = plain_db.row(
        "insert into pgflow.flows (flow_slug) values ('x')"
        " returning opt_max_attempts, opt_base_delay, opt_timeout, created_at = now() as fresh"
    )
    assert row == Row(opt_max_attempts=3, opt_base_delay=1, opt_timeout=60, fresh=True)


def test_zero_attempts_and_zero_delay_are_allowed(plain_db: Db) -> None:
    plain_db.do("insert into pgflow.flows values ('x', 0, 0, 1)")


# -- steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("step_slug", "a-b", "steps_step_slug_check"),
        ("step_slug", "run", "steps_step_slug_check"),
        ("step_slug", "x" * 129, "steps_step_slug_check"),
        ("step_type", "many", "steps_step_type_check"),
        ("deps_count", -1, "steps_deps_count_check"),
        ("opt_max_attempts", -1, "opt_max_attempts_is_nonnegative"),
        ("opt_base_delay", -1, "opt_base_delay_is_nonnegative"),
        ("opt_timeout", 0, "opt_timeout_is_positive"),
        ("opt_start_delay", -1, "opt_start_delay_is_nonnegative"),
        ("required_input_pattern", "[]", "required_input_pattern_is_object"),
        ("required_input_pattern", '"text"', "required_input_pattern_is_object"),
        ("required_input_pattern", "1", "required_input_pattern_is_object"),
        ("required_input_pattern", "null", "required_input_pattern_is_object"),
        ("forbidden_input_pattern", "[1]", "forbidden_input_pattern_is_object"),
        ("forbidden_input_pattern", "true", "forbidden_input_pattern_is_object"),
        ("when_unmet", "ignore", "when_unmet_is_valid"),
        ("when_unmet", "", "when_unmet_is_valid"),
        ("when_exhausted", "retry", "when_exhausted_is_valid"),
        ("queue_name", "Upper", "queue_name_is_valid"),
        ("queue_name", "x" * 48, "queue_name_is_valid"),
    ],
)
def test_a_step_with_a_bad_value_is_refused(
    plain_db: Db, column: str, value: object, constraint: str
) -> None:
    flow(plain_db, "f")
    row = {"flow_slug": "f", "step_slug": "s", column: value}
    refusal = plain_db.refused(
        f"insert into pgflow.steps ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})", *row.values()
    )
    assert refusal.sqlstate == "23514"
    assert refusal.message == f'new row for relation "steps" violates check constraint "{constraint}"'


def test_two_steps_of_one_flow_cannot_share_an_index(plain_db: Db) -> None:
    flow(plain_db, "f", "a")
    refusal = plain_db.refused(
        "insert into pgflow.steps (flow_slug, step_slug, step_index) values ('f', 'b', 0)"
    )
    assert refusal.sqlstate == "23505"
    assert (
        refusal.message == 'duplicate key value violates unique constraint "steps_flow_slug_step_index_key"'
    )


def test_a_step_of_an_unknown_flow_is_refused(plain_db: Db) -> None:
    refusal = plain_db.refused("insert into pgflow.steps (flow_slug, step_slug) values ('nope', 'a')")
    assert refusal.sqlstate == "23503"
    assert (
        refusal.message
        == 'insert or update on table "steps" violates foreign key constraint "steps_flow_slug_fkey"'
    )


# -- deps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parent", "child", "sqlstate", "constraint"),
    [
        ("a", "a", "23514", "deps_check"),
        ("nope", "a", "23503", "deps_flow_slug_dep_slug_fkey"),
        ("a", "nope", "23503", "deps_flow_slug_step_slug_fkey"),
    ],
)
def test_a_bad_edge_is_refused(plain_db: Db, parent: str, child: str, sqlstate: str, constraint: str) -> None:
    flow(plain_db, "f", "a", "b")
    refusal = plain_db.refused("insert into pgflow.deps values ('f', %s, %s)", parent, child)
    assert (refusal.sqlstate, refusal.constraint) == (sqlstate, constraint)


def test_an_edge_is_stored_once(plain_db: Db) -> None:
    flow(plain_db, "f", "a", "b")
    plain_db.do("insert into pgflow.deps values ('f', 'a', 'b')")
    assert plain_db.refused("insert into pgflow.deps values ('f', 'a', 'b')").constraint == "deps_pkey"


# -- runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'paused'", "status_is_valid"),
        ("status = 'skipped'", "status_is_valid"),
        ("completed_at = now(), failed_at = now()", "completed_at_or_failed_at"),
        ("completed_at = started_at - interval '1 second'", "completed_at_is_after_started_at"),
        ("failed_at = started_at - interval '1 second'", "failed_at_is_after_started_at"),
        ("remaining_steps = -1", "runs_remaining_steps_check"),
    ],
)
def test_a_run_with_a_bad_value_is_refused(db: Db, change: str, constraint: str) -> None:
    run = start(db, setup(db, "one"))
    refusal = db.refused(f"update pgflow.runs set {change} where run_id = %s", run)
    assert (refusal.sqlstate, refusal.constraint) == ("23514", constraint)


def test_a_run_needs_an_input(db: Db) -> None:
    setup(db, "one")
    assert db.refused("insert into pgflow.runs (flow_slug) values ('one')").sqlstate == "23502"


# -- step states -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "change", "constraint"),
    [
        ("first", "status = 'paused'", "status_is_valid"),
        ("first", "status = 'completed'", "status_and_remaining_tasks_match"),
        ("second", "remaining_tasks = 1", "remaining_tasks_state_consistency"),
        ("second", "status = 'started', initial_tasks = null", "initial_tasks_known_when_started"),
        ("first", "initial_tasks = null", "initial_tasks_known_when_started"),
        ("first", "output = '{}'", "output_only_for_completed_or_null"),
        ("second", "output = '[]'", "output_only_for_completed_or_null"),
        ("first", "status = 'failed', output = '1'", "output_only_for_completed_or_null"),
        ("first", "skip_reason = 'x'", "skip_reason_matches_status"),
        ("second", "status = 'skipped'", "skip_reason_matches_status"),
        ("first", "completed_at = now(), failed_at = now()", "completed_at_or_failed_at_or_skipped_at"),
        ("first", "skipped_at = now(), failed_at = now()", "completed_at_or_failed_at_or_skipped_at"),
        ("first", "started_at = created_at - interval '1 s'", "started_at_is_after_created_at"),
        ("first", "skipped_at = created_at - interval '1 s'", "skipped_at_is_after_created_at"),
        ("first", "completed_at = started_at - interval '1 s'", "completed_at_is_after_started_at"),
        ("first", "failed_at = started_at - interval '1 s'", "failed_at_is_after_started_at"),
        ("first", "initial_tasks = -1", "step_states_initial_tasks_check"),
        ("first", "remaining_deps = -1", "step_states_remaining_deps_check"),
    ],
)
def test_a_step_state_with_a_bad_value_is_refused(db: Db, slug: str, change: str, constraint: str) -> None:
    run = start(db, setup(db, "sequential"))
    refusal = db.refused(
        f"update pgflow.step_states set {change} where run_id = %s and step_slug = %s", run, slug
    )
    assert (refusal.sqlstate, refusal.constraint) == ("23514", constraint)
    assert refusal.message == f'new row for relation "step_states" violates check constraint "{constraint}"'


def test_a_hand_written_skip_may_have_any_reason(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do(
        "update pgflow.step_states set status = 'skipped', skip_reason = 'because I said so',"
        " skipped_at = now()"
        " where run_id = %s and step_slug = 'second'",
        run,
    )
    assert state(db, run, "second").skip_reason == "because I said so"


def test_a_hand_written_output_of_a_completed_step_stays_as_written(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do(
        "update pgflow.step_states set status = 'completed', remaining_tasks = 0, output = '{\"x\": 1}'"
        " where run_id = %s and step_slug = 'first'",
        run,
    )
    assert state(db, run, "first").output == {"x": 1}
    assert state(db, run, "second").status == "created"


def test_a_step_may_be_failed_by_hand_without_ever_having_started(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    db.do(
        "update pgflow.step_states set status = 'failed', failed_at = now() - interval '5 days'"
        " where run_id = %s and step_slug = 'second'",
        run,
    )
    assert state(db, run, "second").started_at is None


# -- step tasks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'canceled'", "valid_status"),
        ("queue_name = 'Upper'", "queue_name_is_valid"),
        ("queue_name = ''", "queue_name_is_valid"),
        ("queue_name = repeat('x', 48)", "queue_name_is_valid"),
        ("output = '1'", "output_valid_only_for_completed"),
        ("status = 'started', output = '1'", "output_valid_only_for_completed"),
        ("attempts_count = -1", "attempts_count_nonnegative"),
        ("completed_at = now(), failed_at = now()", "completed_at_or_failed_at"),
        ("completed_at = queued_at - interval '1 s'", "completed_at_is_after_queued_at"),
        ("failed_at = queued_at - interval '1 s'", "failed_at_is_after_queued_at"),
        ("started_at = queued_at - interval '1 s'", "started_at_is_after_queued_at"),
        (
            "started_at = queued_at + interval '2 s', completed_at = queued_at + interval '1 s'",
            "completed_at_is_after_started_at",
        ),
        (
            "started_at = queued_at + interval '2 s', failed_at = queued_at + interval '1 s'",
            "failed_at_is_after_started_at",
        ),
    ],
)
def test_a_task_with_a_bad_value_is_refused(db: Db, change: str, constraint: str) -> None:
    run = start(db, setup(db, "one"))
    refusal = db.refused(f"update pgflow.step_tasks set {change} where run_id = %s", run)
    assert (refusal.sqlstate, refusal.constraint) == ("23514", constraint)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_completed_or_failed_task_may_hold_an_output(db: Db, status: str) -> None:
    run = start(db, setup(db, "one"))
    db.do("update pgflow.step_tasks set status = %s, output = '1' where run_id = %s", status, run)


def test_a_task_written_by_hand_needs_only_its_keys_status_and_times(db: Db) -> None:
    run = start(db, setup(db, "one"))
    db.do(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, status,"
        " queued_at, started_at)"
        " values ('one', %s, 'only', 7, 'started', now() - interval '2 min', now() - interval '1 min')",
        run,
    )
    row = db.row("select * from pgflow.step_tasks where run_id = %s and task_index = 7", run)
    assert (row.attempts_count, row.requeued_count, row.message_id, row.last_worker_id) == (0, 0, None, None)


def test_a_task_may_lose_its_message_id_by_hand(db: Db) -> None:
    run = start(db, setup(db, "one"))
    assert db.do("update pgflow.step_tasks set message_id = null where run_id = %s", run) == 1


def test_a_deleted_worker_leaves_its_tasks(db: Db) -> None:
    run = start(db, setup(db, "one"))
    db.do("select pgflow_tests.read_and_start('one')")
    assert db.do("delete from pgflow.workers") == 1
    row = db.row("select status, last_worker_id from pgflow.step_tasks where run_id = %s", run)
    assert row == Row(status="started", last_worker_id=None)


def test_a_step_is_not_deleted_while_it_has_tasks(db: Db) -> None:
    run = start(db, setup(db, "one"))
    refusal = db.refused("delete from pgflow.step_states")
    assert refusal.sqlstate == "23503"
    assert refusal.constraint == "step_tasks_run_id_step_slug_fkey"
    assert refusal.message == (
        'update or delete on table "step_states" violates foreign key constraint'
        ' "step_tasks_run_id_step_slug_fkey" on table "step_tasks"'
    )
    db.do("delete from pgflow.step_tasks")
    assert db.do("delete from pgflow.step_states where run_id = %s", run) == 1


@pytest.mark.parametrize(
    "tables", ["pgflow.runs", "pgflow.step_states", "pgflow.flows", "pgflow.step_tasks, pgflow.runs"]
)
def test_truncating_runs_truncates_their_tasks(db: Db, tables: str) -> None:
    start(db, setup(db, "one"))
    db.do(f"truncate {tables} cascade")
    assert db.value("select count(*) from pgflow.step_tasks") == 0


def test_only_our_own_children_hang_on_the_tables_that_a_reset_empties(db: Db) -> None:
    start(db, setup(db, "map_chain"), [1, 2])
    start(db, setup(db, "sequential"))
    db.do("select pgflow_tests.reset_db()")
    assert db.value("select count(*) from pgflow.flows") == 0
    assert db.value("select count(*) from pgmq.list_queues()") == 0
    start(db, setup(db, "sequential"))


# -- workers and functions -------------------------------------------------------------------------------


def test_a_function_to_keep_alive_is_enabled_with_a_debounce_of_six_seconds(plain_db: Db) -> None:
    row = plain_db.row(
        "insert into pgflow.worker_functions (function_name) values ('my-function')"
        " returning enabled, debounce::text, last_invoked_at"
    )
    assert row == Row(enabled=True, debounce="00:00:06", last_invoked_at=None)


@pytest.mark.parametrize("debounce", ["0 seconds", "999 milliseconds", "-1 hour"])
def test_a_debounce_under_one_second_is_refused(plain_db: Db, debounce: str) -> None:
    refusal = plain_db.refused(
        "insert into pgflow.worker_functions (function_name, debounce) values ('f', %s)", debounce
    )
    assert refusal.constraint == "worker_functions_debounce_check"


def test_a_debounce_of_one_second_is_allowed(plain_db: Db) -> None:
    plain_db.do("insert into pgflow.worker_functions (function_name, debounce) values ('f', '1 second')")


def test_payloads_are_stored_without_compressing_them(db: Db) -> None:
    setup(db, "root_map")
    start(db, "root_map", ["x" * 10_000])
    drain(db, "root_map", {"items": "y" * 10_000, "total": "z" * 10_000})
    for column in (
        "runs.input",
        "runs.output",
        "step_states.output",
        "step_tasks.input",
        "step_tasks.output",
    ):
        table, name = column.split(".")
        how = db.column(f"select pg_column_compression({name}) from pgflow.{table} where {name} is not null")
        assert how
        assert set(how) == {None}, column
