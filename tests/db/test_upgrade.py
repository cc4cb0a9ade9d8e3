"""Upgrades of databases as former releases left them, with runs under way (contract 0.17 section 13)."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgflow_mp.db import online, schema
from pgflow_mp.errors import SchemaError

from .catalog import catalog
from .landed_schemas import land

Connection = psycopg.Connection[Any]
WORKER = uuid.UUID("11111111-1111-1111-1111-111111111111")


@pytest.fixture
def landed(empty_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("set client_min_messages = warning")
        land(conn)
        yield conn


def start(conn: Connection, slug: str, items: int) -> uuid.UUID:
    row = conn.execute(
        "select run_id from pgflow.start_flow(%s, (select jsonb_agg(i) from generate_series(1, %s) i))",
        (slug, items),
    ).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def claim(conn: Connection, slug: str, qty: int) -> list[tuple[int, int]]:
    conn.execute(
        "insert into pgflow.workers (worker_id, queue_name, function_name) values (%s, %s, 'old')"
        " on conflict do nothing",
        (WORKER, slug),
    )
    return conn.execute(
        "select task_index, msg_id from pgflow.claim_tasks(%s, %s, %s)", (slug, WORKER, qty)
    ).fetchall()


def flows_under_way(conn: Connection) -> dict[str, uuid.UUID]:
    """A run of each kind: half done and held, failed with open tasks, with a skipped step, old slugs."""
    for slug in ("LegacyCase", "broken", "skips", "old__slug"):
        conn.execute("select pgflow.create_flow(%s, max_attempts => 1)", (slug,))
    conn.execute("select pgflow.add_step('LegacyCase', 'm', step_type => 'map')")
    conn.execute("select pgflow.add_step('broken', 'm', step_type => 'map')")
    conn.execute("select pgflow.add_step('skips', 'm', step_type => 'map', when_exhausted => 'skip')")
    conn.execute("select pgflow.add_step('skips', 'other', step_type => 'map')")
    conn.execute("select pgflow.add_step('old__slug', '_m', step_type => 'map')")
    runs = {slug: start(conn, slug, 4) for slug in ("LegacyCase", "broken", "skips", "old__slug")}
    claim(conn, "LegacyCase", 3)
    conn.execute("select pgflow.complete_task(%s, 'm', 0, '1')", (runs["LegacyCase"],))
    for slug in ("broken", "skips"):
        claim(conn, slug, 2)
        conn.execute("select pgflow.fail_task(%s, 'm', 0, 'boom')", (runs[slug],))
    claim(conn, "old__slug", 1)
    return runs


def statuses(conn: Connection, run: uuid.UUID, step: str = "m") -> list[str]:
    return [
        row[0]
        for row in conn.execute(
            "select status from pgflow.step_tasks where run_id = %s and step_slug = %s order by task_index",
            (run, step),
        )
    ]


@pytest.mark.parametrize("ahead", [False, True], ids=["at once", "ahead"])
def test_runs_under_way_go_on_after_the_upgrade(
    landed: Connection, conn: Connection, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr(online, "LARGE", 0 if ahead else 1 << 60)
    runs = flows_under_way(landed)
    before = landed.execute("select run_id, step_slug, task_index, attempts_count, message_id, started_at,"
                            " last_worker_id from pgflow.step_tasks order by 1, 2, 3").fetchall()  # fmt: skip
    done = schema.install(landed)
    assert (done.before, done.after) == (2, schema.latest_version())
    rows = landed.execute("select run_id, step_slug, task_index, attempts_count, message_id, started_at,"
                          " last_worker_id from pgflow.step_tasks order by 1, 2, 3").fetchall()  # fmt: skip
    assert rows == before

    assert statuses(landed, runs["LegacyCase"]) == ["completed", "started", "started", "queued"]
    assert statuses(landed, runs["broken"]) == ["failed", "cancelled", "cancelled", "cancelled"]
    assert statuses(landed, runs["skips"]) == ["failed", "skipped", "skipped", "skipped"]
    assert statuses(landed, runs["skips"], "other") == ["queued"] * 4
    assert landed.execute("select distinct queue_name from pgflow.workers").fetchall() == [("legacycase",)]

    # Old clients and new ones, on the queue in its old spelling.
    run = runs["LegacyCase"]
    landed.execute("select pgflow.complete_task(%s, 'm', 1, '2')", (run,))
    ids = [r[0] for r in landed.execute("select msg_id from pgmq.read('LegacyCase', 5, 9)").fetchall()]
    found = landed.execute("select task_index from pgflow.start_tasks('LegacyCase', %s, %s, 'legacycase')",
                           (ids, WORKER)).fetchall()  # fmt: skip
    assert found == [(3,)]
    for index in (2, 3):
        landed.execute("select pgflow.complete_task(%s, 'm', %s, '3')", (run, index))
    assert landed.execute("select output from pgflow.runs where run_id = %s", (run,)).fetchone() == (
        {"m": [1, 2, 3, 3]},
    )
    names = [row[0] for row in landed.execute("select queue_name from pgmq.list_queues()")]
    assert "LegacyCase" in names

    # Old slugs go on: they are claimed and completed, their options changed, their shape compared.
    run = runs["old__slug"]
    landed.execute("select pgflow.complete_task(%s, '_m', 0, '1')", (run,))
    for index, _ in claim(landed, "old__slug", 9):
        landed.execute("select pgflow.complete_task(%s, '_m', %s, '1')", (run, index))
    assert landed.execute("select status from pgflow.runs where run_id = %s", (run,)).fetchone() == (
        "completed",
    )
    landed.execute("update pgflow.flows set opt_timeout = 7 where flow_slug = 'old__slug'")
    answer = landed.execute(
        "select pgflow.ensure_flow_compiled('old__slug', pgflow._get_flow_shape('old__slug'))"
    ).fetchone()
    assert answer == ({"status": "verified", "differences": [], "mismatchKind": None},)
    start(landed, "old__slug", 2)
    for call in ("select pgflow.create_flow('new__slug')", "select pgflow.add_step('old__slug', '_n')"):
        with pytest.raises(psycopg.errors.CheckViolation):
            landed.execute(call)

    assert landed.execute("select pgflow.retry_failed_tasks(%s)", (runs["broken"],)).fetchone() == (4,)
    assert len(claim(landed, "broken", 9)) == 4

    expected, found_catalog = catalog(conn), catalog(landed)
    for picture in (expected, found_catalog):  # these checks name the old slugs
        picture["constraints"] = [
            row for row in picture["constraints"] if row[1] not in ("slug_is_valid", "steps_step_slug_check")
        ]
    for kind in expected:
        assert found_catalog[kind] == expected[kind], kind


@pytest.mark.parametrize("ahead", [False, True], ids=["at once", "ahead"])
def test_slugs_that_differ_only_by_case_are_named_before_anything_changes(
    landed: Connection, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr(online, "LARGE", 0 if ahead else 1 << 60)
    landed.execute("insert into pgflow.flows (flow_slug) values ('one'), ('ONE'), ('other')")
    landed.execute("insert into pgflow.steps (flow_slug, step_slug, step_index) values"
                   " ('other', 'a', 0), ('other', 'A', 1)")  # fmt: skip
    before = catalog(landed)
    with pytest.raises(SchemaError) as error:
        schema.install(landed)
    assert 'flows "ONE", "one"; steps "A", "a" of flow "other"' in str(error.value)
    assert "delete_flow_and_data" in (error.value.hint or "")
    assert catalog(landed) == before


@pytest.mark.parametrize("ahead", [False, True], ids=["at once", "ahead"])
def test_tasks_with_the_ids_of_a_queue_that_was_lost_are_told_apart(
    landed: Connection, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr(online, "LARGE", 0 if ahead else 1 << 60)
    landed.execute("select pgflow.create_flow('Lost')")
    landed.execute("select pgflow.add_step('Lost', 'm', step_type => 'map')")
    old = start(landed, "Lost", 6)
    claim(landed, "Lost", 2)
    landed.execute("select pgflow.complete_task(%s, 'm', 0, '1')", (old,))
    landed.execute("select pgmq.drop_queue('Lost')")
    landed.execute("select pgflow.create_flow('Lost')")
    new = start(landed, "Lost", 4)
    schema.install(landed)

    def ids(run: uuid.UUID) -> list[int | None]:
        query = "select message_id from pgflow.step_tasks where run_id = %s order by task_index"
        return [row[0] for row in landed.execute(query, (run,))]

    assert (ids(new), ids(old)) == ([1, 2, 3, 4], [None, 7, 8, 9, 5, 6])
    assert ids(start(landed, "Lost", 1)) == [10]
    held = claim(landed, "Lost", 9)
    assert sorted(message for _, message in held) == [1, 2, 3, 4, 8, 9, 10]  # 7 is held, 5 and 6 are lost
    for index in range(4):
        landed.execute("select pgflow.complete_task(%s, 'm', %s, '1')", (new, index))
    done = landed.execute("select status from pgflow.runs where run_id = %s", (new,)).fetchone()
    assert done == ("completed",)


def test_an_upgrade_that_was_interrupted_is_gone_on_with(
    landed: Connection, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "LARGE", 0)
    runs = flows_under_way(landed)
    real = online._build_index

    def interrupted(conn: Connection) -> None:
        real(conn)
        raise KeyboardInterrupt

    monkeypatch.setattr(online, "_build_index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        schema.install(landed)
    # Meanwhile the old release goes on, and an index that was not finished is useless.
    start(landed, "LegacyCase", 2)
    claim(landed, "skips", 1)
    landed.execute("select pgflow.fail_task(%s, 'other', 0, 'boom')", (runs["skips"],))
    landed.execute("update pg_index set indisvalid = false where indexrelid ="
                   " 'pgflow.idx_step_tasks_queue_message'::regclass")  # fmt: skip
    monkeypatch.setattr(online, "_build_index", real)
    assert schema.install(landed).changed
    assert statuses(landed, runs["skips"], "other") == ["failed", "cancelled", "cancelled", "cancelled"]
    assert landed.execute("select bool_and(indisvalid) from pg_index").fetchone() == (True,)
    assert catalog(landed)["columns"] == catalog(conn)["columns"]


def test_an_upgrade_waits_for_nobody_for_long_and_says_so(
    landed: Connection, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(online, "_ATTEMPTS", 3)
    with psycopg.connect(empty_dsn) as other:
        other.execute("select * from pgflow.step_tasks")
        with pytest.raises(SchemaError, match="in use all the time"):
            schema.install(landed)
        released = threading.Timer(0.2, other.rollback)
        monkeypatch.setattr(online, "_ATTEMPTS", 20)
        released.start()
        assert schema.install(landed).changed
        released.join()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("select array_agg(task_index) from pgflow.claim_tasks('f', %(worker)s, 2)", [0, 1]),
        ("select status from pgflow.cancel_run(%(run)s)", "failed"),
        ("select rejected from pgflow.complete_tasks(%(skipped)s, 'm', '{0}', '{1}')", [0]),
    ],
    ids=["claim", "cancel", "complete"],
)
def test_a_call_that_begins_while_the_schema_is_upgraded_goes_on(
    landed: Connection, empty_dsn: str, monkeypatch: pytest.MonkeyPatch, call: str, answer: object
) -> None:
    """It has to wait, and goes on in the body that it began with, which calls others as they were then."""
    landed.execute("select pgflow.create_flow('f')")
    landed.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
    values = {"worker": WORKER, "run": start(landed, "f", 2), "skipped": start(landed, "f", 1)}
    landed.execute(
        "update pgflow.step_states set status = 'skipped', skip_reason = 'x', remaining_tasks = null"
        " where run_id = %s",
        (values["skipped"],),
    )
    claim(landed, "f", 0)
    answers: list[object] = []

    def work() -> None:
        with psycopg.connect(empty_dsn, autocommit=True) as other:
            answers.append((other.execute(call.encode(), values).fetchone() or (None,))[0])

    thread = threading.Thread(target=work)
    real = schema._run_migration

    def then_call(conn: Connection, version: int, prefix: str = "") -> None:
        real(conn, version, prefix)
        if version == schema.latest_version():  # the tables are changed, the functions are not yet
            thread.start()
            deadline = time.monotonic() + 10
            waiting = "select count(*) from pg_locks where not granted"
            while conn.execute(waiting.encode()).fetchone() == (0,) and time.monotonic() < deadline:
                time.sleep(0.01)

    monkeypatch.setattr(schema, "_run_migration", then_call)
    assert schema.install(landed).changed
    thread.join(20)
    assert answers == [answer]
