"""Real parallel connections against one engine: no deadlock, no lost or doubled count.

Each race is repeated over many fresh runs; the slow variants go through thousands of interleavings.
"""

# ruff: noqa: B023 (the jobs of a race have run before the next round binds its variables)

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from . import helpers
from .helpers import (
    Db,
    claim,
    complete,
    fail,
    flow,
    map_step,
    run_row,
    start,
    state,
    statuses,
    step,
    task_statuses,
    tasks,
)

Job = Callable[[Db], Any]

ROUNDS = [pytest.param(8, id="short"), pytest.param(600, id="long", marks=pytest.mark.slow)]

INVARIANTS = """
select 'remaining_steps' as what, r.run_id::text as who
from pgflow.runs r
where r.remaining_steps <> (select count(*) from pgflow.step_states s
                            where s.run_id = r.run_id and s.status not in ('completed', 'skipped'))
union all
select 'remaining_tasks', s.run_id || ' ' || s.step_slug from pgflow.step_states s
where s.status = 'started' and s.remaining_tasks <> s.initial_tasks - (
    select count(*) from pgflow.step_tasks t
    where t.run_id = s.run_id and t.step_slug = s.step_slug and t.status = 'completed')
union all
select 'remaining_deps', s.run_id || ' ' || s.step_slug from pgflow.step_states s
where s.status = 'created' and s.remaining_deps <> (
    select count(*) from pgflow.deps d
    join pgflow.step_states p on p.run_id = s.run_id and p.step_slug = d.dep_slug
    where d.flow_slug = s.flow_slug and d.step_slug = s.step_slug
      and p.status not in ('completed', 'skipped'))
union all
select 'unstarted', s.run_id || ' ' || s.step_slug
from pgflow.step_states s join pgflow.runs r using (run_id)
where r.status = 'started' and s.status = 'created' and s.remaining_deps = 0
union all
select 'unfinished', r.run_id::text from pgflow.runs r where r.status = 'started' and r.remaining_steps = 0
union all
select 'event told twice', e.event || ' ' || e.topic from realtime.messages e
group by e.event, e.topic having count(*) > 1
union all
select 'attempts', t.run_id || ' ' || t.step_slug || ' ' || t.task_index from pgflow.step_tasks t
where t.status = 'started' and t.attempts_count = 0
union all
select 'message of ' || t.status || ' task is ' || case when q.msg_id is null then 'gone' else 'live' end,
       t.run_id || ' ' || t.step_slug || ' ' || t.task_index
from pgflow.step_tasks t
join pgflow.step_states s using (run_id, step_slug)
join pgflow.runs r on r.run_id = t.run_id
left join pgmq.q_f q on q.msg_id = t.message_id
where (q.msg_id is not null)
   <> (r.status = 'started' and s.status = 'started' and t.status in ('queued', 'started'))
"""


class Crew:
    """Connections that start their calls at the same moment."""

    def __init__(self, dsn: str, size: int) -> None:
        self.connections = [psycopg.connect(dsn, autocommit=True) for _ in range(size)]
        self.threads = ThreadPoolExecutor(size)

    def race(self, *jobs: Job) -> list[Any]:
        """Run every job on a connection of its own, together; their answers in order."""
        gate = threading.Barrier(len(jobs))

        def one(job: Job, conn: psycopg.Connection[Any]) -> Any:
            gate.wait(30)
            return job(Db(conn))

        futures = [self.threads.submit(one, j, c) for j, c in zip(jobs, self.connections, strict=False)]
        return [f.result(60) for f in futures]

    def close(self) -> None:
        self.threads.shutdown(wait=True, cancel_futures=True)
        for conn in self.connections:
            conn.close()


@pytest.fixture
def arena(conn: psycopg.Connection[Any]) -> Db:
    """A database of its own, committed to, with the stand-in for events and one worker."""
    db = Db(conn)
    db.do(helpers.REALTIME + helpers.TEST_FUNCTIONS)
    helpers.worker(db, "f")
    return db


@pytest.fixture
def crew(dsn: str) -> Iterator[Crew]:
    crew = Crew(dsn, 4)
    yield crew
    crew.close()


def assert_sound(db: Db) -> None:
    assert [(r.what, r.who) for r in db.rows(INVARIANTS)] == []


def forget_runs(db: Db) -> None:
    """Keep the invariant checks of thousands of rounds fast."""
    for table in ("pgflow.step_tasks", "pgflow.step_states", "pgflow.runs", "realtime.messages"):
        db.do(f"delete from {table}")
    db.do("delete from pgmq.q_f")


# -- definitions -----------------------------------------------------------------------------------------


@pytest.fixture
def open_transaction(dsn: str) -> Iterator[Db]:
    """A second connection inside a transaction, which waits a second for a lock at most."""
    with psycopg.connect(dsn) as conn:
        db = Db(conn)
        db.do("set local lock_timeout = '1s'")
        yield db
        conn.rollback()


def test_a_run_starts_while_a_step_is_being_added(arena: Db, open_transaction: Db) -> None:
    flow(arena, "f", "a")
    open_transaction.do("select pgflow.add_step('f', 'b', array['a'])")
    arena.do("set lock_timeout = '1s'")
    run = start(arena, "f")
    assert statuses(arena, run) == {"a": "started"}


def test_a_step_is_added_while_a_run_is_being_started(arena: Db, open_transaction: Db) -> None:
    flow(arena, "f", "a")
    start(open_transaction, "f")
    arena.do("set lock_timeout = '1s'")
    assert arena.row("select * from pgflow.add_step('f', 'b')").step_index == 1


def test_two_steps_added_at_once_get_indexes_of_their_own(arena: Db, open_transaction: Db) -> None:
    flow(arena, "f", "a")
    open_transaction.do("select pgflow.add_step('f', 'b')")
    arena.do("set lock_timeout = '50ms'")
    assert arena.refused("select pgflow.add_step('f', 'c')").sqlstate == "55P03"
    open_transaction.conn.commit()
    assert arena.row("select * from pgflow.add_step('f', 'c')").step_index == 2


# -- claims ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", ROUNDS)
def test_tasks_claimed_at_once_go_to_one_claimer_each(arena: Db, crew: Crew, rounds: int) -> None:
    flow(arena, "f", map_step("m"))
    for _ in range(rounds):
        run = start(arena, "f", list(range(20)))
        ids = arena.column("select message_id from pgflow.step_tasks where run_id = %s order by 1", run)
        answers = crew.race(*[lambda db: helpers.start_tasks(db, "f", ids)] * 4)
        got = [t.task_index for answer in answers for t in answer]
        assert sorted(got) == list(range(20))
        assert arena.value("select max(attempts_count) from pgflow.step_tasks where run_id = %s", run) == 1
        forget_runs(arena)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_batches_claimed_at_once_do_not_overlap(arena: Db, crew: Crew, rounds: int) -> None:
    flow(arena, "f", map_step("m"))
    take = "select task_index from pgflow.claim_tasks('f', %s, 7)"
    for _ in range(rounds):
        start(arena, "f", list(range(20)))
        answers = crew.race(*[lambda db: db.column(take, helpers.WORKER)] * 4)
        got = [i for answer in answers for i in answer]
        got += arena.column("select task_index from pgflow.claim_tasks('f', %s, 100)", helpers.WORKER)
        assert sorted(got) == list(range(20))
        forget_runs(arena)


# -- settlements -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_task_completed_by_everyone_at_once_counts_once(arena: Db, crew: Crew, rounds: int) -> None:
    flow(arena, "f", "a", map_step("m"), step("z", "a", "m"))
    for _ in range(rounds):
        run = start(arena, "f", [1, 2])
        claim(arena, "f", 3)
        for slug, index in (("m", 0), ("a", 0), ("m", 1)):
            crew.race(*[lambda db, s=slug, i=index: complete(db, run, s, i, i)] * 4)
        assert statuses(arena, run) == {"a": "completed", "m": "completed", "z": "started"}
        assert state(arena, run, "m").output == [0, 1]
        assert_sound(arena)
        forget_runs(arena)


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("mode", ["fail", "skip", "skip-cascade"])
def test_complete_against_fail_has_one_winner(arena: Db, crew: Crew, mode: str, rounds: int) -> None:
    options: Any = {"max_attempts": 1, "when_exhausted": mode}
    flow(arena, "f", step("a", **options), map_step("m", **options), step("b", "a", "m"), map_step("c", "m"))
    for i in range(rounds):
        run = start(arena, "f", [1, 2, 3])
        claim(arena, "f", 4)
        jobs: list[Job] = [
            lambda db: complete(db, run, "m", 1, 0),
            lambda db: fail(db, run, "m", "e", 1),
            lambda db: complete(db, run, "a", 1),
            lambda db: fail(db, run, "a"),
        ]
        crew.race(*(jobs if i % 2 else reversed(jobs)))
        assert state(arena, run, "m").status == ("failed" if mode == "fail" else "skipped") or (
            run_row(arena, run).status == "failed"
        )
        assert_sound(arena)
        forget_runs(arena)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_parents_that_end_at_once_start_their_child_once(arena: Db, crew: Crew, rounds: int) -> None:
    parents = ["d", "b", "a", "c"]
    never = {"required_input_pattern": {"a": {"never": 1}}}
    flow(
        arena,
        "f",
        *[step(p, max_attempts=1, when_exhausted="skip") for p in parents],
        step("join", *parents),
        *[map_step(f"map_{p}", p) for p in parents],
        step("skipped", "a", "b", **never),
        map_step("empty", "skipped"),
        step("last", "empty", "join"),
    )
    for i in range(rounds):
        run = start(arena, "f")
        claim(arena, "f", 4)
        jobs = [
            (lambda db, s=p: fail(db, run, s)) if (i >> n) & 1 else (lambda db, s=p: complete(db, run, s, []))
            for n, p in enumerate(parents)
        ]
        crew.race(*jobs)
        found = statuses(arena, run)
        assert found["join"] == "started", found
        assert [found[s] for s in ("skipped", "empty")] == ["skipped", "completed"]
        assert_sound(arena)
        forget_runs(arena)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_cascade_against_cascade_does_not_deadlock(arena: Db, crew: Crew, rounds: int) -> None:
    """Two skip cascades, an empty-map cascade and a completion meet in the same descendants."""
    cascade: Any = {"max_attempts": 1, "when_exhausted": "skip-cascade"}
    flow(
        arena,
        "f",
        step("a", **cascade),
        step("z", **cascade),
        "e",
        "o",
        map_step("m", "e"),
        step("j1", "z", "a"),
        step("j2", "a", "m"),
        step("j3", "j1", "m", "o"),
        step("j4", "m", "o"),
    )
    for _ in range(rounds):
        run = start(arena, "f")
        claim(arena, "f", 4)
        jobs: list[Job] = [
            lambda db: fail(db, run, "a"),
            lambda db: fail(db, run, "z"),
            lambda db: complete(db, run, "e", []),
            lambda db: complete(db, run, "o", 1),
        ]
        random.shuffle(jobs)
        crew.race(*jobs)
        found = statuses(arena, run)
        assert {s: found[s] for s in ("j1", "j2", "j3")} == dict.fromkeys(("j1", "j2", "j3"), "skipped")
        assert (found["m"], found["j4"]) == ("completed", "started")
        assert_sound(arena)
        forget_runs(arena)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_upkeep_against_work_does_not_deadlock(arena: Db, crew: Crew, rounds: int) -> None:
    """Completions, lease extensions, releases, stall and death recovery over the same tasks."""
    flow(arena, "f", map_step("m", timeout=1), step("z", "m"))
    ours = helpers.WORKER
    for _ in range(rounds):
        run = start(arena, "f", list(range(12)))
        claim(arena, "f", 12)
        arena.do(
            "update pgflow.workers set dead_after = '1 second', last_heartbeat_at = now() - interval '1 h'"
        )
        arena.do(
            "update pgflow.step_tasks set queued_at = now() - interval '2 h',"
            " started_at = now() - interval '1 h'"
        )
        ids = arena.column("select message_id from pgflow.step_tasks where run_id = %s order by 1 desc", run)
        crew.race(
            lambda db: [complete(db, run, "m", i, i) for i in range(0, 12, 2)],
            lambda db: db.column("select pgflow.extend_tasks('f', %s, %s::bigint[], 60)", ours, ids),
            lambda db: db.do(
                "select pgflow.requeue_stalled_tasks(), pgflow.fail_stalled_tasks(),"
                " pgflow.recover_dead_workers()"
            ),
            lambda db: db.do("select pgflow.release_tasks('f', %s, %s::bigint[])", ours, ids[:4]),
        )
        assert_sound(arena)
        helpers.make_visible(arena, "f")
        helpers.worker(arena, "f")
        for task in claim(arena, "f", 12):
            complete(arena, run, "m", task.task_index, task.task_index)
        for index in range(12):
            complete(arena, run, "m", index, index)
        assert state(arena, run, "m").output == list(range(12))
        forget_runs(arena)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_cancel_against_work_leaves_a_sound_run(arena: Db, crew: Crew, rounds: int) -> None:
    flow(arena, "f", map_step("m"), map_step("n", "m"))
    for _ in range(rounds):
        run = start(arena, "f", [1, 2, 3])
        claim(arena, "f", 2)
        crew.race(
            lambda db: complete(db, run, "m", 1, 0),
            lambda db: db.do("select pgflow.cancel_run(%s)", run),
            lambda db: claim(db, "f", 5),
            lambda db: fail(db, run, "m", "e", 1),
        )
        assert run_row(arena, run).status == "failed"
        stale = "message of started task is live"
        assert [r.what for r in arena.rows(INVARIANTS) if r.what != stale] == []
        forget_runs(arena)


# -- many connections on one run ---------------------------------------------------------------------------


def worker_loop(db: Db, name: int, deadline: float, seen: set[tuple[int, int]]) -> None:
    """Claim, settle and hand back at random until the time is over or nothing is left."""
    dice = random.Random(name)
    worker_id = uuid.UUID(int=name + 1)
    helpers.worker(db, "f", worker_id)
    idle = 0
    while time.monotonic() < deadline and idle < 20:
        rows = db.rows(
            "select * from pgflow.claim_tasks('f', %s, %s)", worker_id, dice.choice([1, 1, 2, 5, 20])
        )
        if not rows:
            idle += 1
            time.sleep(0.005)
            continue
        idle = 0
        by_step: dict[tuple[uuid.UUID, str], list[helpers.Row]] = {}
        for row in rows:
            by_step.setdefault((row.run_id, row.step_slug), []).append(row)
        for (run, slug), group in by_step.items():
            settle(db, dice, worker_id, run, slug, group)


def settle(
    db: Db, dice: random.Random, worker_id: uuid.UUID, run: uuid.UUID, slug: str, group: list[helpers.Row]
) -> None:
    way = dice.random()
    indexes = [r.task_index for r in group]
    attempts = [r.attempt for r in group]
    if way < 0.5:
        db.do(
            "select pgflow.complete_tasks(%s, %s, %s::int[],"
            " (select array_agg(to_jsonb(i) order by n) from unnest(%s::int[]) with ordinality u (i, n)),"
            " %s, %s::int[])",
            run,
            slug,
            indexes,
            indexes,
            worker_id,
            attempts,
        )
    elif way < 0.8:
        for index in dice.sample(indexes, len(indexes)):
            complete(db, run, slug, index, index)
            if dice.random() < 0.2:
                complete(db, run, slug, "twice", index)
    elif way < 0.9:
        db.do("select pgflow.release_tasks('f', %s, %s::bigint[])", worker_id, [r.msg_id for r in group])
    else:
        db.do(
            "select pgflow.fail_tasks(%s, %s, %s::int[], %s::text[], %s, %s::int[])",
            run,
            slug,
            indexes,
            ["e"] * len(indexes),
            worker_id,
            attempts,
        )


@pytest.mark.parametrize(
    "seconds", [pytest.param(2, id="short"), pytest.param(60, id="long", marks=pytest.mark.slow)]
)
def test_sixteen_connections_on_one_run_keep_every_count(arena: Db, dsn: str, seconds: int) -> None:
    flow(
        arena,
        "f",
        map_step("m"),
        map_step("n", "m"),
        step("fan", "n"),
        map_step("o", "n"),
        step("total", "o", "fan"),
        max_attempts=1000,
        base_delay=0,
    )
    crew = Crew(dsn, 16)
    until = time.monotonic() + seconds
    size = 300
    try:
        while True:
            run = start(arena, "f", list(range(size)))
            deadline = time.monotonic() + 60
            crew.race(*[lambda db, n=n: worker_loop(db, n, deadline, set()) for n in range(16)])
            worker_loop(arena, 99, deadline, set())
            assert_sound(arena)
            found = run_row(arena, run)
            assert (found.status, found.remaining_steps) == ("completed", 0)
            for slug in ("m", "n", "o"):
                assert state(arena, run, slug).output == list(range(size))
            if time.monotonic() > until:
                break
    finally:
        crew.close()
    assert arena.value("select count(*) from pgmq.q_f") == 0


# -- rows that change while a call waits for them ----------------------------------------------------------


class Waiting:
    """Two claimed tasks; what one session has changed of them is committed while a call of another waits."""

    def __init__(self, arena: Db, crew: Crew) -> None:
        self.db, self.first, self.second = arena, crew.connections[0], Db(crew.connections[1])
        flow(arena, "f", map_step("m"), base_delay=0)
        self.run = start(arena, "f", [10, 20])
        assert len(claim(arena, "f", 2)) == 2

    def during(self, change: str, call: Job) -> Any:
        """What ``call`` answers that begins before ``change`` is committed."""
        with ThreadPoolExecutor(1) as threads:
            with self.first.transaction():
                self.first.execute(change)
                answer = threads.submit(call, self.second)
                until = time.monotonic() + 10
                blocked = "select exists (select from pg_locks where not granted)"
                while not self.db.value(blocked) and time.monotonic() < until:
                    time.sleep(0.01)
            return answer.result(30)


TOUCH = "update pgflow.step_tasks set lease_until = now() where status = 'started'"


@pytest.fixture
def waiting(arena: Db, crew: Crew) -> Waiting:
    return Waiting(arena, crew)


def test_no_completion_is_lost_to_a_row_that_changes_meanwhile(waiting: Waiting) -> None:
    waiting.during(TOUCH, lambda db: complete(db, waiting.run, "m", 7, 0))
    waiting.during(TOUCH, lambda db: complete(db, waiting.run, "m", 8, 1))
    assert waiting.db.value("select output from pgflow.runs") == {"m": [7, 8]}


def test_no_failure_is_lost_to_a_row_that_changes_meanwhile(waiting: Waiting) -> None:
    waiting.during(TOUCH, lambda db: fail(db, waiting.run, "m", "broken", 1))
    assert [(t.status, t.error_message) for t in tasks(waiting.db, waiting.run)] == [
        ("started", None),
        ("queued", "broken"),
    ]


def test_what_is_settled_while_its_lease_is_extended_is_settled(waiting: Waiting) -> None:
    fenced = (
        "select accepted from pgflow.complete_tasks(%s, 'm', '{0,1}', array['7', '8']::jsonb[], %s, '{1,1}')"
    )
    extend = f"select pgflow.extend_tasks('f', '{helpers.WORKER}', '{{1,2}}', 60)"
    assert waiting.during(extend, lambda db: db.value(fenced, waiting.run, helpers.WORKER)) == 2


def test_leases_are_extended_and_given_back_whatever_changes_their_rows(waiting: Waiting) -> None:
    extend = "select count(*) from pgflow.extend_tasks('f', %s, '{1,2}', 60)"
    assert waiting.during(TOUCH, lambda db: db.value(extend, helpers.WORKER)) == 0
    release = "select pgflow.release_tasks('f', %s, '{1,2}')"
    assert waiting.during(TOUCH, lambda db: db.value(release, helpers.WORKER)) == 2
    assert task_statuses(waiting.db, waiting.run, "m") == ["queued", "queued"]


# -- runs that go ----------------------------------------------------------------------------------------


def prune_at_once(db: Db) -> None:
    db.do("select pgflow.prune_data_older_than('0 seconds')")


def prune_by_pieces(db: Db) -> None:
    while not db.value("select is_done from pgflow.prune_runs('0 seconds', max_rows => 20)"):
        pass


@pytest.mark.parametrize("prune", [prune_at_once, prune_by_pieces])
@pytest.mark.parametrize("rounds", ROUNDS)
def test_pruning_against_a_retry_leaves_all_of_a_run_or_nothing(
    arena: Db, crew: Crew, rounds: int, prune: Callable[[Db], None]
) -> None:
    flow(arena, "f", map_step("m", max_attempts=1), "other")

    def retry(db: Db, run: uuid.UUID) -> str | None:
        try:
            db.do("select pgflow.retry_failed_tasks(%s)", run)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    kept = 0
    for _ in range(rounds):
        run = start(arena, "f", list(range(50)))
        claim(arena, "f", 51)
        fail(arena, run, "m")
        _, refused, _ = crew.race(
            prune,
            lambda db: retry(db, run),
            lambda db: complete(db, run, "other", 1),
        )
        left = arena.value("select count(*) from pgflow.step_tasks where run_id = %s", run)
        if refused is None:
            assert (run_row(arena, run).status, left) == ("started", 51)
            kept += 1
        else:
            assert refused == "PF003"
            assert (arena.value("select count(*) from pgflow.runs"), left) == (0, 0)
        forget_runs(arena)
    assert rounds < 100 or 0 < kept < rounds


def test_deleting_a_flow_against_work_does_not_deadlock(arena: Db, crew: Crew) -> None:
    for _ in range(10):
        flow(arena, "f", map_step("m"), step("z", "m"))
        run = start(arena, "f", list(range(40)))
        claim(arena, "f", 40)
        crew.race(
            lambda db: db.do("select pgflow.delete_flow_and_data('f')"),
            lambda db: [complete(db, run, "m", i, i) for i in range(20)],
            lambda db: [complete(db, run, "m", i, i) for i in range(39, 19, -1)],
        )
        assert arena.value("select count(*) from pgflow.step_tasks") == 0
