"""Rights (contract section 15, grants): nothing by default, execute-only roles on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pgflow_mp.db.schema import function_files

from .helpers import LOCAL_SECRET, WORKER, Db, flow, map_step, setup, start

ROLE = "pgflow_test_role"
LATER = (
    "pgflow.run_heads(uuid[])",
    "pgflow.run_leaves(uuid)",
    "pgflow.run_input(uuid)",
    "pgflow.run_output(uuid)",
    "pgflow.step_output(uuid, text)",
    "pgflow.run_results_page(uuid, text, int, int, bigint)",
    "pgflow.item(uuid, text, int)",
    "pgflow.run_failures(uuid, int)",
    "pgflow.run_tallies(uuid)",
    "pgflow.output_page(uuid, text, int, bigint)",
    "pgflow.finished_items(uuid, text, int4multirange, boolean, int, bigint)",
    "pgflow.failure_lines(uuid, text, int, int, text)",
    "pgflow.failed_items(uuid, text, int, int, int, bigint)",
    "pgflow.list_pauses()",
    "pgflow.list_limits(text)",
    "pgflow.list_requirements(text[])",
)
"""Functions that were added to an access."""


@contextmanager
def acting(db: Db) -> Iterator[None]:
    db.do(f"set local role {ROLE}")
    yield
    db.do("reset role")


@pytest.fixture
def role(db: Db) -> Db:
    db.do(f"create role {ROLE}")
    return db


def test_by_default_a_role_may_do_nothing(role: Db) -> None:
    start(role, setup(role, "one"))
    with acting(role):
        for query in (
            "select pgflow.start_flow_with_states('one', '{}')",
            "select pgflow.get_run_with_states(gen_random_uuid())",
            "select pgflow.requeue_stalled_tasks()",
            "select pgflow.fail_stalled_tasks()",
            "select * from pgflow.flows",
            "select * from pgflow.claim_tasks('one', gen_random_uuid(), 1)",
        ):
            assert role.refused(query).sqlstate == "42501"


def test_no_function_is_open_to_public(plain_db: Db) -> None:
    open_to_all = plain_db.column(
        "select p.oid::regprocedure::text from pg_proc p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " where p.pronamespace = 'pgflow'::regnamespace and a.grantee = 0"
    )
    assert open_to_all == []


def test_a_client_of_pgflow_itself_reads_definitions_and_starts_and_reads_runs(role: Db) -> None:
    setup(role, "one")
    granted = role.value("select pgflow.grant_access(%s, 'client')", ROLE)
    assert len(granted) == 2
    with acting(role):
        found = role.value("select pgflow.start_flow_with_states('one', '{\"a\": 1}')")
        run = found["run"]["run_id"]
        assert role.value("select pgflow.get_run_with_states(%s)", run)["run"]["status"] == "started"
        assert role.column("select flow_slug from pgflow.flows") == ["one"]
        assert role.column("select step_slug from pgflow.steps") == ["only"]
        assert role.refused("select * from pgflow.runs").sqlstate == "42501"
        assert role.refused("update pgflow.flows set opt_timeout = 1").sqlstate == "42501"


def test_a_starter_may_start_and_read_and_no_more(role: Db) -> None:
    setup(role, "one")
    role.do("select pgflow.grant_access(%s, 'starter')", ROLE)
    with acting(role):
        found = role.value("select pgflow.start_flow_with_states('one', '{}')")
        assert role.value("select pgflow.get_run_with_states(%s)", found["run"]["run_id"])["steps"]
        for query in (
            "select * from pgflow.runs",
            "select * from pgflow.claim_tasks('one', gen_random_uuid(), 1)",
            "select pgflow.delete_flow_and_data('one')",
            "select pgflow.create_flow('two')",
            "select * from pgmq.q_one",
            f"select pgflow.grant_access('{ROLE}', 'worker')",
        ):
            assert role.refused(query).sqlstate == "42501"


def test_a_worker_may_work_a_run_to_its_end_without_rights_on_tables(role: Db) -> None:
    flow(role, "f", map_step("m"), "s")
    role.do("select pgflow.grant_access(%s, 'worker')", ROLE)
    with acting(role):
        found = role.value("select pgflow.start_flow_with_states('f', '[1, 2]')")
        run = found["run"]["run_id"]
        role.do("select pgflow.register_worker(%s, 'f', 'w', '10 seconds'::interval)", WORKER)
        role.do("select * from pgflow.heartbeat(array[%s]::uuid[])", WORKER)
        rows = role.rows("select * from pgflow.claim_tasks('f', %s, 10)", WORKER)
        assert len(rows) == 3
        assert role.value("select pgflow.release_tasks('f', %s, %s::bigint[])", WORKER, [rows[0].msg_id]) == 1
        rows[:1] = role.rows("select * from pgflow.claim_tasks('f', %s, 10)", WORKER)
        role.do("select pgflow.extend_tasks('f', %s, %s::bigint[], 60)", WORKER, [r.msg_id for r in rows])
        role.do("select pgflow.requeue_stalled_tasks()")
        role.do("select pgflow.fail_stalled_tasks()")
        role.do("select pgflow.recover_dead_workers()")
        for slug, indexes in (("m", [0, 1]), ("s", [0])):
            row = role.row(
                "select * from pgflow.complete_tasks(%s, %s, %s::int[], %s::text[]::jsonb[], %s, %s::int[])",
                run,
                slug,
                indexes,
                [json.dumps(i) for i in indexes],
                WORKER,
                [1] * len(indexes),
            )
            assert row.accepted == len(indexes)
        role.do(
            "select pgflow.fail_tasks(%s, 's', array[0], array['e'], %s, array[1], array[true])", run, WORKER
        )
        assert role.value("select pgflow.get_run_with_states(%s)", run)["run"]["status"] == "completed"
        assert len(role.rows("select * from pgflow.run_progress(%s)", run)) == 2
        assert role.column("select output from pgflow.run_results(%s, 'm')", run) == [0, 1]
        role.do("select pgflow.stop_workers(array[%s]::uuid[])", WORKER)
        for table in ("runs", "step_states", "step_tasks", "workers", "flows"):
            assert role.refused(f"select * from pgflow.{table}").sqlstate == "42501"


def test_an_upgrade_gives_new_functions_to_the_roles_that_have_their_like(role: Db) -> None:
    role.do('create role "odd ""one"')
    role.do("select pgflow.grant_access(r, 'starter') from unnest(array[%s, 'odd \"one']) r", ROLE)
    for function in LATER:
        role.do(f'revoke execute on function {function} from {ROLE}, "odd ""one"')
    role.do(f'revoke select on pgflow.items from {ROLE}, "odd ""one"')
    role.do(next(f for f in function_files() if f.name == "0900_grants.sql").read_text())
    assert role.value("select has_table_privilege(%s, 'pgflow.items', 'select')", ROLE)
    assert not role.value("select has_table_privilege('pg_monitor', 'pgflow.items', 'select')")
    for function in LATER:
        for name in (ROLE, 'odd "one'):
            assert role.value("select has_function_privilege(%s, %s, 'execute')", name, function)
        assert not role.value("select has_function_privilege('pg_monitor', %s, 'execute')", function)


def test_an_upgrade_gives_workers_and_operators_what_later_ones_call(role: Db) -> None:
    later = (
        "pgflow.complete_tasks(uuid, text, int[], jsonb[], uuid, int[], bigint[])",
        "pgflow.fail_tasks(uuid, text, int[], text[], uuid, int[], boolean[], bigint[])",
        "pgflow.retry_items(uuid, text[], int4multirange, text[], boolean)",
    )
    role.do("select pgflow.grant_access(%s, access) from unnest('{worker,operator}'::text[]) access", ROLE)
    for function in later:
        role.do(f"revoke execute on function {function} from {ROLE}")
    role.do(next(f for f in function_files() if f.name == "0900_grants.sql").read_text())
    for function in later:
        assert role.value("select has_function_privilege(%s, %s, 'execute')", ROLE, function)


def test_an_upgrade_gives_every_form_of_a_function_to_the_roles_that_have_one(role: Db) -> None:
    """One with more arguments is what workers of the new release call, also as roles of before."""
    role.do("select pgflow.grant_access(%s, access) from unnest('{worker,operator}'::text[]) access", ROLE)
    forms = role.rows(
        "select array_agg(p.oid::regprocedure::text order by p.pronargs) as forms from pg_proc p"
        " where p.pronamespace = 'pgflow'::regnamespace and has_function_privilege(%s, p.oid, 'execute')"
        " group by p.proname having count(*) > 1",
        ROLE,
    )
    assert len(forms) > 3
    for _, *others in [row.forms for row in forms]:
        for function in others:
            role.do(f"revoke execute on function {function} from {ROLE}")
    role.do(next(f for f in function_files() if f.name == "0900_grants.sql").read_text())
    for _, *others in [row.forms for row in forms]:
        for function in others:
            assert role.value("select has_function_privilege(%s, %s, 'execute')", ROLE, function), function


def test_an_unknown_access_is_refused(role: Db) -> None:
    assert role.refused("select pgflow.grant_access(%s, 'owner')", ROLE).sqlstate == "22023"


def test_a_role_name_with_odd_characters_is_quoted(role: Db) -> None:
    role.do('create role "odd ""; drop schema pgflow; --"')
    role.do("select pgflow.grant_access('odd \"; drop schema pgflow; --', 'starter')")
    assert role.value("select count(*) from pgflow.flows") == 0


def test_a_caller_s_search_path_cannot_divert_a_definer_function(role: Db) -> None:
    setup(role, "one")
    role.do("select pgflow.grant_access(%s, 'worker')", ROLE)
    role.do(f"create schema evil authorization {ROLE}")
    with acting(role):
        role.do(
            "create function evil.now() returns timestamptz language plpgsql as"
            " $$ begin raise exception 'diverted'; end $$"
        )
        role.do("create function evil.lower(text) returns text language sql as $$ select 'evil' $$")
        role.do("set local search_path = evil, pg_catalog")
        role.do("select pgflow.start_flow_with_states('one', '{}')")
        role.do("select pgflow.requeue_stalled_tasks()")
        role.do("set local search_path = public")


def test_the_local_switch_gives_no_rights(role: Db) -> None:
    role.do("select pgflow.grant_access(%s, 'worker')", ROLE)
    with acting(role):
        role.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)
        assert role.refused("select pgflow.ensure_flow_compiled('one', '{}')").sqlstate == "42501"


# -- what hangs on rows that a role may delete ---------------------------------------------------------------


@pytest.fixture
def table_role(role: Db) -> Db:
    """A role that has rights on the table of workers only."""
    role.do(f"grant usage on schema pgflow to {ROLE}")
    role.do(f"grant select, delete on pgflow.workers to {ROLE}")
    return role


def test_who_may_delete_workers_needs_no_right_on_their_tasks(table_role: Db) -> None:
    run = start(table_role, setup(table_role, "one"))
    table_role.do("select pgflow_tests.read_and_start('one')")
    with acting(table_role):
        assert table_role.do("delete from pgflow.workers where worker_id = %s", WORKER) == 1
        assert table_role.refused("select * from pgflow.step_tasks").sqlstate == "42501"
    task = table_role.row("select status, last_worker_id from pgflow.step_tasks where run_id = %s", run)
    assert (task.status, task.last_worker_id) == ("started", None)


def test_who_may_delete_steps_of_runs_is_told_of_their_tasks(table_role: Db) -> None:
    run = start(table_role, setup(table_role, "sequential"))
    table_role.do(f"grant select, delete on pgflow.step_states to {ROLE}")
    delete = "delete from pgflow.step_states where run_id = %s and step_slug = %s"
    with acting(table_role):
        assert table_role.refused(delete, run, "first").sqlstate == "23503"
        assert table_role.do(delete, run, "last") == 1


def test_who_may_truncate_steps_of_runs_may_not_thereby_truncate_tasks(table_role: Db) -> None:
    start(table_role, setup(table_role, "one"))
    table_role.do(f"grant truncate on pgflow.step_states to {ROLE}")
    with acting(table_role):
        assert table_role.refused("truncate pgflow.step_states").sqlstate == "42501"
    table_role.do(f"grant select, truncate on pgflow.step_tasks to {ROLE}")
    with acting(table_role):
        table_role.do("truncate pgflow.step_states")
    assert table_role.value("select count(*) from pgflow.step_tasks") == 0


@pytest.mark.parametrize("function", ["_forget_deleted_workers", "_keep_tasks_with_their_steps"])
def test_a_trigger_with_its_owner_s_rights_looks_in_the_catalog_first(plain_db: Db, function: str) -> None:
    row = plain_db.row(
        "select prosecdef, proconfig from pg_proc"
        " where pronamespace = 'pgflow'::regnamespace and proname = %s",
        function,
    )
    assert row.prosecdef
    assert "search_path=pg_catalog, pg_temp" in row.proconfig
