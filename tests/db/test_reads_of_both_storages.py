"""What is read of a run is the same whichever way its map's items are stored."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from worker_harness import adapted

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import documents, runs, tasks
from pgflow_mp.observe.grouping import read_failures
from pgflow_mp.testing import audit_run

STORAGES = ("tasks", "ranges")
ITEMS = 12
WORKER = str(uuid.uuid4())


@pytest.fixture
def db(dsn: str) -> Iterator[Connection]:
    with adapted(dsn) as conn:
        yield conn


def attempts(status: str, attempts: int) -> int:
    """What ended unfinished in a range has no attempt; a task has the one that it was charged."""
    return -1 if status in ("cancelled", "skipped") else attempts


class Mapped:
    """A run of a flow whose only step is map "m" of the numbers 0 to 11, and a worker that holds some."""

    def __init__(self, conn: Connection, storage: str, *, tolerated: int = 0) -> None:
        self.conn, self.storage, self.flow = conn, storage, f"of_{storage}"
        conn.execute("select pgflow.create_flow(%s, max_attempts => 1)", (self.flow,))
        conn.execute("select pgflow.add_step(%s, 'm', step_type => 'map')", (self.flow,))
        conn.execute(
            "select pgflow.set_step_policy(%s, 'm', storage => %s, tolerated_failures => %s::int)",
            (self.flow, storage, tolerated),
        )
        engine.register_worker(conn, WORKER, self.flow, "reader", 3600)
        self.run = engine.start_flow(conn, self.flow, json.dumps([*range(ITEMS)]).encode())
        self.lease = 1

    def hold(self, items: int) -> None:
        """Claim the first so many."""
        rows = self.conn.execute(
            "select task_index, items, attempt from pgflow.claim_work(%s, %s::uuid, %s::int, %s::int)"
            " where msg_id is null or items is null order by task_index",
            (self.flow, WORKER, items, items),
        ).fetchall()
        assert sum(row[1] or 1 for row in rows) == items
        self.lease = rows[0][2]

    def complete(self, first: int, outputs: list[Any]) -> None:
        count, texts = len(outputs), [json.dumps(output) for output in outputs]
        if self.storage == "ranges":
            query = (
                "select accepted from pgflow.complete_ranges(%s::uuid, 'm', %s::uuid, array[%s::int],"
                " array[%s::int], array[%s::int], array[%s::jsonb])"
            )
            body = f"[{', '.join(texts)}]"
            done = self.conn.execute(query, (self.run, WORKER, self.lease, first, count, body))
        else:
            query = (
                "select accepted from pgflow.complete_tasks(%s::uuid, 'm', %s::int[], %s::text[]::jsonb[])"
            )
            done = self.conn.execute(query, (self.run, [*range(first, first + count)], texts))
        assert done.fetchone() == (count,)

    def fail(self, index: int, error: str) -> None:
        if self.storage == "ranges":
            query = (
                "select accepted from pgflow.fail_range_items(%s::uuid, 'm', %s::uuid, array[%s::int],"
                " array[%s::int], array[%s])"
            )
            done = self.conn.execute(query, (self.run, WORKER, self.lease, index, error))
        else:
            query = "select accepted from pgflow.fail_tasks(%s::uuid, 'm', array[%s::int], array[%s])"
            done = self.conn.execute(query, (self.run, index, error))
        assert done.fetchone() == (1,)

    def read(self) -> dict[str, Any]:
        """Everything that is asked about items, without times and ids."""
        conn, run = self.conn, self.run
        steps = engine.run_progress(conn, run)
        failed = read_failures(conn, run, steps, whole=99)
        by_step = failed.by_step()
        steps = [step._replace(failed_tasks=by_step.get(step.step_slug, 0)) for step in steps]
        (recent,) = [each for each in runs.recent_runs(conn, 9) if each.run_id == str(run)]
        return {
            "tasks": [*documents.iter_tasks(conn, run, "m")],
            "results": [*documents.iter_results(conn, run, "m")],
            "map output": [*documents.iter_map_output(conn, run, "m")],
            "step output": documents.step_output(conn, run, "m"),
            "run output": documents.run_output(conn, run),
            "leaves": documents.leaves(conn, run),
            "steps": [step._replace(started_at=None, finished_at=None) for step in steps],
            "first": tasks.first_failed(conn, run, 9),
            "failed": failed,
            "ended": tasks.ended_with_others(conn, run, steps),
            "counts": (recent.status, recent.items, recent.done),
            "stored": [
                found and found._replace(message_id=None, attempts=attempts(found.status, found.attempts))
                for found in (tasks.stored_task(conn, run, "m", index) for index in range(-1, ITEMS + 1))
            ],
            "items": [
                (*row[:-1], attempts(row[1], row[-1]))
                for row in conn.execute(
                    "select item_index, status, input, output, error, attempts from pgflow.items"
                    " where run_id = %s order by 1",
                    (run,),
                ).fetchall()
            ],
            "audit": audit_run(conn, str(run)),
        }


def both(conn: Connection, work: Any, **options: Any) -> dict[str, Any]:
    """What is read in either storage after the same work; the same."""
    found = []
    for storage in STORAGES:
        mapped = Mapped(conn, storage, **options)
        work(mapped)
        found.append(mapped.read())
    assert found[0] == found[1]
    return found[0]


def test_a_run_under_way(db: Connection) -> None:
    def work(mapped: Mapped) -> None:
        mapped.hold(8)
        mapped.complete(2, ["c", None])
        mapped.complete(0, [{"a": 1}])
        mapped.fail(5, "no")

    found = both(db, work, tolerated=1)
    statuses = [status for _, status, _ in found["tasks"]]
    held, waits = "started", "queued"
    done, failed = "completed", "failed"
    assert statuses == [done, held, done, done, held, failed, held, held, *[waits] * 4]
    assert found["results"] == [(0, b'{"a": 1}'), (2, b'"c"'), (3, b"null")]
    assert found["first"] == ([("m", 5)], 1)
    ((group,), (item,)) = found["failed"].groups, found["failed"].groups[0].examples
    assert (group.step, group.outcome, group.kind, group.error, group.items) == (
        "m",
        "tolerated",
        "error",
        "no",
        1,
    )
    assert (item.index, item.attempts, item.error, item.input, item.glimpse) == (5, 1, "no", 5, "5")
    assert found["step output"] is None
    assert found["counts"] == ("started", 12, 4)
    assert [each and each.input for each in found["stored"]] == [None, *(b"%d" % i for i in range(12)), None]
    assert found["audit"] == []


def test_a_run_that_is_completed_with_a_tolerated_failure(db: Connection) -> None:
    def work(mapped: Mapped) -> None:
        mapped.hold(ITEMS)
        mapped.fail(3, "no")
        mapped.complete(4, [*range(4, 12)])
        mapped.complete(0, [0, 1, 2])

    found = both(db, work, tolerated=1)
    outputs = [b"0", b"1", b"2", b"null", *(b"%d" % i for i in range(4, 12))]
    assert found["map output"] == outputs
    assert found["step output"] == b"[" + b", ".join(outputs) + b"]"
    assert found["run output"] == b'{"m": ' + found["step output"] + b"}"
    assert found["leaves"] == [documents.Leaf("m", True, True)]
    assert (found["steps"][0].failed_tasks, found["steps"][0].remaining_tasks) == (1, 0)
    assert found["audit"] == []


def test_a_run_that_failed_and_one_that_was_cancelled(db: Connection) -> None:
    def failing(mapped: Mapped) -> None:
        mapped.hold(6)
        mapped.complete(0, [0, 1])
        mapped.fail(4, "no")

    found = both(db, failing)
    assert found["ended"] == {"m": tasks.EndedTasks(cancelled=9)}
    assert found["first"] == ([("m", 4)], 1)
    assert [(group.outcome, group.items) for group in found["failed"].groups] == [("failed", 1)]
    assert [step.failed_tasks for step in found["steps"]] == [1]
    assert found["audit"] == []


def test_a_step_that_is_skipped(db: Connection) -> None:
    def failing(mapped: Mapped) -> None:
        mapped.conn.execute(
            "update pgflow.steps set when_exhausted = 'skip' where flow_slug = %s", (mapped.flow,)
        )
        mapped.hold(6)
        mapped.complete(0, [0, 1])
        mapped.fail(4, "no")

    found = both(db, failing)
    assert found["ended"] == {"m": tasks.EndedTasks(skipped=9)}
    assert [status for _, status, _ in found["tasks"]].count("skipped") == 9
    assert found["audit"] == []


def test_a_retried_run(db: Connection) -> None:
    def work(mapped: Mapped) -> None:
        mapped.hold(6)
        mapped.complete(0, [0, 1])
        mapped.fail(4, "no")
        engine.retry_failed_tasks(mapped.conn, mapped.run)

    found = both(db, work)
    assert [status for _, status, _ in found["tasks"]] == ["completed"] * 2 + ["queued"] * 10
    assert found["ended"] == {}
    assert found["counts"] == ("started", 12, 2)
    assert found["audit"] == []


def test_pages_of_results_end_at_so_many_bytes(db: Connection) -> None:
    for storage in STORAGES:
        mapped = Mapped(db, storage)
        mapped.hold(ITEMS)
        mapped.complete(0, ["x" * 1000] * 3)
        mapped.complete(3, ["y" * 5000])
        mapped.complete(4, ["z" * 1000] * 8)
        seen: list[list[int]] = []
        while not seen or seen[-1]:
            rows = db.execute(
                "select task_index from pgflow.run_results_page(%s::uuid, 'm', %s::int, 100, 4500)",
                (mapped.run, seen[-1][-1] + 1 if seen else 0),
            ).fetchall()
            seen.append([row[0] for row in rows])
        assert [index for page in seen for index in page] == [*range(ITEMS)]
        assert [3] in seen
        assert max(map(len, seen)) == 4


def test_a_page_of_results_is_not_looked_at_beyond_its_bytes(db: Connection) -> None:
    mapped = Mapped(db, "ranges")
    mapped.hold(ITEMS)
    for index in range(ITEMS):
        mapped.complete(index, ["x" * 100_000])
    toast = (
        "select idx_tup_fetch::int from pg_stat_xact_all_tables"
        " where relid = (select reltoastrelid from pg_class where oid = 'pgflow.pages'::regclass)"
    )
    page = "select count(*)::int from pgflow.run_results_page(%s::uuid, 'm', 0, 5000, 250000)"
    with db.transaction():
        (before,) = db.execute(toast).fetchone() or (0,)
        assert db.execute(page, (mapped.run,)).fetchone() == (2,)
        (after,) = db.execute(toast).fetchone() or (0,)
    assert 90 < after - before < 120  # chunks of 2 kB: of two pages, not of twelve
