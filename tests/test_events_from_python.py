"""Events of runs: in order, each once, none lost to a connection that is cut or to nobody listening."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from database_server import DatabaseServer
from tcp_proxy import TcpProxy
from worker_harness import compiled, settings, start, threaded

from pgflow_mp import Client, InputError, RunNotFound, WaitTimeout
from pgflow_mp.client.event_feed import Event
from pgflow_mp.worker.worker import Worker

CHAIN = [
    ("run:started", None),
    ("step:started", "double"),
    ("step:completed", "double"),
    ("step:started", "as_text"),
    ("step:completed", "as_text"),
    ("step:started", "joined"),
    ("step:completed", "joined"),
    ("run:completed", None),
]


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        for flow in ("chain", "mischief"):
            compiled(found, flow)
        yield found


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    with Client(dsn) as found:
        yield found


def named(events: list[Event] | Iterator[Event]) -> list[tuple[str, str | None]]:
    return [(event.type, event.step) for event in events]


@pytest.mark.parametrize("mode", ["pass", "lose announcements"])
def test_events_come_in_order_over_cut_connections(dsn: str, mode: str) -> None:
    with TcpProxy(dsn) as proxy, Client(proxy.dsn) as client:
        proxy.mode = mode  # type: ignore[assignment]
        run = client.start_flow("chain", [1, 2, 3])
        found: list[Event] = []
        feed = client.events(run, timeout=30)
        found.append(next(feed))
        proxy.cut()
        found.append(next(feed))
        with threaded(Worker(settings(dsn, "chain"))):
            for event in feed:
                found.append(event)
                proxy.cut()
    assert named(found) == CHAIN
    assert all(event.run == run.run_id and event.flow == "chain" for event in found)
    assert [event.at for event in found] == sorted(event.at for event in found)


def test_a_cursor_goes_on_where_another_left_off(client: Client, dsn: str) -> None:
    run = client.start_flow("chain", [1])
    first = client.events(run, follow=False)
    assert named(first) == CHAIN[:2]
    cursor = first.cursor
    assert named(client.events(run, since=cursor, follow=False)) == []
    with pytest.raises(WaitTimeout, match=f"^Timeout waiting for events of run {run.run_id}$"):
        next(client.events(run, since=cursor, timeout=0.1))
    with threaded(Worker(settings(dsn, "chain"))):
        rest = client.events(run.run_id, since=cursor, timeout=30)
        assert named([next(rest)]) == CHAIN[2:3]
        assert named(client.events(run, since=rest.cursor, timeout=30)) == CHAIN[3:]
    assert named(client.events(run)) == CHAIN  # of one that has ended: all, and then no more
    assert named(rest) == CHAIN[3:]


def test_what_a_run_was_before_it_was_retried_is_not_lost(client: Client, dsn: str) -> None:
    run_id = start(dsn, "mischief", [["echo", 1], ["permanent", "no"]])
    feed = client.events(run_id, timeout=30)
    assert named([next(feed), next(feed)]) == [("run:started", None), ("step:started", "act")]
    for _ in range(2):  # nobody looks meanwhile
        with threaded(Worker(settings(dsn, "mischief"))):
            client.wait(run_id, 30, "failed")
        client.retry_failed(run_id)
    client.cancel(run_id)
    failed = [("step:failed", "act"), ("run:failed", None)]
    again = [("run:started", None), ("step:started", "act")]
    found = list(feed)
    assert named(found) == [*failed, *again, *failed, *again, *failed]
    assert [event.at for event in found] == sorted(event.at for event in found)
    assert named(client.events(run_id)) == [*again, *failed, *again, *failed, *again, *failed]


def test_steps_that_are_computed_again_say_so(client: Client, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        run_id = start(dsn, "chain", [1])
        with threaded(Worker(settings(dsn, "chain"))):
            client.wait(run_id, 30)
        cursor = client.events(run_id)
        assert named(cursor) == CHAIN
        with conn.transaction():
            conn.execute("select pgflow._reset_steps('chain', %s, array['as_text', 'joined'])", (run_id,))
            conn.execute(
                "update pgflow.runs set status = 'started', completed_at = null where run_id = %s", (run_id,)
            )
        assert named(client.events(run_id, since=cursor.cursor, follow=False)) == [("run:started", None)]


def test_events_of_several_runs_end_with_the_last_of_them(client: Client, dsn: str) -> None:
    runs = [client.start_flow("chain", [n]) for n in range(3)]
    with threaded(Worker(settings(dsn, "chain"))):
        found = list(client.events(runs, timeout=30))
    for run in runs:
        assert named([event for event in found if event.run == run.run_id]) == CHAIN
    assert list(client.events([])) == []


def test_a_run_that_is_removed_ends_them_and_nonsense_is_refused(client: Client) -> None:
    run = client.start_flow("chain", [1])
    other = client.start_flow("chain", [1])
    feed = client.events(run)
    next(feed)
    with pytest.raises(InputError, match="since is the cursor of events of another run"):
        client.events(other, since=feed.cursor)
    for nonsense in ("x", "", "AAAA", "ÿ", feed.cursor[:-4], feed.cursor + "AA=="):
        with pytest.raises(InputError, match="is not the cursor of events"):
            client.events(run, since=nonsense)
    with pytest.raises(RunNotFound):
        client.events("11111111-1111-4111-8111-111111111111")
    with pytest.raises(RunNotFound):
        client.events("no run")
    client.cancel(run)
    list(feed)


def test_events_wait_in_their_own_thread_and_hold_up_nobody(client: Client) -> None:
    run = client.start_flow("chain", [1])
    found: list[Event] = []
    follower = threading.Thread(target=lambda: found.extend(client.events(run, timeout=30)))
    follower.start()
    for _ in range(20):
        assert client.get_run(run.run_id) is not None
    client.cancel(run)
    follower.join(30)
    assert named(found)[-1] == ("run:failed", None)
