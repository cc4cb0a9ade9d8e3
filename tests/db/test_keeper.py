"""Keeping a connection: opened when needed, again when lost, with what is said meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from database_server import DatabaseServer
from tcp_proxy import TcpProxy

from pgflow_mp.db.connection import Backoff, passes_by_itself
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper, Stopped
from pgflow_mp.errors import DatabaseError, DatabaseUnavailable


@pytest.fixture
def proxy(server: DatabaseServer) -> Iterator[TcpProxy]:
    """The test server, through a proxy that can cut connections."""
    with TcpProxy(server.dsn) as found:
        yield found


class Said(list[str]):
    """What a keeper says about its connection."""

    @property
    def words(self) -> list[str]:
        """The first word of each text, which is empty where all is well; repetitions once."""
        first = [text.partition(" ")[0] for text in self]
        return [word for word, before in zip(first, [None, *first], strict=False) if word != before]


def kept(dsn: str, **options: Any) -> Keeper:
    """A keeper that is in a hurry."""
    options.setdefault("backoff", Backoff(initial=0.01, cap=0.05))
    return Keeper(dsn, **options)


def pid(conn: Connection) -> int:
    return conn.info.backend_pid


def fail(conn: Connection, state: str) -> None:
    """An error of the server with this SQLSTATE."""
    conn.execute(f"do $$ begin raise exception 'as wanted' using errcode = '{state}'; end $$".encode())


def test_one_connection_is_opened_when_it_is_needed_and_kept_until_closed(proxy: TcpProxy) -> None:
    prepared: list[Connection] = []
    said = Said()
    with kept(proxy.dsn, prepare=prepared.append, on_state=said.append) as keeper:
        assert proxy.connections == 0
        conn = keeper.connection()
        assert keeper.connection() is conn
        assert keeper.call(lambda conn: conn) is conn
        row = conn.execute("select '[1]'::jsonb, gen_random_uuid()").fetchone()
        assert row is not None
        assert row[0] == b"[1]"
        assert isinstance(row[1], str)
        keeper.close()
        assert conn.closed
        assert keeper.connection() is not conn
    assert prepared == [conn, prepared[1]]
    assert prepared[1].closed
    assert said == ["", ""]
    assert proxy.connections == 2


def test_work_on_a_cut_connection_is_done_again_on_a_new_one(proxy: TcpProxy) -> None:
    said, done = Said(), list[int]()

    def work(conn: Connection) -> int:
        done.append(pid(conn))
        if len(done) < 3:
            proxy.cut()
        conn.execute("select 1")
        return len(done)

    with kept(proxy.dsn, on_state=said.append) as keeper:
        assert keeper.call(work) == 3
    assert len(set(done)) == 3
    assert said.words[::2] == ["", "", ""]
    assert all(said.words[1::2])


@pytest.mark.parametrize(
    ("state", "again", "new"),
    [("40P01", True, False), ("25006", True, True), ("57P01", True, True), ("22012", False, False)],
    ids=["deadlock", "read-only server", "shut down", "division by zero"],
)
def test_errors_are_told_apart_by_what_helps(
    server: DatabaseServer, state: str, again: bool, new: bool
) -> None:
    said, pids = Said(), list[int]()

    def work(conn: Connection) -> None:
        pids.append(pid(conn))
        if len(pids) < 2:
            fail(conn, state)

    with kept(server.dsn, on_state=said.append) as keeper:
        if again:
            keeper.call(work)
        else:
            with pytest.raises(psycopg.Error, match="as wanted"):
                keeper.call(work)
        assert len(pids) == 1 + again
        assert len(set(pids)) == 1 + new
        assert pid(keeper.connection()) == pids[-1]
    assert said.words == (["", "as", ""] if again else [""])


def test_a_time_limit_of_the_server_passes_for_those_who_have_time(server: DatabaseServer) -> None:
    pauses = iter([10, 0])

    def work(conn: Connection) -> None:
        conn.execute("set statement_timeout = 20")
        conn.execute("select pg_sleep(%s)", (next(pauses),))

    with kept(server.dsn) as keeper, pytest.raises(psycopg.errors.QueryCanceled):
        keeper.call(work)
    pauses = iter([10, 0])
    with kept(server.dsn, passes=passes_by_itself) as keeper:
        keeper.call(work)


def test_it_gives_up_in_time_whatever_is_wrong(proxy: TcpProxy) -> None:
    began = time.monotonic()
    with kept(proxy.dsn, give_up_after=0.2) as keeper:
        with pytest.raises(psycopg.errors.DeadlockDetected):
            keeper.call(lambda conn: fail(conn, "40P01"))
        proxy.mode = "refuse"
        proxy.cut()
        with pytest.raises(DatabaseUnavailable):
            keeper.call(lambda conn: conn.execute("select 1"))
    assert 0.4 <= time.monotonic() - began < 3


def test_the_first_connection_is_not_waited_for(proxy: TcpProxy) -> None:
    proxy.mode = "refuse"
    began = time.monotonic()
    with kept(proxy.dsn, give_up_after=20.0) as keeper, pytest.raises(DatabaseUnavailable):
        keeper.begin()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("mode", ["pass", "refuse"])
def test_whoever_tries_stops_when_told_to(proxy: TcpProxy, mode: Any) -> None:
    stop, said, ended = threading.Event(), threading.Event(), list[BaseException]()
    proxy.mode = mode

    def on_state(text: str) -> None:
        if text:
            said.set()

    def thread() -> None:
        backoff = Backoff(initial=20.0, cap=20.0)
        with Keeper(proxy.dsn, on_state=on_state, stop=stop, backoff=backoff) as keeper:
            try:
                keeper.call(lambda conn: fail(conn, "40P01"))
            except Stopped as error:
                ended.append(error)

    trying = threading.Thread(target=thread)
    trying.start()
    assert said.wait(5)
    stop.set()
    trying.join(2)
    assert not trying.is_alive()
    assert ended


def test_what_lasts_goes_on_on_a_new_connection_until_it_is_stopped(proxy: TcpProxy) -> None:
    stop, pids, said = threading.Event(), list[int](), Said()

    def serve(conn: Connection) -> None:
        pids.append(pid(conn))
        if len(pids) == 4:
            stop.set()
        elif len(pids) == 2:
            fail(conn, "40P01")  # costs the connection, too: what was prepared on it is in doubt
        else:
            proxy.cut()
            conn.execute("select 1")

    with kept(proxy.dsn, stop=stop, on_state=said.append) as keeper:
        keeper.serve(serve)
    assert len(set(pids)) == 4
    assert said.words[::2] == ["", "", "", ""]
    assert all(said.words[1::2])


def test_serving_ends_by_an_error_that_does_not_pass(server: DatabaseServer) -> None:
    with kept(server.dsn) as keeper:
        with pytest.raises(psycopg.errors.DivisionByZero):
            keeper.serve(lambda conn: fail(conn, "22012"))
        with pytest.raises(ValueError, match="mine"):
            keeper.serve(lambda conn: int("mine"))


def test_pauses_grow_until_something_gets_through(server: DatabaseServer) -> None:
    stop, backoff, tries = threading.Event(), Backoff(initial=0.01, cap=0.05), list[int]()

    def serve(conn: Connection) -> None:
        tries.append(backoff.tries)
        if len(tries) == 4:
            keeper.worked()
        elif len(tries) == 6:
            stop.set()
            return
        fail(conn, "40P01")

    with Keeper(server.dsn, stop=stop, backoff=backoff) as keeper:
        keeper.serve(serve)
    assert tries == [0, 1, 2, 3, 1, 2]


def test_a_connection_that_cannot_be_prepared_is_none(server: DatabaseServer) -> None:
    said, seen = Said(), list[Connection]()

    def prepare(conn: Connection) -> None:
        seen.append(conn)
        if len(seen) < 3:
            fail(conn, "25006")  # as a standby answers LISTEN

    with kept(server.dsn, prepare=prepare, on_state=said.append) as keeper:
        assert keeper.call(lambda conn: conn) is seen[2]
        assert [conn.closed for conn in seen] == [True, True, False]
        assert said.words == ["as", ""]

    def refuse(conn: Connection) -> None:
        raise DatabaseError("no schema")

    with kept(server.dsn, prepare=refuse) as keeper, pytest.raises(DatabaseError, match="no schema"):
        keeper.connection()
