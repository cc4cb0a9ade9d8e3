"""Tags of runs: given with the start, whichever way, kept through a retry, gone with the run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from database_roles import role_with
from worker_harness import adapted

from pgflow_mp.client import Client
from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.run_tags import check_tags
from pgflow_mp.db.starting import start_once
from pgflow_mp.errors import FlowNotFound, InputError
from pgflow_mp.observe.read_reports import (
    mark_of,
    read_flows,
    read_items,
    read_run,
    read_runs,
    read_workers,
)

WORKER = str(uuid.UUID(int=9))


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    with adapted(dsn) as conn:
        conn.execute("select pgflow.create_flow('f', max_attempts => 1)")
        conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
        yield conn


def tags_of(conn: Connection, run_id: str) -> list[str]:
    return next(run.tags for run in read_runs(conn) if run.run_id == run_id)


def test_every_way_to_start_a_run_gives_it_its_tags(conn: Connection, dsn: str) -> None:
    with Client(dsn) as client:
        wanted = ["nightly", "team=search", "nightly"]
        runs = [
            client.start_flow("f", [1], tags=wanted),
            client.start_flow("f", [1], tags=wanted, key="k"),
            client.start("f", iter([1, 2]), tags=wanted),
            client.start("f", iter([1, 2]), tags=wanted, key="l"),
        ]
        source = runs[0].run_id
        runs.append(client.start_flow("f", [1], tags=wanted, from_run=source, reuse=["m"]))
        runs.append(client.start("f", iter([1]), tags=wanted, from_run=source, reuse=["m"]))
        for run in runs:
            assert tags_of(conn, run.run_id) == ["nightly", "team=search"]
        again = client.start_flow("f", [1], tags=["other"], key="k")
        assert again.run_id == runs[1].run_id
        assert tags_of(conn, again.run_id) == ["nightly", "team=search"]
        with pytest.raises(InputError, match="cannot have the tag 'a b'"):
            client.start_flow("f", [1], tags=["a b"])
        with pytest.raises(InputError, match="are a list"):
            client.start_flow("f", [1], tags="nightly")
    assert {run.run_id for run in read_runs(conn, tags=["nightly"])} == {run.run_id for run in runs}
    assert read_runs(conn, tags=["other"]) == []
    assert [run.run_id for run in read_runs(conn, key="k", tags=["nightly"])] == [runs[1].run_id]
    assert read_runs(conn, key="k", tags=["other"]) == read_runs(conn, key="m") == []


def test_a_run_that_cannot_be_tagged_is_not_started(conn: Connection) -> None:
    wanted = str(uuid.uuid4())
    conn.execute("create function pgflow.refuse() returns trigger language plpgsql as 'begin raise; end'")
    conn.execute("create trigger refuse before insert on pgflow.run_tags execute function pgflow.refuse()")
    with pytest.raises(InputError, match="cannot be started"):
        start_once(conn, "f", b"[1]", wanted, tags=["a"])
    assert engine.get_run(conn, wanted) is None
    with pytest.raises(FlowNotFound):
        start_once(conn, "none", b"[1]", wanted, tags=["a"])


GOES_WITH_RUNS = ("run_tags", "cancelled_runs", "step_counts")
REMOVALS = {
    "remove": "select pgflow.remove_run(%(run)s::uuid)",
    "prune": "select pgflow.prune_runs('-1 hour', array['f'])",
    "contract's prune": "select pgflow.prune_data_older_than('-1 hour')",
    "delete the flow": "select pgflow.delete_flow_and_data('f')",
    "by hand": "delete from pgflow.step_tasks; delete from pgflow.step_states; delete from pgflow.runs",
}


@pytest.mark.parametrize("how", REMOVALS)
def test_tags_are_kept_through_a_retry_and_go_with_the_run(conn: Connection, how: str) -> None:
    run = start_once(conn, "f", b"[1]", str(uuid.uuid4()), tags=["a"]).run_id
    engine.register_worker(conn, WORKER, "f", "box:1", 60)
    [task] = engine.claim_tasks(conn, "f", WORKER, 1)
    engine.fail_tasks(conn, run, "m", [0], ["no"], WORKER, [task.attempt], [False])
    assert read_runs(conn)[0].state == "failed"
    engine.retry_failed_tasks(conn, run)
    engine.cancel_run(conn, run)
    assert read_runs(conn)[0].state == "cancelled"
    engine.retry_failed_tasks(conn, run)
    assert (tags_of(conn, run), read_runs(conn)[0].state) == (["a"], "queued")
    engine.cancel_run(conn, run)
    sums = " + ".join(f"(select count(*) from pgflow.{name})" for name in GOES_WITH_RUNS)
    assert conn.execute(f"select {sums}".encode()).fetchone() == (3,)
    conn.execute(REMOVALS[how].encode(), {"run": run})
    assert conn.execute(f"select {sums}".encode()).fetchone() == (0,)


def test_in_sql(conn: Connection) -> None:
    with conn.transaction():
        row = conn.execute(
            "select pgflow.tag_run(r.run_id, array['sql', 'b']) from pgflow.start_flow('f', '[1]') r"
        )
        assert row.fetchone() == (["b", "sql"],)
    [run] = read_runs(conn, tags=["sql"])
    assert conn.execute("select pgflow.tag_run(%s::uuid, '{a,b}')", (run.run_id,)).fetchone() == (
        ["a", "b", "sql"],
    )
    for bad in ("", "a b", "-a", "x" * 65, "ä", "a\n", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            conn.execute("select pgflow.tag_run(%s::uuid, array[%s::text])", (run.run_id, bad))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="more than 20"):
        conn.execute(
            "select pgflow.tag_run(%s::uuid, %s::text[])", (run.run_id, [f"t{n}" for n in range(18)])
        )
    assert tags_of(conn, run.run_id) == ["a", "b", "sql"]
    with pytest.raises(psycopg.Error, match="There is no run"):
        conn.execute("select pgflow.tag_run(%s::uuid, '{a}')", (str(uuid.uuid4()),))


def test_what_can_be_a_tag() -> None:
    assert check_tags(["a", "A.b_c:d/e=f@g+h-1", "x" * 64, "a"]) == ("a", "A.b_c:d/e=f@g+h-1", "x" * 64)
    for bad in ("", "a b", "-a", "x" * 65, "ä", "a\n", "a,b"):
        with pytest.raises(InputError):
            check_tags([bad])
    with pytest.raises(InputError, match="20 tags, not 21"):
        check_tags([f"t{n}" for n in range(21)])


def test_pages_of_runs_miss_none_and_filters_go_together(conn: Connection) -> None:
    runs = [
        start_once(
            conn, "f", json.dumps([n]).encode(), str(uuid.uuid4()), tags=["even"] if n % 2 == 0 else ["odd"]
        )
        for n in range(9)
    ]
    same = runs[3].started_at  # as runs of one transaction have
    conn.execute(
        "update pgflow.runs set started_at = %s where run_id = any (%s::uuid[])",
        (same, [r.run_id for r in runs[3:6]]),
    )
    engine.cancel_run(conn, runs[4].run_id)
    found, before = [], None
    while page := read_runs(conn, 2, before=before):
        found += page
        before = mark_of(page[-1])
    assert len(found) == len({run.run_id for run in found}) == 9
    assert found == sorted(found, key=mark_of, reverse=True)
    assert [run.run_id for run in read_runs(conn, states=["cancelled"])] == [runs[4].run_id]
    assert read_runs(conn, states=["cancelled"], tags=["odd"]) == []
    assert len(read_runs(conn, states=["queued"], tags=["even"])) == 4
    assert len(read_runs(conn, 3, states=["queued"])) == 3
    assert [run.run_id for run in read_runs(conn, since=runs[8].started_at)] == [runs[8].run_id]
    assert len(read_runs(conn, until=runs[8].started_at)) == 8
    assert read_runs(conn, flow="other") == []


def test_a_reader_sees_everything_and_starts_nothing(conn: Connection, dsn: str) -> None:
    run = start_once(conn, "f", b"[1]", str(uuid.uuid4()), tags=["a"], priority=3).run_id
    engine.register_worker(conn, str(uuid.uuid4()), "f", "box:1", 60)
    with role_with(dsn, "reader") as theirs, adapted(theirs) as reader:
        mine, told = read_run(conn, run), read_run(reader, run)
        assert mine is not None
        assert told is not None
        assert (told.counts, told.state, told.tags, told.priority) == (mine.counts, "queued", ["a"], 3)
        assert [step.workers for step in told.steps] == [1]
        assert [run.run_id for run in read_runs(reader, tags=["a"])] == [run]
        assert [item.status for item in read_items(reader, run, "m")] == ["queued"]
        assert [flow.flow_slug for flow in read_flows(reader)] == ["f"]
        assert [worker.name for worker in read_workers(reader)] == ["box:1"]
        for refused in (
            "pgflow.tag_run(%s::uuid, '{b}')",
            "pgflow.cancel_run(%s::uuid)",
            "pgflow.start_run('f', '[1]', %s::uuid)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(f"select {refused}".encode(), (run,))
