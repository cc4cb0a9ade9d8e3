"""Failover to a standby, and a network that swallows everything: the worker goes on as if nothing was."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pg_cluster import Cluster, clusters
from psycopg.conninfo import make_conninfo
from tcp_proxy import TcpProxy
from worker_harness import ThreadedWorker, eventually, output, run_row, settings, start, threaded

from pgflow_mp.client import Client
from pgflow_mp.db import connection, patience, schema
from pgflow_mp.errors import DatabaseUnavailable
from pgflow_mp.observe.observer import FailedAttempt, Level, ProgressSnapshot
from pgflow_mp.testing import audit_run
from pgflow_mp.worker.heartbeat import Heartbeat, Upkeep
from pgflow_mp.worker.worker import Worker

# No worker is taken for dead during an outage here, so that nothing runs twice.
QUICK = {"heartbeat_interval": 0.2, "dead_after": 60.0}
ITEMS = 200


class Listener:
    """Keeps what a worker says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_state(self, state: str) -> None: ...

    def on_progress(self, snapshot: ProgressSnapshot) -> None: ...

    def on_message(self, level: Level, text: str) -> None:
        self.said.append(text)

    def on_failure(self, failure: FailedAttempt) -> None: ...

    @property
    def waited(self) -> list[str]:
        return [text for text in self.said if "waiting for the database" in text]


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary with the schema, and its synchronous standby."""
    with clusters() as (primary, standby):
        with connection.connect(primary.dsn("pgflow")) as conn:
            schema.install(conn)
        end = primary.execute("select pg_current_wal_lsn()::text")
        eventually(lambda: standby.execute(f"select pg_last_wal_replay_lsn() >= '{end}'"), 20)
        yield primary, standby


def check(dsn: str, run_id: str, log: Path) -> None:
    """Every item was executed once and recorded once."""
    assert output(dsn, run_id) == {"count": ITEMS}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
    counts = Counter(line for line in log.read_text().splitlines() if line.startswith("end"))
    assert len(counts) == ITEMS
    assert sum(counts.values()) == ITEMS, counts.most_common(3)


@pytest.mark.slow
def test_a_worker_that_knows_both_hosts_follows_a_failover(pair: tuple[Cluster, Cluster], log: Path) -> None:
    primary, standby = pair
    both = make_conninfo(
        primary.dsn("pgflow"), host="127.0.0.1,127.0.0.1", port=f"{primary.port},{standby.port}"
    )
    run_id = start(both, "naps", [0.02] * ITEMS)
    listener = Listener()
    worker = Worker(settings(both, "naps", **QUICK), observer=listener)
    with threaded(worker, run_id=run_id) as running:
        eventually(lambda: worker.stats.done >= 40)
        primary.stop(signal.SIGQUIT)
        eventually(lambda: listener.waited, 20)
        time.sleep(1.0)
        standby.promote()
        report = running.join(60)
    check(standby.dsn("pgflow"), run_id, log)
    assert report.unsettled == 0
    assert report.stats.late == 0


@pytest.mark.slow
def test_an_address_that_leads_to_a_standby_for_a_while_costs_nothing(
    pair: tuple[Cluster, Cluster], log: Path
) -> None:
    primary, standby = pair
    run_id = start(primary.dsn("pgflow"), "naps", [0.02] * ITEMS)
    listener = Listener()
    with TcpProxy(primary.dsn("pgflow")) as proxy:
        worker = Worker(settings(proxy.dsn, "naps", **QUICK), observer=listener)
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.done >= 40)
            proxy.lead_to(standby.dsn())
            before = proxy.connections
            proxy.cut()
            eventually(lambda: listener.waited, 20)
            time.sleep(4.0)
            tries = proxy.connections - before
            primary.stop()
            standby.promote()
            report = running.join(60)
    check(standby.dsn("pgflow"), run_id, log)
    assert any("read-only" in text or "recovery" in text for text in listener.waited), listener.said
    assert tries < 150, "it connects again and again without a pause"
    assert len(listener.waited) < 10
    assert report.unsettled == 0


@pytest.mark.slow
def test_a_standby_that_has_not_heard_of_the_run_yet_does_not_end_it(
    pair: tuple[Cluster, Cluster], log: Path
) -> None:
    primary, standby = pair
    standby.execute("select pg_wal_replay_pause()")
    run_id = start(primary.dsn("pgflow"), "naps", [0.02] * ITEMS)
    listener = Listener()
    with TcpProxy(primary.dsn("pgflow")) as proxy:
        worker = Worker(settings(proxy.dsn, "naps", **QUICK), observer=listener)
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.done >= 40)
            proxy.lead_to(standby.dsn())
            proxy.cut()
            eventually(lambda: listener.waited, 20)
            time.sleep(2.0)
            assert running.report is None
            primary.stop()
            standby.execute("select pg_wal_replay_resume()")
            standby.promote()
            running.join(60)
    check(standby.dsn("pgflow"), run_id, log)


@pytest.mark.slow
def test_a_host_that_accepts_no_writes_yet_is_waited_for(
    pair: tuple[Cluster, Cluster],
) -> None:
    """``target_session_attrs`` finds no host that accepts writes: wait, and say so; then go on."""
    primary, standby = pair
    one = standby.dsn("pgflow", target_session_attrs="read-write")
    with pytest.raises(DatabaseUnavailable, match="no host accepts writes"):
        connection.connect(one)
    primary.stop()
    standby.promote()
    connection.retrying(one, give_up_after=20).close()


def swallowed(proxy: TcpProxy, running: ThreadedWorker, listener: Listener, seconds: float) -> None:
    """Swallow all traffic until the worker has noticed, and ``seconds`` more."""
    proxy.mode = "swallow"
    eventually(lambda: listener.waited, 20)
    time.sleep(seconds)
    assert running.error is None
    assert running.report is None
    proxy.mode = "pass"


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds of silence that are taken for a lost connection; a minute would make tests long."""
    monkeypatch.setattr(patience, "SILENCE", 1.5)
    monkeypatch.setattr(Heartbeat, "silence", 1.5)
    monkeypatch.setattr(Upkeep, "silence", 1.5)
    return 1.5


@pytest.mark.slow
def test_traffic_that_disappears_is_noticed_in_time_and_costs_nothing(
    dsn: str, log: Path, short_silence: float
) -> None:
    run_id = start(dsn, "naps", [0.02] * ITEMS)
    listener = Listener()
    with TcpProxy(dsn) as proxy:
        worker = Worker(
            settings(make_conninfo(proxy.dsn, connect_timeout=2), "naps", **QUICK), observer=listener
        )
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.stats.done >= 40)
            began = time.monotonic()
            swallowed(proxy, running, listener, 3.0)
            assert time.monotonic() - began < 3 + 4 * short_silence + 3.0
            running.join(60)
    assert any("has not answered for" in text for text in listener.waited), listener.said
    check(dsn, run_id, log)


@pytest.mark.slow
def test_an_idle_worker_notices_swallowed_traffic_too_and_its_heartbeat_comes_back(
    dsn: str, log: Path, short_silence: float
) -> None:
    listener = Listener()
    with TcpProxy(dsn) as proxy:
        slow = make_conninfo(proxy.dsn, connect_timeout=2)
        start(dsn, "naps", [0.0])
        worker = Worker(settings(slow, "naps", **QUICK, max_poll_seconds=0.5), observer=listener)
        with threaded(worker):
            eventually(lambda: worker.stats.done >= 2)
            proxy.mode = "swallow"
            eventually(lambda: listener.waited, 20)
            time.sleep(2.0)
            proxy.mode = "pass"
            run_id = start(dsn, "naps", [0.0] * 20)
            eventually(lambda: run_row(dsn, run_id).status == "completed", 20)
            with psycopg.connect(dsn, autocommit=True) as conn:
                asleep = (
                    "select max(clock_timestamp() - last_heartbeat_at) < interval '2 s' from pgflow.workers "
                )
                alive = asleep + "where stopped_at is null"
                eventually(lambda: conn.execute(alive.encode()).fetchone() == (True,), 20)


def test_a_statement_without_an_answer_ends_as_a_lost_connection(dsn: str) -> None:
    with TcpProxy(dsn) as proxy:
        conn = connection.connect(proxy.dsn, silence=0.5)
        conn.execute("select pg_sleep(0.2)")
        conn.execute("listen nothing")
        assert list(conn.notifies(timeout=1.0)) == []  # waiting for news is no silence
        proxy.mode = "swallow"
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match=r"not answered for 0\.5 s") as caught:
            conn.execute("select 1")
        assert 0.4 < time.monotonic() - began < 2.0
        assert connection.is_connection_lost(caught.value)
        assert conn.closed


def test_an_answer_that_arrives_in_pieces_is_no_silence(dsn: str) -> None:
    with connection.connect(dsn, silence=0.6) as conn:
        pieces = "select pg_sleep(0.3), repeat('x', 20000) from generate_series(1, 4)"
        assert len(conn.execute(pieces).fetchall()) == 4


@pytest.mark.slow
def test_a_client_that_waits_while_traffic_disappears_says_so_in_time(
    dsn: str, short_silence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow_mp.client.calls.RETRY_FOR", 4.0)
    run_id = start(dsn, "naps", [0.0])
    with TcpProxy(dsn) as proxy, Client(make_conninfo(proxy.dsn, connect_timeout=2)) as client:
        run = client.get_run(run_id)
        assert run is not None
        proxy.mode = "swallow"
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            run.wait(timeout=3.0)
        assert time.monotonic() - began < 12
        proxy.mode = "pass"
        assert run.refresh().status == "started"
