"""Events (contract section 12): topic, name, payload, once per transition, and without Supabase."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import psycopg
import pytest
from database_roles import role_with

from .helpers import (
    REALTIME,
    Db,
    claim,
    complete,
    drain,
    event,
    event_names,
    events,
    fail,
    flow,
    in_sequence,
    map_step,
    run_row,
    setup,
    start,
    step,
    work,
)

NEVER = {"required_input_pattern": {"never": 1}}


def test_topic_name_and_privacy_are_as_clients_subscribe(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    drain(db, "sequential")
    for found in events(db, run):
        payload = found.payload
        assert found.topic == f"pgflow:run:{run}"
        assert found.private is False
        kind, status = payload["event_type"].split(":")
        slug = payload.get("step_slug")
        assert found.event == (f"run:{status}" if kind == "run" else f"step:{slug}:{status}")
        assert payload["run_id"] == str(run)
        assert payload["status"] == status


def test_a_run_s_whole_life_is_told_in_order(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    drain(db, "sequential")
    assert event_names(db, run) == [
        "run:started",
        "step:first:started",
        "step:first:completed",
        "step:second:started",
        "step:second:completed",
        "step:last:started",
        "step:last:completed",
        "run:completed",
    ]


def test_every_transition_is_told_exactly_once(db: Db) -> None:
    flow(
        db,
        "f",
        map_step("m"),
        map_step("n", "m"),
        step("s", "n", max_attempts=1, when_exhausted="skip"),
        step("skipped", **NEVER),
        step("after", "s", "skipped"),
        map_step("empty", "skipped"),
        step("z", "empty", "after"),
    )
    run = start(db, "f", [1, 2, 3])
    work(db, "f")
    work(db, "f")
    claim(db, "f")
    fail(db, run, "s")
    drain(db, "f")
    assert run_row(db, run).status == "completed"
    counts = Counter(event_names(db, run))
    assert set(counts.values()) == {1}
    assert set(counts) == {
        "run:started",
        "step:skipped:skipped",
        "step:empty:completed",
        "step:m:started",
        "step:m:completed",
        "step:n:started",
        "step:n:completed",
        "step:s:started",
        "step:s:skipped",
        "step:after:started",
        "step:after:completed",
        "step:z:started",
        "step:z:completed",
        "run:completed",
    }


@pytest.mark.parametrize("input", [{"a": 1}, {}, {"deep": [None, True, 1.5]}])
def test_run_started_carries_the_run(db: Db, input: dict[str, Any]) -> None:
    run = start(db, setup(db, "two_roots"), input)
    payload = event(db, run, "run:started")
    assert set(payload) >= {
        "event_type",
        "run_id",
        "flow_slug",
        "input",
        "status",
        "remaining_steps",
        "started_at",
    }
    assert payload["input"] == input
    assert payload["remaining_steps"] == 3
    assert payload["status"] == "started"


def test_step_started_carries_its_counts_as_numbers(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    payload = event(db, run, "step:started", "items")
    assert set(payload) >= {
        "event_type",
        "run_id",
        "step_slug",
        "status",
        "started_at",
        "remaining_tasks",
        "remaining_deps",
    }
    assert (payload["remaining_tasks"], payload["remaining_deps"]) == (2, 0)


@pytest.mark.parametrize("output", [True, 0, "text", {"a": [1]}, [], None])
def test_step_completed_carries_the_output_as_json(db: Db, output: Any) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    complete(db, run, "only", output)
    payload = event(db, run, "step:completed", "only")
    assert set(payload) >= {"event_type", "run_id", "step_slug", "status", "output", "completed_at"}
    assert payload["output"] == output
    assert event(db, run, "run:completed")["output"] == {"only": output}


def test_a_completed_map_tells_its_aggregated_output(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    work(db, "root_map")
    assert event(db, run, "step:completed", "items")["output"] == [0, 1]


def test_timestamps_in_events_are_those_stored(db: Db) -> None:
    run = start(db, setup(db, "one"))
    work(db, "one")
    stored = db.row(
        "select to_jsonb(s.completed_at) as step, to_jsonb(r.completed_at) as run,"
        " to_jsonb(r.started_at) as began"
        " from pgflow.step_states s join pgflow.runs r using (run_id) where run_id = %s",
        run,
    )
    assert event(db, run, "step:completed", "only")["completed_at"] == stored.step
    assert event(db, run, "run:completed")["completed_at"] == stored.run
    assert event(db, run, "run:started")["started_at"] == stored.began


def test_step_completed_comes_before_the_run_s_end(db: Db) -> None:
    run = start(db, setup(db, "two_roots"))
    drain(db, "two_roots")
    assert event_names(db, run)[-2:] == ["step:last:completed", "run:completed"]


def test_a_skip_comes_before_what_it_sets_free(db: Db) -> None:
    flow(db, "f", step("a", **NEVER), map_step("m", "a"), step("b", "m"))
    run = start(db, "f")
    assert in_sequence(
        event_names(db, run),
        ["run:started", "step:a:skipped", "step:m:completed", "step:b:started"],
    )


def test_a_retry_is_no_event(db: Db) -> None:
    run = start(db, setup(db, "one"))
    before = event_names(db, run)
    claim(db, "one")
    fail(db, run, "only")
    assert event_names(db, run) == before


def test_claiming_is_no_event(db: Db) -> None:
    run = start(db, setup(db, "one"))
    before = event_names(db, run)
    claim(db, "one")
    assert event_names(db, run) == before


# -- plain PostgreSQL --------------------------------------------------------------------------------------

SECRET = "only for those who may read it"


def listen(conn: psycopg.Connection[Any], events: str = "full") -> None:
    conn.execute(
        "insert into pgflow.settings values ('events', %s) "
        "on conflict (name) do update set value = excluded.value",
        (events,),
    )
    conn.execute("listen pgflow_events")


def whole_life(db: Db) -> uuid.UUID:
    """Runs with secrets in input, outputs, errors and reasons; the last one fails, steps skip in between."""
    flow(db, "f", step("a"), map_step("m", "a"), step("s", "m", max_attempts=1, when_exhausted="skip"), "z")
    run = start(db, "f", {"input": SECRET})
    work(db, "f", {"a": [SECRET]})
    work(db, "f", {"m": {"output": SECRET}})
    claim(db, "f")
    fail(db, run, "s", f"ValueError: {SECRET}")
    db.do("select pgflow.cancel_run(%s, %s)", start(db, "f", SECRET), f"because {SECRET}")
    db.do("select pgflow._cascade_force_skip_steps(%s, 'a', %s)", start(db, "f"), f"as {SECRET}")
    return run


PUBLIC = {"event_type", "run_id", "flow_slug", "step_slug", "status"}
PUBLIC |= {"started_at", "completed_at", "failed_at", "skipped_at"}


def test_events_tell_ids_and_status_and_no_content(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    conn.execute("listen pgflow_events")
    run = whole_life(db)
    found = heard(conn)
    assert SECRET not in json.dumps(found)
    assert {key for f in found for key in f} == PUBLIC
    assert {f["event_type"] for f in found} >= {"run:started", "step:started", "step:completed"}
    assert {f["event_type"] for f in found} >= {"step:skipped", "step:failed", "run:failed"}
    first = found[0]
    assert (first["event_type"], first["run_id"], first["flow_slug"]) == ("run:started", str(run), "f")


def test_the_content_is_told_where_the_owner_wants_it(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    listen(conn)
    whole_life(db)
    told = json.dumps(heard(conn))
    for text in ({"input": SECRET}, [SECRET], f"ValueError: {SECRET}", f"because {SECRET}", f"as {SECRET}"):
        assert json.dumps(text) in told
    listen(conn, "status")
    whole_life_again = start(db, "f", SECRET)
    assert [f["run_id"] for f in heard(conn)][:1] == [str(whole_life_again)]
    conn.execute("delete from pgflow.settings")
    start(db, "f", SECRET)
    assert SECRET not in json.dumps(heard(conn))


def test_a_caller_cannot_have_the_content_told(conn: psycopg.Connection[Any], dsn: str) -> None:
    db = Db(conn)
    flow(db, "f", "a")
    conn.execute("listen pgflow_events")
    with role_with(dsn, "starter") as restricted, psycopg.connect(restricted, autocommit=True) as starter:
        starter.execute("set pgflow.events = 'full'")
        for attempt in ("insert into pgflow.settings values ('events', 'full')", "table pgflow.settings"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                starter.execute(attempt.encode())
        starter.execute("select pgflow.start_run('f', %s)", (json.dumps(SECRET),))
        found = heard(conn)
        assert [f["event_type"] for f in found] == ["run:started", "step:started"]
        assert SECRET not in json.dumps(found)


def heard(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    conn.execute("select 1")
    found = [json.loads(n.payload) for n in conn.notifies(timeout=0.2)]
    return [f for f in found if "event_type" in f]


def test_without_supabase_events_are_notified(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    setup(db, "sequential")
    listen(conn)
    run = start(db, "sequential", {"a": 1})
    work(db, "sequential", {"first": {"x": 1}})
    found = heard(conn)
    assert [f["event_type"] for f in found] == [
        "run:started",
        "step:started",
        "step:completed",
        "step:started",
    ]
    assert {f["run_id"] for f in found} == {str(run)}
    assert (found[0]["input"], found[2]["output"]) == ({"a": 1}, {"x": 1})


@pytest.mark.parametrize("size", [7000, 9000, 300_000])
def test_a_body_too_large_for_a_notification_is_left_out(conn: psycopg.Connection[Any], size: int) -> None:
    db = Db(conn)
    setup(db, "one")
    listen(conn)
    run = start(db, "one", {"text": "x" * size})
    claim(db, "one")
    complete(db, run, "only", "é" * size)
    assert run_row(db, run).status == "completed"
    assert [f["event_type"] for f in heard(conn)] == [
        "run:started",
        "step:started",
        "step:completed",
        "run:completed",
    ]


@pytest.mark.parametrize("text", ["x" * 100_000, "é" * 5000, "\\" * 7000, '"' * 7000, "\x01" * 5000])
def test_a_huge_error_text_never_breaks_the_failure(conn: psycopg.Connection[Any], text: str) -> None:
    db = Db(conn)
    flow(db, "f", step("a", max_attempts=1))
    listen(conn)
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a", text)
    assert run_row(db, run).status == "failed"
    found = {f["event_type"]: f for f in heard(conn)}
    assert found["step:failed"]["step_slug"] == "a"
    assert found["run:failed"]["run_id"] == str(run)
    for payload in found["step:failed"], found["run:failed"]:
        assert payload["truncated"]
        assert payload["error_message"] == text[:1000]


@pytest.mark.parametrize("char", ["x", "é", '"', "\x01", "😀"])
def test_a_huge_reason_never_breaks_a_skip(conn: psycopg.Connection[Any], char: str) -> None:
    db = Db(conn)
    flow(db, "f", "a")
    run = start(db, "f")
    listen(conn)
    assert db.value("select pgflow._cascade_force_skip_steps(%s, 'a', %s)", run, char * 9000) == 1
    (payload,) = heard(conn)
    assert (payload["event_type"], payload["run_id"], payload["status"], payload["step_slug"]) == (
        "step:skipped",
        str(run),
        "skipped",
        "a",
    )
    assert (payload["truncated"], payload["flow_slug"], "skipped_at" in payload) == (True, "f", True)
    assert payload["skip_reason"] == char * 1000


def test_several_huge_texts_share_the_room_of_one(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    listen(conn)
    texts = [f"t{i}" for i in range(5)]
    db.do(
        "select pgflow._emit_event(gen_random_uuid(), 'e', %s, 'output', '1')",
        {"event_type": "e", "slug": "s" * 128, "n": 1, **dict.fromkeys(texts, "\x01" * 5000)},
    )
    (payload,) = heard(conn)
    assert (payload["slug"], payload["n"], payload["truncated"]) == ("s" * 128, 1, True)
    assert "output" not in payload
    assert {payload[t] for t in texts} == {"\x01" * 200}


def test_a_text_that_fits_is_told_whole(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    flow(db, "f", "a")
    run = start(db, "f")
    listen(conn)
    db.do("select pgflow._cascade_force_skip_steps(%s, 'a', %s)", run, "x" * 7000)
    (payload,) = heard(conn)
    assert (payload["skip_reason"], "truncated" in payload) == ("x" * 7000, False)


def test_a_long_slug_never_breaks_an_event(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    flow(db, "f" * 47, "s" * 128)
    run = start(db, "f" * 47)
    claim(db, "f" * 47)
    complete(db, run, "s" * 128)
    assert run_row(db, run).status == "completed"


def test_an_engine_installed_after_supabase_uses_it_too(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    db.do(REALTIME)
    run = start(db, setup(db, "one"))
    assert event_names(db, run) == ["run:started", "step:only:started"]


def test_a_realtime_schema_of_someone_else_is_ignored(conn: psycopg.Connection[Any]) -> None:
    db = Db(conn)
    db.do("create schema realtime; create table realtime.messages (x int)")
    run = start(db, setup(db, "one"))
    assert run_row(db, run).status == "started"


@pytest.mark.parametrize(
    "body", ["raise exception 'no partition for today'", "perform 1 / 0", "perform nowhere()"]
)
def test_an_event_that_cannot_be_sent_breaks_nothing_of_the_run(db: Db, body: str) -> None:
    db.do(
        "create or replace function realtime.send("
        "payload jsonb, event text, topic text, private boolean default true)"
        f" returns void language plpgsql as $$ begin {body}; end $$"
    )
    run = start(db, setup(db, "one"), {"n": 1})
    for task in claim(db, "one"):
        complete(db, run, task.step_slug, {"told": False})
    assert run_row(db, run).output == {"only": {"told": False}}
    assert event_names(db, run) == []
