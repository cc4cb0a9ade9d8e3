"""Runs with keys: each is started once, whoever asks, and goes with its run."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import psycopg
import pytest

from .helpers import Db, flow, map_step

START = "select * from pgflow.start_keyed_run('f', %s, %s, %s)"
LOADED = "select * from pgflow.start_keyed_load(%s, %s, %s)"


def keyed(db: Db, key: str, input: str, hash: bytes | None = None) -> tuple[uuid.UUID, bool]:
    row = db.row(START, key, input, hash)
    return row.run_id, row.is_new


def loaded(db: Db, *items: int) -> uuid.UUID:
    load: uuid.UUID = db.value("select pgflow.open_load('f')")
    if items:
        body = str([*items])
        db.do("select pgflow.add_pages(%s, '{0}', %s, array[%s::jsonb])", load, [len(items)], body)
    return load


def count(db: Db, table: str) -> int:
    found: int = db.value(f"select count(*) from pgflow.{table}")
    return found


@pytest.fixture
def known(db: Db) -> Db:
    flow(db, "f", map_step("m"))
    return db


def test_a_key_is_of_one_run_in_each_flow_and_tells_other_inputs_from_the_same(known: Db) -> None:
    run, is_new = keyed(known, "nightly 1", "[1, 2.0]")
    assert is_new
    assert keyed(known, "nightly 1", "[1,2.00]") == (run, False)  # the same value
    refused = known.refused(START, "nightly 1", "[1]", None)
    assert refused.sqlstate == "PF007"
    assert (
        refused.message
        == f'Run {run} of flow "f" has the key "nightly 1", and was started with another input'
    )
    assert known.refused(START, "nightly 1", "[1]", b"x").sqlstate == "PF007"
    assert keyed(known, "nightly 2", "[1]", b"x")[0] != run
    assert keyed(known, "nightly 2", "[9]", b"x")[1] is False  # whoever made the hash knows
    flow(known, "g", map_step("m"))
    other = known.row("select * from pgflow.start_keyed_run('g', 'nightly 1', '[1]')")
    assert other.is_new
    assert count(known, "runs") == count(known, "run_keys") == 3
    found = known.rows("select * from pgflow.keys_of_runs(%s)", [run, uuid.uuid4()])
    assert [(row.run_id, row.key) for row in found] == [(run, "nightly 1")]
    assert known.rows("select * from pgflow.run_of_key('f', 'none')") == []


def test_loads_have_keys_by_the_hash_of_their_items_and_are_dropped_where_there_is_a_run(known: Db) -> None:
    first = known.row(LOADED, loaded(known, 1, 2), "k", b"12")
    assert first.is_new
    again = known.row(LOADED, loaded(known, 1, 2), "k", b"12")
    assert (again.run_id, again.is_new) == (first.run_id, False)
    assert count(known, "loads") == count(known, "pages") == 1
    assert keyed(known, "k", "[1, 2]", b"12") == (first.run_id, False)  # the same items as one value
    assert known.refused(START, "k", "{}", None).sqlstate == "PF007"
    third = loaded(known, 3)
    assert known.refused(LOADED, third, "k", b"3").sqlstate == "PF007"
    assert known.refused(LOADED, third, "k", None).sqlstate == "22023"
    assert count(known, "runs") == 1
    value = keyed(known, "v", "[3]", b"3")[0]
    assert known.row(LOADED, third, "v", b"3").run_id == value
    assert count(known, "loads") == 1


@pytest.mark.parametrize("key", [None, "", " a", "a ", "a\nb", "\x7f", "a\x1b[2J", "x" * 201])
def test_what_can_be_no_key(known: Db, key: str | None) -> None:
    assert known.refused(START, key, "[1]", None).sqlstate == "22023"
    assert count(known, "run_keys") == 0


@pytest.mark.parametrize(
    "removed",
    [
        "select pgflow.prune_data_older_than('-1 hour')",
        "select pgflow.prune_runs('-1 hour')",
        "select pgflow.delete_flow_and_data('f')",
    ],
)
def test_a_key_goes_with_its_run_and_may_be_given_again(known: Db, removed: str) -> None:
    run, _ = keyed(known, "k", "[]")
    known.do(removed)
    assert count(known, "run_keys") == 0
    if "delete_flow" in removed:
        flow(known, "f", map_step("m"))
    again, is_new = keyed(known, "k", "[1]")
    assert is_new
    assert again != run


def test_a_start_that_is_refused_takes_no_key(known: Db) -> None:
    assert "is not an array" in known.refused(START, "k", "{}", None).message
    assert known.refused("select * from pgflow.start_keyed_run('none', 'k', '[]')").sqlstate == "23503"
    assert count(known, "run_keys") == 0


@pytest.mark.parametrize("first_ends_by", ["commit", "rollback"])
def test_who_comes_second_waits_and_starts_nothing_unless_the_first_gives_up(
    alone: Db, beside: Db, first_ends_by: str
) -> None:
    flow(alone, "f", map_step("m"))
    begun = beside.row(START, "k", "[1]", None)
    found: list[Any] = []
    second = threading.Thread(target=lambda: found.append(alone.row(START, "k", "[1]", None)))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    getattr(beside.conn, first_ends_by)()
    second.join(10)
    assert not second.is_alive()
    assert found[0].is_new is (first_ends_by == "rollback")
    assert (found[0].run_id == begun.run_id) is (first_ends_by == "commit")
    assert count(alone, "runs") == 1


def test_many_who_start_at_once_get_one_run_while_runs_are_pruned(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        flow(Db(admin), "f", map_step("m"))
        answers: list[tuple[str, uuid.UUID, bool]] = []
        errors: list[BaseException] = []
        gate = threading.Barrier(6)

        def start(number: int) -> None:
            try:
                with psycopg.connect(dsn, autocommit=True) as conn:
                    gate.wait(10)
                    for turn in range(30):
                        if number == 0:
                            conn.execute("select pgflow.prune_data_older_than('-1 hour')")
                            continue
                        key = f"k{turn % 10}"
                        items = "[1]" if turn < 20 else "[]"  # the last ones are over at once
                        row = conn.execute(START, (f"{key}{items}", items, None)).fetchone()
                        assert row is not None
                        answers.append((f"{key}{items}", *row))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=start, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        waiting = {(key, run) for key, run, _ in answers if key.endswith("[1]")}
        assert len(waiting) == 10
        assert sum(is_new for key, _, is_new in answers if key.endswith("[1]")) == 10
        for table in ("run_keys", "runs"):
            stale = admin.execute(f"select count(*) from pgflow.{table} r".encode()).fetchone()
            assert stale is not None
            assert 10 <= stale[0] <= 20
