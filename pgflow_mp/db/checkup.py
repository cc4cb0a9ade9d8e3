"""What is wrong with a database that flows run in, or will go wrong: one look, which changes nothing.

What a role must not see is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Final, Literal, NamedTuple

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads.lists import list_flows

SymptomLevel = Literal["ok", "warn", "bad"]

_ROUND_TRIPS: Final = 9
_SLOW: Final = 0.005
_SKEW: Final = 2.0
_LONG: Final = 600
_FEW_CONNECTIONS: Final = 10
_MANY_DEAD: Final = 100_000
_MOST_FLOWS: Final = 10_000


class Symptom(NamedTuple):
    """What was looked at and found; ``advice`` says what to do, where there is something."""

    level: SymptomLevel
    what: str
    advice: str = ""


def database_symptoms(conn: Connection) -> Iterator[Symptom]:
    """All of them, good ones, too; ``conn`` is in autocommit mode."""
    looks = (_server, _round_trips, _clocks, _announcements, _old_transactions, _dead_rows)
    for look in (*looks, _silent_workers, _unserved_flows):
        yield from _unless_forbidden(conn, look)


def _unless_forbidden(conn: Connection, look: Callable[[Connection], Iterator[Symptom]]) -> Iterator[Symptom]:
    try:
        yield from look(conn)
    except psycopg.errors.InsufficientPrivilege:
        return


def _rows(conn: Connection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode(), parameters).fetchall()


def _server(conn: Connection) -> Iterator[Symptom]:
    [(version, limit, used, fsync, commit, full_pages, vacuums)] = _rows(
        conn,
        "select current_setting('server_version'), current_setting('max_connections')::int,"
        " (select coalesce(sum(numbackends), 0) from pg_stat_database)::int, current_setting('fsync'),"
        " current_setting('synchronous_commit'), current_setting('full_page_writes'),"
        " current_setting('autovacuum')",
    )
    few = limit - used < _FEW_CONNECTIONS
    yield Symptom(
        "warn" if few else "ok",
        f"PostgreSQL {version}, {used} of its {limit} connections in use",
        "End idle clients, or raise max_connections: a worker needs four." if few else "",
    )
    if "off" in (fsync, full_pages):
        name = "fsync" if fsync == "off" else "full_page_writes"
        yield Symptom(
            "bad", f"{name} is off", "A crash of the machine may ruin the whole database: turn it on."
        )
    if commit in ("off", "local"):
        yield Symptom(
            "warn",
            f"synchronous_commit is {commit}",
            "Results that were reported last may be gone after a crash; turn it on, or know it.",
        )
    if vacuums == "off":
        yield Symptom("bad", "autovacuum is off", "Queues grow slower and slower: turn it on.")


def _round_trips(conn: Connection) -> Iterator[Symptom]:
    times = []
    for _ in range(_ROUND_TRIPS):
        begun = time.perf_counter()
        conn.execute("select 1")
        times.append(time.perf_counter() - begun)
    seconds = median(times)
    yield Symptom(
        "warn" if seconds > _SLOW else "ok",
        f"a round trip to the server takes {seconds * 1000:.1f} ms",
        "Claims and results wait for it: put workers near the server." if seconds > _SLOW else "",
    )


def _clocks(conn: Connection) -> Iterator[Symptom]:
    before = time.time()
    [(there,)] = _rows(conn, "select extract(epoch from clock_timestamp())::float8")
    apart = there - (before + time.time()) / 2
    if abs(apart) > _SKEW:
        ahead = "ahead of" if apart > 0 else "behind"
        yield Symptom(
            "warn",
            f"the server's clock is {abs(apart):.0f} s {ahead} ours",
            "Times in logs do not fit together; set the clocks by NTP.",
        )


def _announcements(conn: Connection) -> Iterator[Symptom]:
    """Whether a session hears what it listens for: behind a pooler of transactions it is not its own."""
    conn.execute("listen pgflow_doctor")
    conn.execute("notify pgflow_doctor")
    heard = any(True for _ in conn.notifies(timeout=1.0, stop_after=1))
    conn.execute("unlisten pgflow_doctor")
    if not heard:
        yield Symptom(
            "warn",
            "announcements (LISTEN) are not heard, as behind a pooler of transactions",
            "Workers look for new work in intervals instead; name the server itself where that matters.",
        )


def _old_transactions(conn: Connection) -> Iterator[Symptom]:
    found = _rows(
        conn,
        "select pid, coalesce(usename, ''), extract(epoch from now() - xact_start)::int, state"
        " from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and xact_start < now() - make_interval(secs => %s) and backend_type = 'client backend'"
        " order by xact_start limit 3",
        _LONG,
    )
    for pid, user, seconds, state in found:
        yield Symptom(
            "warn",
            f"a transaction of {user} (pid {pid}, {state}) is open for {seconds // 60} minutes",
            f"Until it ends no space is used again: select pg_terminate_backend({pid});",
        )


def _dead_rows(conn: Connection) -> Iterator[Symptom]:
    found = _rows(
        conn,
        "select schemaname || '.' || relname, n_dead_tup, n_live_tup from pg_stat_all_tables"
        " where schemaname in ('pgflow', 'pgmq') and n_dead_tup > greatest(%s, 2 * n_live_tup)"
        " order by n_dead_tup desc limit 3",
        _MANY_DEAD,
    )
    for name, dead, live in found:
        yield Symptom(
            "warn",
            f"{name} has {dead:,} dead rows beside {live:,}",
            f"Look for what keeps vacuum from it (old transactions, slots), then: vacuum {name};",
        )


def _silent_workers(conn: Connection) -> Iterator[Symptom]:
    [(alive, silent)] = _rows(
        conn,
        "select count(*) filter (where last_heartbeat_at >= clock_timestamp() - dead_after),"
        " count(*) filter (where last_heartbeat_at < clock_timestamp() - 3 * dead_after)"
        " from pgflow.workers where dead_after is not null and stopped_at is null",
    )
    yield Symptom("ok", f"{alive} workers give signs of life")
    if silent and not alive:
        yield Symptom(
            "warn",
            f"{silent} workers fell silent without a word, and none is there to take over from them",
            "Start a worker: it takes over what they held.",
        )


def _unserved_flows(conn: Connection) -> Iterator[Symptom]:
    unserved = [flow for flow in list_flows(conn, _MOST_FLOWS) if flow.active and not flow.workers]
    for flow in sorted(unserved, key=lambda flow: -flow.active)[:5]:
        waiting = "1 run waits" if flow.active == 1 else f"{flow.active:,} runs wait"
        yield Symptom(
            "warn",
            f"{waiting} for a worker that serves {flow.flow_slug}",
            "Start a worker with the flow's module.",
        )
