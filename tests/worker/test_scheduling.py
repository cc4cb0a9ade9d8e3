"""Workers start what is due: each time once, whoever is killed at it, and whatever becomes of the server."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pg_cluster import clusters
from worker_harness import compiled, eventually, kill, process

from pgflow_mp import Client, Flow, FlowNotFound, InputError
from pgflow_mp.db import schedules, schema, wire
from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import ScheduleNotFound
from pgflow_mp.worker.heartbeat import Upkeep
from pgflow_mp.worker.inbox import Said

NOW = datetime.now(UTC).replace(second=0, microsecond=0)


@pytest.fixture(autouse=True)
def _now() -> None:
    global NOW
    NOW = datetime.now(UTC).replace(second=0, microsecond=0)


@contextlib.contextmanager
def upkeep(dsn: str) -> Iterator[list[str]]:
    """A worker's upkeep that runs; the list is what it says of schedules."""
    said: list[str] = []

    def hear(what: Any) -> None:
        if isinstance(what, Said) and "schedule" in what.text:
            said.append(what.text)

    thread = Upkeep(dsn, hear, run_id=None)
    thread.start()
    try:
        yield said
    finally:
        thread.stop()
        thread.join(20)
        thread.close()


@contextlib.contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        wire.adapt(conn)
        yield conn


def scheduled(dsn: str, *minutes: int, missed: str = "all") -> None:
    """A schedule of naps that has nothing but times of so many minutes ago."""
    compiled(dsn, "naps")
    with connected(dsn) as conn:
        far = [(NOW + timedelta(days=300), "far")]
        schedules.set_schedule(conn, "naps", "n", "0 0 1 1 *", "UTC", b"[0.0]", far, missed=missed)
        for ago in minutes:
            conn.execute(
                "insert into pgflow.schedule_times (schedule_id, due_at, local_time) "
                "select schedule_id, %s, 'x' from pgflow.schedules",
                (NOW - timedelta(minutes=ago),),
            )


def count(dsn: str) -> tuple[int, int]:
    """Runs, and times that were started."""
    with connected(dsn) as conn:
        row = conn.execute(
            "select (select count(*) from pgflow.runs), "
            "(select count(*) from pgflow.schedule_times where state = 'started')"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_workers_start_each_time_once_and_say_so(dsn: str) -> None:
    scheduled(dsn, *range(1, 31))
    with upkeep(dsn) as first, upkeep(dsn) as second:
        eventually(lambda: count(dsn) == (30, 30))
        eventually(lambda: len(first) + len(second) == 30)
    said = [*first, *second]
    assert len(set(said)) == 30
    assert all(text.startswith("started run ") and "of schedule naps/n, due at 20" in text for text in said)


def test_a_time_is_started_when_it_comes(dsn: str) -> None:
    """The clock is the server's: the time is moved here, a whole minute would be waited for otherwise."""
    scheduled(dsn)
    with connected(dsn) as conn, upkeep(dsn):
        conn.execute("alter table pgflow.schedule_times drop constraint due_at_is_a_minute")
        conn.execute("update pgflow.schedule_times set due_at = clock_timestamp() + interval '1 second'")
        began = time.monotonic()
        eventually(lambda: count(dsn) == (1, 1))
        assert 0.5 < time.monotonic() - began < 8
        row = conn.execute("select handled_at - due_at from pgflow.schedule_times").fetchone()
    assert row is not None
    assert row[0] > timedelta(0)


def test_what_has_no_times_left_gets_some_and_what_can_have_none_a_reason(dsn: str) -> None:
    compiled(dsn, "naps")
    with connected(dsn) as conn:
        lines = (("a", "0 3 * * *", "Europe/Berlin"), ("b", "* * *", "UTC"), ("c", "@daily", "Mars"))
        for name, line, zone in lines:
            query = "select pgflow.set_schedule('naps', %s, %s, %s, '[]')"
            conn.execute(query, (name, line, zone))
        with upkeep(dsn):
            eventually(lambda: all(each.next_at or each.problem for each in schedules.schedules(conn)))
        found = {each.name: each for each in schedules.schedules(conn)}
        assert len(schedules.times(conn, "naps", "a", planned=True, most=999)) in (59, 60, 61)
    assert found["a"].next_local is not None
    assert "T03:00+0" in found["a"].next_local
    assert found["b"].problem == "'* * *' is not a cron line"
    assert found["c"].problem == "There is no time zone 'Mars'"


def test_a_worker_that_may_not_have_them_started_goes_on(dsn: str) -> None:
    scheduled(dsn, 1)
    with connected(dsn) as conn:
        conn.execute("drop function pgflow.fire_schedules")
    with upkeep(dsn) as said:
        eventually(lambda: said)
    assert said == ["scheduled runs could not be started: function pgflow.fire_schedules() does not exist"]


def test_a_worker_killed_at_it_has_started_each_time_once_or_not_yet(dsn: str) -> None:
    scheduled(dsn, 1, 2, 3)
    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table pgflow.runs in share row exclusive mode")
        worker = process(dsn, "naps")
        with connected(dsn) as conn:
            waits = (
                "select count(*) from pg_stat_activity "
                "where query ~ 'fire_schedules' and wait_event_type = 'Lock'"
            )
            eventually(lambda: conn.execute(waits).fetchone() == (1,), 30)
            kill(worker)
            assert count(dsn) == (0, 0)
            with upkeep(dsn) as said:
                time.sleep(1.0)  # of a schedule that somebody has nothing is started
                assert said == []
                blocker.rollback()
                eventually(lambda: count(dsn) == (3, 3))
    assert count(dsn) == (3, 3)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_each_time_once() -> None:
    with clusters() as (server, _standby):
        server.execute("alter system set synchronous_standby_names = ''")
        server.execute("select pg_reload_conf()")
        dsn = server.dsn("pgflow")
        with psycopg.connect(dsn, autocommit=True) as conn:
            schema.install(conn)
        scheduled(dsn, *range(1, 61))
        with upkeep(dsn):
            for _ in range(4):
                with contextlib.suppress(psycopg.Error):
                    eventually(lambda: count(dsn)[0] > 0, 5)
                server.stop(signal.SIGQUIT)
                time.sleep(0.2)
                server.start()
            eventually(lambda: count(dsn) == (60, 60), 30)


def test_a_client_schedules_and_steers(dsn: str) -> None:
    compiled(dsn, "naps")
    flow = Flow("fresh").step("only", len)
    with Client(dsn) as client:
        made = client.schedule(
            "naps", "0 3 * * *", [0.0], time_zone="Europe/Berlin", missed="all", priority=3
        )
        assert (made.name, made.is_new) == ("default", True)
        assert "T03:00+0" in made.next[0]
        assert client.schedule(flow, "@hourly", {"a": 1}, name="hourly", due_as="at").flow == "fresh"
        assert [(each.flow_slug, each.name) for each in client.schedules()] == [
            ("fresh", "hourly"),
            ("naps", "default"),
        ]
        assert client.backfill("naps", "2026-01-01..2026-01-03") == (3, 0)
        assert client.backfill("naps", "2026-01-03..2026-01-04") == (1, 1)
        assert client.pause_schedule("fresh/hourly") is True
        assert client.resume_schedule("fresh") is True
        client.delete_schedule("fresh")
        with pytest.raises(ScheduleNotFound, match='There is no schedule "fresh"'):
            client.pause_schedule("fresh")
        with pytest.raises(FlowNotFound):
            client.schedule("nowhere", "@daily")
        for wrong in ({"cron": "x"}, {"time_zone": "x"}, {"missed": "x"}, {"name": "a b"}, {"due_as": "x"}):
            arguments: dict[str, Any] = {"cron": "@daily", "input": [], **wrong}
            with pytest.raises(InputError):
                client.schedule("naps", **arguments)
