"""Hot statements reach their rows through an index, at 100,000 rows and with any statistics.

PostgreSQL's own counters of the running transaction tell how the rows were reached: no sequential
scan, and a number of rows fetched that follows the batch and not the table.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgflow_mp.db import engine, recovery, wire
from pgflow_mp.db.engine import ClaimedTask
from pgflow_mp.db.reads import finished

ROWS = 100_000
BATCH = 500
WORKER = str(uuid.uuid4())


class Big:
    """A flow ``f`` with a running map of 100,000 spawned tasks."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        wire.adapt(conn)
        conn.execute("select pgflow.create_flow('f')")
        conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
        conn.execute("select pgflow.add_step('f', 'n', array['m'], step_type => 'map')")
        engine.register_worker(conn, WORKER, "f", "test", 10)
        self.run = engine.start_flow(conn, "f", str(list(range(ROWS))).encode())
        conn.execute("select pgflow._spawn_tasks('f', %s, 'm', 20000, %s)", (self.run, ROWS))
        conn.execute("update pgflow.step_states set spawned_tasks = %s where step_slug = 'm'", (ROWS,))

    def claim(self) -> list[ClaimedTask]:
        tasks = engine.claim_tasks(self.conn, "f", WORKER, BATCH)
        assert len(tasks) == BATCH
        return tasks

    def complete(self, tasks: list[ClaimedTask]) -> None:
        done = engine.complete_tasks(
            self.conn,
            self.run,
            "m",
            [t.task_index for t in tasks],
            [b"1"] * len(tasks),
            WORKER,
            [t.attempt for t in tasks],
        )
        assert done.accepted == len(tasks)

    def fail(self, tasks: list[ClaimedTask]) -> None:
        n = len(tasks)
        engine.fail_tasks(
            self.conn,
            self.run,
            "m",
            [t.task_index for t in tasks],
            ["broken"] * n,
            WORKER,
            [t.attempt for t in tasks],
            [False] * n,
        )

    def scans(self) -> dict[str, tuple[int, int]]:
        rows = self.conn.execute(
            "select relname, coalesce(seq_tup_read, 0), coalesce(idx_tup_fetch, 0) "
            "from pg_stat_xact_user_tables where relname in ('step_tasks', 'q_f', 'a_f')"
        ).fetchall()
        return {name: (sequential, fetched) for name, sequential, fetched in rows}

    def cost(self, work: Callable[[], object]) -> dict[str, tuple[int, int]]:
        before = self.scans()
        work()
        after = self.scans()
        return {
            name: (after[name][0] - before.get(name, (0, 0))[0], after[name][1] - before.get(name, (0, 0))[1])
            for name in after
        }


STATISTICS = ["no statistics", "fresh statistics"]
EMPTY = "statistics of a queue that was empty"


@pytest.fixture(scope="module")
def _made(_shared: str) -> Iterator[Big]:
    """Made once, in a transaction that is rolled back; each test goes back to how it was."""
    with psycopg.connect(_shared) as conn:
        yield Big(conn)
        conn.rollback()


@pytest.fixture(params=[*STATISTICS, EMPTY])
def big(_made: Big, request: pytest.FixtureRequest) -> Iterator[Big]:
    conn = _made.conn
    conn.execute("savepoint made")
    if request.param == "fresh statistics":
        conn.execute("analyze pgflow.step_tasks")
        conn.execute("analyze pgmq.q_f")
    elif request.param == EMPTY:
        conn.execute(
            "update pg_class set reltuples = 0, relpages = 200"
            " where oid in ('pgmq.q_f'::regclass, 'pgflow.step_tasks'::regclass)"
        )
    conn.execute("discard plans")
    yield _made
    conn.execute("rollback to savepoint made")
    conn.execute("discard plans")


def test_every_hot_call_reaches_its_rows_by_index(big: Big) -> None:
    held: list[ClaimedTask] = []
    calls: dict[str, Callable[[], object]] = {
        "claim": lambda: held.extend(big.claim()),
        "complete": lambda: big.complete(held),
        "claim to fail": lambda: held.__setitem__(slice(None), big.claim()),
        "fail": lambda: big.fail(held),
        "claim to release": lambda: held.__setitem__(slice(None), big.claim()),
        "extend": lambda: engine.extend_tasks(big.conn, "f", WORKER, [t.msg_id for t in held], 60),
        "release": lambda: engine.release_tasks(big.conn, "f", WORKER, [t.msg_id for t in held]),
    }
    for name, call in calls.items():
        for table, (sequential, fetched) in big.cost(call).items():
            assert sequential == 0, f"{name} reads {table} sequentially"
            # The read of the queue walks past the messages that are claimed or gone.
            assert fetched <= 8 * BATCH, f"{name} fetches {fetched} rows of {table} for {BATCH} tasks"


def test_what_has_ended_is_found_by_index_and_within_bounds(big: Big) -> None:
    held = big.claim()
    big.complete(held[: BATCH // 2])
    for begin in (0, ROWS - 10_000):
        looked: list[int] = []

        def look(begin: int = begin, looked: list[int] = looked) -> None:
            gaps = [(begin, finished.END)]
            looked.append(finished.look(big.conn, big.run, "m", gaps, inputs=True, rows=BATCH)[1])

        sequential, fetched = big.cost(look)["step_tasks"]
        assert looked == [begin + BATCH]
        assert sequential == 0, "what has ended is looked for sequentially"
        assert fetched <= 3 * BATCH, f"a look at {BATCH} tasks fetches {fetched}"


def test_a_fair_claim_among_runs_reaches_its_rows_by_index(big: Big) -> None:
    engine.start_flow(big.conn, "f", b"[1, 2, 3]")
    for table, (sequential, fetched) in big.cost(big.claim).items():
        assert sequential == 0, f"the claim reads {table} sequentially"
        assert fetched <= 8 * BATCH, f"the claim fetches {fetched} rows of {table}"


def test_taking_over_reaches_its_rows_by_index_and_former_workers_cost_nothing(big: Big) -> None:
    for _ in range(20):
        engine.register_worker(big.conn, str(uuid.uuid4()), "f", "former", 1)
    big.claim()
    found: list[int] = []
    costs = []
    for _ in range(4):  # taken over from, looked at again, and never again
        big.conn.execute(
            "update pgflow.workers set last_heartbeat_at = now() - interval '1 hour', dead_after = '1 s',"
            " stopped_at = stopped_at - interval '1 hour'"
        )
        costs.append(big.cost(lambda: found.append(recovery.recover_dead_workers(big.conn))))
    assert found == [BATCH, 0, 0, 0]
    for cost in costs:
        sequential, fetched = cost["step_tasks"]
        assert sequential == 0, "taking over reads the tasks sequentially"
        assert fetched <= 8 * BATCH, f"taking over fetches {fetched} tasks"
    assert costs[2] == costs[3] == dict.fromkeys(("step_tasks", "q_f", "a_f"), (0, 0))


@pytest.mark.parametrize("big", STATISTICS, indirect=True)  # pgmq.read reads all where they are stale
def test_the_single_task_calls_of_other_clients_do_too(big: Big) -> None:
    def one() -> None:
        ids = [row[0] for row in big.conn.execute("select msg_id from pgmq.read('f', 5, 10)")]
        rows = big.conn.execute(
            "select task_index from pgflow.start_tasks('f', %s, %s::uuid)", (ids, WORKER)
        ).fetchall()
        assert len(rows) == 10
        big.conn.execute("select pgflow.complete_task(%s, 'm', %s, '1')", (big.run, rows[0][0]))
        big.conn.execute("select pgflow.fail_task(%s, 'm', %s, 'x')", (big.run, rows[1][0]))

    for table, (sequential, fetched) in big.cost(one).items():
        assert sequential == 0, f"{table} is read sequentially"
        assert fetched <= 200, f"{fetched} rows of {table} are fetched"


@pytest.mark.parametrize(
    "function",
    [
        "_claim",
        "_claim_next",
        "claim_work",
        "complete_tasks",
        "fail_tasks",
        "requeue_stalled_tasks",
        "fail_stalled_tasks",
        "_recover",
    ],
)
def test_plans_of_frequent_calls_are_never_compiled(
    tx: psycopg.Connection[tuple[object, ...]], function: str
) -> None:
    row = tx.execute(
        "select 'jit=off' = any (proconfig) from pg_proc"
        " where pronamespace = 'pgflow'::regnamespace and proname = %s",
        (function,),
    ).fetchone()
    assert row == (True,)
