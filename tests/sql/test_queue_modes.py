"""Flows with a queue for each step: compiling, comparing and deleting them (contract 0.17 section 4)."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from .helpers import LOCAL_SECRET, Db, flow, setup, start, step
from .test_get_flow_shape import shape, shape_step

TWO = {"steps": [shape_step("a"), shape_step("B", dependencies=["a"])]}
ROUTES = [{"stepSlug": "a", "queueName": "myflow__a"}, {"stepSlug": "B", "queueName": "myflow__b"}]


def compile_(
    db: Db, given: dict[str, Any] = TWO, mode: str | None = "step", routes: Any = None, slug: str = "myFlow"
) -> Any:
    return db.value(
        "select pgflow.ensure_flow_compiled(%s, %s, %s, %s)",
        slug,
        Jsonb(given),
        mode,
        None if routes is None else Jsonb(routes),
    )


def refused(db: Db, given: dict[str, Any] = TWO, routes: Any = None, slug: str = "myFlow") -> tuple[str, ...]:
    refusal = db.refused(
        "select pgflow.ensure_flow_compiled(%s, %s, 'step', %s)",
        slug,
        Jsonb(given),
        None if routes is None else Jsonb(routes),
    )
    assert refusal.sqlstate == "P0001"
    return refusal.message, refusal.error.diag.message_detail or "", refusal.error.diag.message_hint or ""


def queues(db: Db) -> list[str]:
    return db.column('select queue_name::text from pgmq.list_queues() order by queue_name collate "C"')


def answer(status: str, *differences: str, kind: str | None = None) -> dict[str, Any]:
    return {"status": status, "differences": list(differences), "mismatchKind": kind}


def test_a_step_queued_flow_is_compiled_and_verified(plain_db: Db) -> None:
    assert compile_(plain_db, routes=ROUTES) == answer("compiled")
    assert queues(plain_db) == ["myflow__a", "myflow__b"]
    assert plain_db.rows(
        "select queue_mode, opt_max_attempts, opt_base_delay, opt_timeout from pgflow.flows"
    )[0].__dict__ == {"queue_mode": "step", "opt_max_attempts": 3, "opt_base_delay": 5, "opt_timeout": 60}
    assert plain_db.rows(
        "select step_slug, step_index, queue_name from pgflow.steps order by step_index"
    ) == [
        plain_db.row("select 'a' as step_slug, 0 as step_index, 'myflow__a' as queue_name"),
        plain_db.row("select 'B' as step_slug, 1 as step_index, 'myflow__b' as queue_name"),
    ]
    assert shape(plain_db, "myFlow") == TWO
    assert compile_(plain_db) == answer("verified")


def test_options_patterns_and_policies_are_those_of_the_shape(plain_db: Db) -> None:
    pattern = {"defined": True, "value": {"k": 1}}
    given = {
        "options": {"maxAttempts": 7},
        "steps": [
            shape_step("a", requiredInputPattern=pattern, whenUnmet="fail", options={"startDelay": 4}),
            shape_step("m", stepType="map", dependencies=["a"], options={"toleratedFailures": 2}),
        ],
    }
    compile_(plain_db, given)
    stored = shape(plain_db, "myFlow")["steps"]
    assert (stored[0]["requiredInputPattern"], stored[0]["whenUnmet"]) == (pattern, "fail")
    assert plain_db.value("select opt_start_delay from pgflow.steps where step_slug = 'a'") == 4
    assert plain_db.value("select tolerated_failures from pgflow.step_policies") == 2
    assert plain_db.value("select opt_max_attempts from pgflow.flows") == 7
    both = {
        "steps": [shape_step("a"), shape_step("b"), shape_step("m", stepType="map", dependencies=["a", "b"])]
    }
    assert refused(plain_db, both, slug="other")[0] == (
        'Map step "m" can have at most one dependency, but 2 were provided: a, b'
    )


@pytest.mark.parametrize(
    ("routes", "texts"),
    [
        (
            [],
            (
                'supplied route map for flow "myFlow" has 0 entries but 2 step(s) was derived',
                "The route map must cover the complete ordered shape exactly.",
                "Pass withStepQueues() route snapshots or omit the map to let SQL derive it.",
            ),
        ),
        (
            [ROUTES[0], {"stepSlug": "B", "stepIndex": 1}],
            (
                'supplied route map for flow "myFlow" disagrees with the derived route at position 2',
                "Supplied (B, ); derived (B, myflow__b).",
                (
                    "SQL derives queue names from the flow slug, step slugs, and shape order;"
                    " fix the supplied map."
                ),
            ),
        ),
    ],
)
def test_a_route_map_that_is_not_the_derived_one_is_refused(
    plain_db: Db, routes: Any, texts: tuple[str, ...]
) -> None:
    assert refused(plain_db, routes=routes) == texts
    assert queues(plain_db) == []


def test_further_keys_of_a_route_map_are_ignored(plain_db: Db) -> None:
    routes = [{**route, "stepIndex": n} for n, route in enumerate(ROUTES)]
    assert compile_(plain_db, routes=routes)["status"] == "compiled"


def test_mode_and_routes_are_compared_apart_from_the_shape(plain_db: Db) -> None:
    compile_(plain_db, mode=None)
    mode = "Queue mode differs: database has 'flow', worker expects 'step'"
    routes = (
        "Step routes differ: database has [a -> myflow, B -> myflow],"
        " worker expects [a -> myflow__a, B -> myflow__b]"
    )
    assert compile_(plain_db) == answer("mismatch", mode, routes, kind="routing")
    assert compile_(plain_db, {"steps": TWO["steps"][:1]}) == answer(
        "mismatch",
        "Step count differs: 1 vs 2",
        "Step at index 1: missing in first shape (second has 'B')",
        mode,
        routes.replace(", B -> myflow__b", ""),
        kind="shape",
    )
    assert queues(plain_db) == ["myflow"]


def test_a_local_database_is_recompiled_into_the_mode_that_is_asked_for(plain_db: Db) -> None:
    compile_(plain_db, mode="flow")
    plain_db.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)
    found = compile_(plain_db)
    assert (found["status"], found["mismatchKind"]) == ("recompiled", None)
    assert queues(plain_db) == ["myflow__a", "myflow__b"]


def test_what_fails_while_a_local_database_is_recompiled_deletes_nothing(plain_db: Db) -> None:
    compile_(plain_db, mode="flow")
    plain_db.do("select pgmq.create('myflow__b')")
    plain_db.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)
    assert "already listed" in refused(plain_db)[0]
    assert (queues(plain_db), shape(plain_db, "myFlow")) == (["myflow", "myflow__b"], TWO)


def test_an_old_client_does_not_replace_a_step_queued_flow(plain_db: Db) -> None:
    compile_(plain_db)
    found = plain_db.value("select pgflow.ensure_flow_compiled('myFlow', %s, true)", Jsonb(TWO))
    assert (found["status"], found["mismatchKind"]) == ("mismatch", "routing")
    assert found["differences"][0].startswith("Queue mode differs")


def test_untyped_and_missing_third_arguments_reach_the_newer_form(plain_db: Db) -> None:
    call = "select pgflow.ensure_flow_compiled('f', %s{})"
    assert plain_db.value(call.format(", 'step'"), Jsonb(TWO))["status"] == "compiled"
    assert plain_db.value(call.format(""), Jsonb(TWO))["mismatchKind"] == "routing"
    assert plain_db.value(call.format(", false"), Jsonb(TWO))["mismatchKind"] == "routing"


def test_create_flow_takes_no_mode(plain_db: Db) -> None:
    refusal = plain_db.refused("select pgflow.create_flow('x', null, null, null, 'step')")
    assert refusal.sqlstate == "42883"
    assert refusal.message.startswith(
        "function pgflow.create_flow(unknown, unknown, unknown, unknown, unknown)"
    )


def test_a_step_queued_flow_keeps_its_mode_and_takes_no_single_steps(plain_db: Db) -> None:
    compile_(plain_db)
    flow(plain_db, "myFlow")
    assert plain_db.value("select queue_mode from pgflow.flows") == "step"
    assert queues(plain_db) == ["myflow__a", "myflow__b"]
    refusal = plain_db.refused("select pgflow.add_step('myFlow', 'c')")
    assert refusal.message == 'Flow "myFlow" uses per-step queues: steps cannot be added incrementally.'
    assert refusal.error.diag.message_detail == (
        "A step-mode definition is provisioned only by complete compilation."
    )
    assert refusal.error.diag.message_hint == (
        "Recompile the complete flow definition with every step instead."
    )
    assert plain_db.value("select count(*) from pgflow.steps") == 2


def test_case_variants_of_flows_and_steps_are_refused(plain_db: Db) -> None:
    flow(plain_db, "myFlow", "a")
    for call, index in (
        ("select pgflow.create_flow('MYFLOW')", "idx_flows_normalized_slug"),
        ("select pgflow.add_step('myFlow', 'A')", "idx_steps_normalized_slug"),
    ):
        refusal = plain_db.refused(call)
        assert refusal.sqlstate == "23505"
        assert refusal.message == f'duplicate key value violates unique constraint "{index}"'


def test_a_step_added_again_keeps_its_route(plain_db: Db) -> None:
    flow(plain_db, "f", "a")
    plain_db.do("update pgflow.steps set queue_name = 'elsewhere'")
    flow(plain_db, "f", "a")
    assert plain_db.value("select queue_name from pgflow.steps") == "elsewhere"


# -- queues in the way -----------------------------------------------------------------------------------


def test_a_queue_of_another_flow_is_not_shared(plain_db: Db) -> None:
    flow(plain_db, "other", "x")
    plain_db.do("update pgflow.steps set queue_name = 'myflow__b'")
    assert refused(plain_db) == (
        'cannot create flow "myFlow": queue "myflow__b" is already used by another flow ("other")',
        "Generated per-step queue names must belong to exactly one concrete flow.",
        "Use a different concrete flow slug, or drop the conflicting definition.",
    )
    assert queues(plain_db) == ["other"], "nor is one of an earlier route left behind"


def test_a_listed_queue_of_nobody_is_not_adopted(plain_db: Db) -> None:
    plain_db.do("select pgmq.create('MyFlow__b')")
    assert refused(plain_db) == (
        'cannot create flow "myFlow": queue "myflow__b" is already listed in PGMQ and not owned by this flow',
        "A missing definition must not adopt an already listed queue.",
        "Drop the conflicting queue or use a different concrete flow slug.",
    )
    assert queues(plain_db) == ["MyFlow__b"]


def test_even_a_verified_start_looks_at_the_queues_of_the_steps(plain_db: Db) -> None:
    compile_(plain_db)
    with plain_db.savepoint():
        plain_db.do("select pgmq.create('MyFlow__A')")
    assert refused(plain_db)[:2] == (
        'queue "myflow__a" matches multiple listed PGMQ queues ({myflow__a,MyFlow__A})',
        "An ambiguous case-insensitive match is external damage.",
    )
    plain_db.do("delete from pgmq.meta where queue_name = 'MyFlow__A'")
    plain_db.do("select pgmq.drop_queue('myflow__b')")
    assert refused(plain_db)[0] == 'queue "myflow__b" owned by flow "myFlow" is not listed in PGMQ'


# -- deleting --------------------------------------------------------------------------------------------


def test_deleting_drops_the_queues_of_the_steps_and_no_other(plain_db: Db) -> None:
    compile_(plain_db)
    plain_db.do("select pgmq.create('myflow')")  # somebody else's
    start(plain_db, "myFlow")
    plain_db.do("select pgflow.delete_flow_and_data('MYFLOW')")
    assert len(queues(plain_db)) == 3
    plain_db.do("select pgflow.delete_flow_and_data('myFlow')")
    assert queues(plain_db) == ["myflow"]
    assert plain_db.value("select count(*) from pgflow.step_tasks") == 0


def test_deleting_drops_the_listed_spelling_and_refuses_an_ambiguous_one(plain_db: Db) -> None:
    flow(plain_db, "myFlow", "a")
    plain_db.do("update pgmq.meta set queue_name = 'myFlow'")
    with plain_db.savepoint():
        plain_db.do("select pgmq.create('MyFlow')")
    refusal = plain_db.refused("select pgflow.delete_flow_and_data('myFlow')")
    assert refusal.sqlstate == "42P09"
    assert plain_db.value("select count(*) from pgflow.steps") == 1
    plain_db.do("delete from pgmq.meta where queue_name = 'MyFlow'")
    plain_db.do("select pgflow.delete_flow_and_data('myFlow')")
    assert queues(plain_db) == []


# -- the definition lock ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "create_flow('RACE')",
        "add_step('RACE', 'a')",
        "_create_flow_from_shape('RACE', '{\"steps\": []}')",
        "ensure_flow_compiled('RACE', '{\"steps\": []}')",
        "ensure_flow_compiled('RACE', '{\"steps\": []}', false)",
        "apply_flow_options('RACE', '{\"steps\": []}')",
        "delete_flow_and_data('RACE')",
    ],
)
def test_whatever_changes_a_definition_first_takes_its_lock(
    conn: psycopg.Connection[Any], dsn: str, call: str
) -> None:
    """A waiter shows on exactly that key while it has touched nothing: not even the lock of a table."""
    done = threading.Event()

    def change() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            with other.cursor() as cursor:
                cursor.execute("set lock_timeout = '10s'")
                with contextlib.suppress(psycopg.errors.ForeignKeyViolation):
                    cursor.execute(f"select pgflow.{call}".encode())
            done.set()

    waiting = (
        "select count(*) from pg_locks where locktype = 'advisory' and not granted and classid = 1"
        " and objid = (hashtext('race')::bigint & 4294967295)::oid"
    )
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(1, hashtext('race'))")
        thread = threading.Thread(target=change)
        thread.start()
        deadline = time.monotonic() + 10
        while conn.execute(waiting).fetchone() != (1,) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert conn.execute(waiting).fetchone() == (1,)
        assert conn.execute(
            "select count(*) from pg_locks l join pg_class c on c.oid = l.relation"
            " join pg_namespace n on n.oid = c.relnamespace where l.pid <> pg_backend_pid()"
            " and l.database = (select oid from pg_database where datname = current_database())"
            " and n.nspname in ('pgflow', 'pgmq')"
        ).fetchone() == (0,)
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()


def test_old_slugs_that_are_stored_are_still_compiled(plain_db: Db) -> None:
    plain_db.do("alter table pgflow.flows drop constraint slug_is_valid")
    plain_db.do("alter table pgflow.steps drop constraint steps_step_slug_check")
    flow(plain_db, "old__flow", step("_a"))
    found = compile_(plain_db, {"steps": [shape_step("_a")]}, "flow", slug="old__flow")
    assert found == answer("verified")
    # And so are those of the flow that takes its place, as far as it had them; new ones are looked at.
    changed = {"steps": [shape_step("_a"), shape_step("b")]}
    found = plain_db.value(
        "select pgflow.ensure_flow_compiled('old__flow', %s, allow_data_loss => true)", Jsonb(changed)
    )
    assert found["status"] == "recompiled"
    changed["steps"].append(shape_step("_c"))
    refused = plain_db.refused(
        "select pgflow.ensure_flow_compiled('old__flow', %s, allow_data_loss => true)", Jsonb(changed)
    )
    assert refused.message == 'Step slug "_c" in flow "old__flow" is not valid.'
    plain_db.do("select set_config('app.settings.jwt_secret', %s, true)", LOCAL_SECRET)
    del changed["steps"][1:]
    assert compile_(plain_db, changed, "flow", slug="old__flow")["status"] == "recompiled"


def test_setups_of_other_tests_are_in_flow_mode(plain_db: Db) -> None:
    setup(plain_db, "one")
    assert plain_db.rows("select queue_name, step_slug from pgflow.flow_queues('one')") == [
        plain_db.row("select 'one' as queue_name, null::text as step_slug")
    ]
