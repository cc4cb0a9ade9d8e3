"""What the SQL tests have in common: a thin connection wrapper and short verbs for flows and tasks.

The SQL functions of schema ``pgflow_tests`` work in the manner of a psql test suite: one statement
reads the queue inside a CTE and claims, completes or fails in the same statement (contract section 16).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

WORKER = uuid.UUID("11111111-1111-1111-1111-111111111111")
"""The worker that claims in tests that do not care which."""

LOCAL_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"
"""Value of ``app.settings.jwt_secret`` that makes ``pgflow.is_local()`` true (contract section 3)."""

TEST_FUNCTIONS = """
create schema pgflow_tests;

create function pgflow_tests.ensure_worker(
    queue_name text, worker_uuid uuid default '11111111-1111-1111-1111-111111111111',
    function_name text default 'test_worker'
) returns uuid language sql as $$
    insert into pgflow.workers (worker_id, queue_name, function_name, last_heartbeat_at)
    values (worker_uuid, queue_name, function_name, now())
    on conflict (worker_id) do update set last_heartbeat_at = excluded.last_heartbeat_at,
        queue_name = excluded.queue_name, function_name = excluded.function_name
    returning worker_id;
$$;

create function pgflow_tests.read_and_start(
    flow_slug text, vt int default 1, qty int default 1,
    worker_uuid uuid default '11111111-1111-1111-1111-111111111111',
    function_name text default 'test_worker'
) returns setof pgflow.step_task_record language sql as $$
    with w as (
        select pgflow_tests.ensure_worker(flow_slug, worker_uuid, function_name) as worker_id
    ), msgs as (
        select * from pgmq.read_with_poll(flow_slug, vt, qty, 1, 50) limit qty
    ), ids as (
        select array_agg(msg_id) as msg_ids from msgs
    )
    select t.* from pgflow.start_tasks(
        flow_slug, (select msg_ids from ids), (select worker_id from w)) as t;
$$;

create function pgflow_tests.poll_and_complete(
    flow_slug text, vt int default 1, qty int default 1
) returns setof pgflow.step_tasks language sql as $$
    with task as (
        select * from pgflow_tests.read_and_start(flow_slug, vt, qty) limit 1
    )
    select t.* from pgflow.complete_task(
        (select run_id from task), (select step_slug from task), 0,
        (select jsonb_build_object('input', task.input) from task)) as t;
$$;

create function pgflow_tests.poll_and_fail(
    flow_slug text, vt int default 1, qty int default 1
) returns setof pgflow.step_tasks language sql as $$
    with task as (
        select * from pgflow_tests.read_and_start(flow_slug, vt, qty) limit 1
    )
    select t.* from pgflow.fail_task(
        (select run_id from task), (select step_slug from task), 0,
        (select concat(task.step_slug, ' FAILED') from task)) as t;
$$;

create function pgflow_tests.reset_message_visibility(queue_name text) returns int
language plpgsql as $$
declare
    n int;
begin
    execute format('update pgmq.%I set vt = clock_timestamp() - interval ''1 second''',
                   pgmq.format_table_name(queue_name, 'q'));
    get diagnostics n = row_count;
    return n;
end
$$;

create function pgflow_tests.message_timing(step_slug text, queue_name text)
returns table (msg_id bigint, read_ct int, enqueued_at timestamptz, vt timestamptz, vt_seconds int)
language plpgsql as $$
begin
    return query execute format($q$
        select q.msg_id, q.read_ct, q.enqueued_at, q.vt,
               round(extract(epoch from (q.vt - q.enqueued_at)))::int
          from pgmq.%I q
          join pgflow.step_tasks t on t.message_id = q.msg_id
         where t.step_slug = $1 and t.flow_slug = %L
    $q$, pgmq.format_table_name(queue_name, 'q'), queue_name) using step_slug;
end
$$;

create function pgflow_tests.reset_db() returns void language sql as $$
    delete from pgflow.step_tasks;
    delete from pgflow.step_states;
    delete from pgflow.runs;
    delete from pgflow.deps;
    delete from pgflow.steps;
    delete from pgflow.flows;
    delete from pgflow.worker_functions;
    select pgmq.drop_queue(queue_name) from pgmq.list_queues();
$$;
"""

REALTIME = """
create schema realtime;
create table realtime.messages (
    id bigserial, payload jsonb, event text, topic text, private boolean,
    inserted_at timestamptz default clock_timestamp()
);
create function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$
begin
    insert into realtime.messages (payload, event, topic, private) values ($1, $2, $3, $4);
end
$$;
"""

CRON = """
create schema cron;
create table cron.job (
    jobid bigserial primary key, schedule text not null, command text not null,
    active boolean not null default true, jobname text unique
);
create table cron.job_run_details (
    jobid bigint, runid bigserial primary key, command text, status text, return_message text,
    start_time timestamptz, end_time timestamptz
);
create function cron.schedule(text, text, text) returns bigint language sql as $$
    insert into cron.job (jobname, schedule, command) values ($1, $2, $3)
    on conflict (jobname) do update set schedule = excluded.schedule, command = excluded.command
    returning jobid;
$$;
create function cron.unschedule(text) returns boolean language plpgsql as $$
begin
    delete from cron.job where jobname = $1;
    if not found then
        raise exception 'could not find valid entry for job ''%''', $1 using errcode = 'XX000';
    end if;
    return true;
end
$$;
create function cron.unschedule(bigint) returns boolean language plpgsql as $$
begin
    delete from cron.job where jobid = $1;
    if not found then
        raise exception 'could not find valid entry for job %', $1 using errcode = 'XX000';
    end if;
    return true;
end
$$;
"""

NET_AND_VAULT = """
create schema net;
create table net.http_request_queue (
    id bigserial primary key, method text not null default 'POST', url text not null, headers jsonb,
    body jsonb, timeout_milliseconds int not null
);
create table net._http_response (
    id bigint, status_code int, content_type text, headers jsonb, content text, timed_out bool,
    error_msg text, created timestamptz not null default now()
);
create function net.http_post(
    url text, body jsonb default '{}', params jsonb default '{}',
    headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds int default 5000
) returns bigint language sql as $$
    insert into net.http_request_queue (url, headers, body, timeout_milliseconds)
    values ($1, $4, $2, $5) returning id;
$$;
create schema vault;
create table vault.secrets (
    id uuid primary key default gen_random_uuid(), name text unique, description text not null default '',
    secret text not null, created_at timestamptz not null default now()
);
create view vault.decrypted_secrets as
    select id, name, description, secret, secret as decrypted_secret, created_at from vault.secrets;
create function vault.create_secret(
    new_secret text, new_name text default null, new_description text default ''
) returns uuid language sql as $$
    insert into vault.secrets (secret, name, description) values ($1, $2, $3) returning id;
$$;
"""


def adapt(value: Any) -> Any:
    """Python dictionaries travel as jsonb; everything else as psycopg chooses."""
    return Jsonb(value) if isinstance(value, dict) else value


class Row(SimpleNamespace):
    """One result row; columns are attributes."""


class Db:
    """A psycopg connection with the few verbs the tests need."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def rows(self, query: str, *params: Any) -> list[Row]:
        with self.conn.cursor() as cur:
            cur.execute(query.encode(), [adapt(p) for p in params] or None)
            names = [d.name for d in cur.description or ()]
            return [Row(**dict(zip(names, r, strict=True))) for r in cur.fetchall()] if names else []

    def row(self, query: str, *params: Any) -> Row:
        """The only row of the result."""
        rows = self.rows(query, *params)
        assert len(rows) == 1, f"expected one row, got {len(rows)}: {query}"
        return rows[0]

    def column(self, query: str, *params: Any) -> list[Any]:
        with self.conn.cursor() as cur:
            cur.execute(query.encode(), [adapt(p) for p in params] or None)
            return [r[0] for r in cur.fetchall()]

    def value(self, query: str, *params: Any) -> Any:
        """First column of the only row."""
        values = self.column(query, *params)
        assert len(values) == 1, f"expected one row, got {len(values)}: {query}"
        return values[0]

    def do(self, query: str, *params: Any) -> int:
        """Run for the effect; the number of rows touched."""
        with self.conn.cursor() as cur:
            cur.execute(query.encode(), [adapt(p) for p in params] or None)
            return cur.rowcount

    def refused(self, query: str, *params: Any) -> Refusal:
        """The error with which the server refuses; state before it is kept (savepoint)."""
        try:
            with self.conn.transaction():
                self.do(query, *params)
        except psycopg.Error as error:
            return Refusal(error)
        raise AssertionError(f"not refused: {query} {params}")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        with self.conn.transaction():
            yield


@contextmanager
def without_waiting(db: Db) -> Iterator[None]:
    """Fails if a statement waits for a lock that somebody has, as the server tells after a millisecond.

    For superusers, outside of transactions.
    """
    said: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "LOG":
            said.append(notice.message_primary or "")

    names = ("deadlock_timeout", "log_lock_waits", "client_min_messages")
    for name, value in zip(names, ("1ms", "on", "log"), strict=True):
        db.do(f"set {name} = '{value}'")
    db.conn.add_notice_handler(listen)
    try:
        yield
    finally:
        db.conn.remove_notice_handler(listen)
        for name in names:
            db.do(f"reset {name}")
    assert said == []


class Refusal:
    """SQLSTATE, text and constraint of a refused statement."""

    def __init__(self, error: psycopg.Error) -> None:
        self.sqlstate = error.sqlstate
        self.message = error.diag.message_primary or ""
        self.constraint = error.diag.constraint_name
        self.error = error

    def __repr__(self) -> str:
        return f"{self.sqlstate} {self.message}"


# -- definitions ---------------------------------------------------------------------------------------


def step(slug: str, *deps: str, **options: Any) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """A step for :func:`flow`: ``step("b", "a", step_type="map", when_unmet="fail")``."""
    return slug, deps, options


def map_step(slug: str, *deps: str, **options: Any) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    return slug, deps, {"step_type": "map", **options}


def named_call(function: str, arguments: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """``select * from function(name => %s, …)`` with its parameters."""
    names = ", ".join(f"{name} => %s" for name in arguments)
    return f"select * from {function}({names})", list(arguments.values())


def flow(db: Db, slug: str, *steps: str | tuple[str, tuple[str, ...], dict[str, Any]], **options: Any) -> str:
    """Create a flow and its steps in order; a bare string is a single step without parents."""
    query, params = named_call("pgflow.create_flow", {"flow_slug": slug, **options})
    db.do(query, *params)
    for item in steps:
        name, deps, opts = step(item) if isinstance(item, str) else item
        query, params = named_call(
            "pgflow.add_step", {"flow_slug": slug, "step_slug": name, "deps_slugs": list(deps), **opts}
        )
        db.do(query, *params)
    return slug


def setup(db: Db, shape: str) -> str:
    """Well-known small flows; the shape's name is the flow's slug."""
    shapes: dict[str, list[Any]] = {
        "one": ["only"],
        "sequential": ["first", step("second", "first"), step("last", "second")],
        "two_roots": ["root_a", "root_b", step("last", "root_a", "root_b")],
        "two_roots_left_right": [
            "connected_root",
            "disconnected_root",
            step("left", "connected_root"),
            step("right", "connected_root"),
        ],
        "three_parallel": ["a", "b", "c"],
        "diamond": ["root", step("left", "root"), step("right", "root"), step("join", "left", "right")],
        "root_map": [map_step("items"), step("total", "items")],
        "single_then_map": ["source", map_step("each", "source"), step("total", "each")],
        "map_chain": [map_step("m1"), map_step("m2", "m1"), map_step("m3", "m2"), step("total", "m3")],
    }
    return flow(db, shape, *shapes[shape])


# -- runs and tasks -------------------------------------------------------------------------------------


def start(db: Db, flow_slug: str, input: Any = None) -> uuid.UUID:
    """Start a run (input ``{}`` unless given) and return its id."""
    run: uuid.UUID = db.value(
        "select run_id from pgflow.start_flow(%s, %s)", flow_slug, Jsonb({} if input is None else input)
    )
    return run


def worker(db: Db, queue: str, worker_id: uuid.UUID = WORKER) -> uuid.UUID:
    db.do(
        "insert into pgflow.workers (worker_id, queue_name, function_name) values (%s, %s, 'test_worker')"
        " on conflict (worker_id) do update set last_heartbeat_at = clock_timestamp()",
        worker_id,
        queue,
    )
    return worker_id


def read(db: Db, flow_slug: str, qty: int = 1, vt: int = 1) -> list[int]:
    """Message ids now visible, lowest first, made invisible for ``vt`` seconds."""
    return sorted(db.column("select msg_id from pgmq.read(%s, %s, %s)", flow_slug, vt, qty))


def start_tasks(
    db: Db, flow_slug: str, ids: Sequence[int] | None, worker_id: uuid.UUID = WORKER
) -> list[Row]:
    return db.rows(
        "select *, input::text as input_text, flow_input::text as flow_input_text"
        " from pgflow.start_tasks(%s, %s::bigint[], %s) order by msg_id",
        flow_slug,
        None if ids is None else list(ids),
        worker_id,
    )


def claim(db: Db, flow_slug: str, qty: int = 1, worker_id: uuid.UUID = WORKER, vt: int = 1) -> list[Row]:
    """The two-statement protocol: read the queue, then start the tasks."""
    worker(db, flow_slug, worker_id)
    return start_tasks(db, flow_slug, read(db, flow_slug, qty, vt), worker_id)


def read_and_start(db: Db, flow_slug: str, qty: int = 1) -> list[Row]:
    """Read and claim in one statement, as the psql suite does."""
    return db.rows("select * from pgflow_tests.read_and_start(%s, 1, %s) order by msg_id", flow_slug, qty)


def poll_and_complete(db: Db, flow_slug: str, qty: int = 1) -> list[Row]:
    return db.rows("select * from pgflow_tests.poll_and_complete(%s, 1, %s)", flow_slug, qty)


def poll_and_fail(db: Db, flow_slug: str, qty: int = 1) -> list[Row]:
    return db.rows("select * from pgflow_tests.poll_and_fail(%s, 1, %s)", flow_slug, qty)


def complete(db: Db, run: uuid.UUID, slug: str, output: Any = None, index: int = 0) -> list[Row]:
    """``complete_task``; Python ``None`` becomes JSON null (see :func:`complete_null` for SQL NULL)."""
    return db.rows("select * from pgflow.complete_task(%s, %s, %s, %s)", run, slug, index, Jsonb(output))


def complete_null(db: Db, run: uuid.UUID, slug: str, index: int = 0) -> list[Row]:
    return db.rows("select * from pgflow.complete_task(%s, %s, %s, null)", run, slug, index)


def fail(db: Db, run: uuid.UUID, slug: str, error: str = "boom", index: int = 0) -> list[Row]:
    return db.rows("select * from pgflow.fail_task(%s, %s, %s, %s)", run, slug, index, error)


def work(db: Db, flow_slug: str, outputs: Mapping[str, Any] | None = None, qty: int = 1000) -> list[Row]:
    """Claim what is visible and complete it (output: by step slug, else the task's index)."""
    tasks = claim(db, flow_slug, qty)
    for task in tasks:
        output = (outputs or {}).get(task.step_slug, task.task_index)
        complete(db, task.run_id, task.step_slug, output, task.task_index)
    return tasks


def drain(db: Db, flow_slug: str, outputs: Mapping[str, Any] | None = None) -> int:
    """Work until nothing is visible; the number of tasks done."""
    total = 0
    while done := work(db, flow_slug, outputs):
        total += len(done)
    return total


# -- what is stored ------------------------------------------------------------------------------------


def run_row(db: Db, run: uuid.UUID) -> Row:
    return db.row(
        "select *, output is null as output_is_null, output::text as output_text"
        " from pgflow.runs where run_id = %s",
        run,
    )


def state(db: Db, run: uuid.UUID, slug: str) -> Row:
    return db.row(
        "select *, output is null as output_is_null, output::text as output_text"
        " from pgflow.step_states where run_id = %s and step_slug = %s",
        run,
        slug,
    )


def statuses(db: Db, run: uuid.UUID) -> dict[str, str]:
    rows = db.rows("select step_slug, status from pgflow.step_states where run_id = %s", run)
    return {r.step_slug: r.status for r in rows}


def reasons(db: Db, run: uuid.UUID) -> dict[str, str | None]:
    rows = db.rows("select step_slug, skip_reason from pgflow.step_states where run_id = %s", run)
    return {r.step_slug: r.skip_reason for r in rows}


def task(db: Db, run: uuid.UUID, slug: str, index: int = 0) -> Row:
    return db.row(
        "select *, output is null as output_is_null, output::text as output_text"
        " from pgflow.step_tasks where run_id = %s and step_slug = %s and task_index = %s",
        run,
        slug,
        index,
    )


def tasks(db: Db, run: uuid.UUID, slug: str | None = None) -> list[Row]:
    return db.rows(
        "select * from pgflow.step_tasks where run_id = %s and (%s::text is null or step_slug = %s)"
        " order by step_slug, task_index",
        run,
        slug,
        slug,
    )


def task_statuses(db: Db, run: uuid.UUID, slug: str) -> list[str]:
    return [t.status for t in tasks(db, run, slug)]


def queue(db: Db, flow_slug: str) -> list[tuple[str, int]]:
    """(step, index) of every live message, by message id."""
    rows = db.rows(f"select message from pgmq.{table('q', flow_slug)} order by msg_id")
    return [(r.message["step_slug"], r.message["task_index"]) for r in rows]


def archive(db: Db, flow_slug: str) -> list[tuple[str, int]]:
    """(step, index) of every archived message, sorted."""
    rows = db.rows(f"select message from pgmq.{table('a', flow_slug)}")
    return sorted((r.message["step_slug"], r.message["task_index"]) for r in rows)


def table(prefix: str, flow_slug: str) -> str:
    return sql.Identifier(f"{prefix}_{flow_slug}".lower()).as_string(None)


def make_visible(db: Db, flow_slug: str) -> int:
    """Undo backoff and leases: every live message can be read now."""
    count: int = db.value("select pgflow_tests.reset_message_visibility(%s)", flow_slug)
    return count


def message_timing(db: Db, flow_slug: str, slug: str) -> list[Row]:
    return db.rows("select * from pgflow_tests.message_timing(%s, %s) order by msg_id", slug, flow_slug)


def lease(db: Db, flow_slug: str, msg_id: int) -> float:
    """Seconds from now until the message becomes visible."""
    seconds: float = db.value(
        f"select extract(epoch from vt - clock_timestamp())::float8 from pgmq.{table('q', flow_slug)}"
        " where msg_id = %s",
        msg_id,
    )
    return seconds


def reset(db: Db) -> None:
    db.do("select pgflow_tests.reset_db()")


def snapshot(db: Db, run: uuid.UUID) -> dict[str, list[Any]]:
    """Everything stored of a run and its queue, to show that a call changed nothing."""
    slug = run_row(db, run).flow_slug
    return {
        "run": db.column("select to_jsonb(r) from pgflow.runs r where run_id = %s", run),
        "steps": db.column(
            "select to_jsonb(s) from pgflow.step_states s where run_id = %s order by step_slug", run
        ),
        "tasks": db.column(
            "select to_jsonb(t) from pgflow.step_tasks t where run_id = %s order by step_slug, task_index",
            run,
        ),
        "queue": db.column(f"select to_jsonb(q) from pgmq.{table('q', slug)} q order by msg_id"),
        "archive": db.column(f"select to_jsonb(a) from pgmq.{table('a', slug)} a order by msg_id"),
        "events": db.column("select event from realtime.messages order by id"),
    }


# -- events --------------------------------------------------------------------------------------------


def events(db: Db, run: uuid.UUID, event_type: str | None = None, slug: str | None = None) -> list[Row]:
    """Events of a run in the order of emission."""
    return db.rows(
        "select * from realtime.messages where payload->>'run_id' = %s"
        " and (%s::text is null or payload->>'event_type' = %s)"
        " and (%s::text is null or payload->>'step_slug' = %s) order by id",
        str(run),
        event_type,
        event_type,
        slug,
        slug,
    )


def event_names(db: Db, run: uuid.UUID, prefix: str = "") -> list[str]:
    return [e.event for e in events(db, run) if e.event.startswith(prefix)]


def event(db: Db, run: uuid.UUID, event_type: str, slug: str | None = None) -> dict[str, Any]:
    """Payload of the one event of this type; it must be there exactly once."""
    found = events(db, run, event_type, slug)
    assert len(found) == 1, f"{len(found)} events {event_type} {slug or ''}"
    payload: dict[str, Any] = found[0].payload
    return payload


def in_sequence(names: Sequence[str], expected: Iterable[str]) -> bool:
    """Whether ``expected`` is a subsequence of ``names``."""
    it = iter(names)
    return all(any(n == e for n in it) for e in expected)
