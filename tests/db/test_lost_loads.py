"""Connections that are lost in the midst of a load: it goes on, nothing twice and nothing missing."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from pg_cluster import clusters
from tcp_proxy import TcpProxy

from pgflow_mp.client import Client, keyed_runs
from pgflow_mp.db import loads, schema
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.errors import DatabaseUnavailable, InputError

from .test_loading_items import Given

WIDE = "x" * 300


@pytest.fixture
def known(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pgflow.create_flow('f')")
        conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
    return dsn


def elements(count: int, at: dict[int, Callable[[], Any]], size: int = 100) -> Iterator[Given]:
    """Batches of distinct elements; in front of some of them something happens."""
    for first in range(0, count, size):
        if first in at:
            at[first]()
        yield Given([json.dumps([n, WIDE]).encode() for n in range(first, first + size)])


def loaded(dsn: str, run_id: str) -> list[int]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "select (e ->> 0)::int "
            "from pgflow.pages p, jsonb_array_elements(p.body) with ordinality u (e, n) "
            "where p.run_id = %s order by p.first_index, u.n",
            (run_id,),
        ).fetchall()
        counted = conn.execute("select items from pgflow.loads where run_id = %s", (run_id,)).fetchone()
    assert counted == (len(rows),)
    return [n for (n,) in rows]


def test_a_load_goes_on_where_connections_are_cut_again_and_again(known: str) -> None:
    run_id, told = str(uuid.uuid4()), list[int]()
    with TcpProxy(known) as proxy, loads.patient(proxy.dsn) as keeper:
        cuts = dict.fromkeys(range(0, 20000, 1300), proxy.cut)
        count = loads.load(keeper, "f", elements(20_000, cuts), run_id, progress=told.append)
        assert proxy.connections > 8
        row = keeper.call(lambda conn: loads.start_loaded_once(conn, run_id, b"{}"))
    assert count == 20_000 == told[-1]
    assert told == sorted(told)
    assert loaded(known, run_id) == [*range(20_000)]
    assert row.status == "started"


def test_cuts_at_any_moment_lose_nothing_of_a_load_or_its_start(known: str) -> None:
    ended = threading.Event()
    with TcpProxy(known) as proxy:

        def cut() -> None:
            pause = 0.004
            while not ended.wait(pause):
                proxy.cut()
                pause = pause * 1.3 if pause < 0.4 else 0.004

        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            with loads.patient(proxy.dsn) as keeper:
                for key in ("a", "b", "c"):
                    run_id = str(uuid.uuid4())
                    found = keyed_runs.load_and_start(
                        keeper,
                        "f",
                        elements(10_000, {}),  # type: ignore[arg-type]
                        b"{}",
                        run_id,
                        key=key,
                    )
                    assert (str(found.run.run_id), found.is_new) == (run_id, True)
                    assert loaded(known, run_id) == [*range(10_000)]
        finally:
            ended.set()
            cutter.join()


def test_a_cut_once_all_is_confirmed_takes_nothing_with_it(
    known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = str(uuid.uuid4())
    confirmed = loads._Sender._all_confirmed
    with TcpProxy(known) as proxy, loads.patient(proxy.dsn) as keeper:

        def cut(sender: loads._Sender) -> None:
            confirmed(sender)
            proxy.cut()
            time.sleep(0.1)

        monkeypatch.setattr(loads._Sender, "_all_confirmed", cut)
        assert loads.load(keeper, "f", elements(500, {}), run_id) == 500
        keeper.call(lambda conn: loads.start_loaded_once(conn, run_id, b"{}"))
    assert loaded(known, run_id) == [*range(500)]


def test_a_slow_source_leaves_no_transaction_open(known: str) -> None:
    states: list[tuple[Any, ...]] = []

    def look() -> None:
        time.sleep(0.6)
        with psycopg.connect(known) as conn:
            row = conn.execute(
                "select count(*), (select count(*) from pgflow.pages) from pg_stat_activity "
                "where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()"
            ).fetchone()
            assert row is not None
            states.append(row)

    with loads.patient(known) as keeper:
        at = dict.fromkeys((1200, 2400), look)
        loads.load(keeper, "f", elements(2800, at), str(uuid.uuid4()))
    assert [open_ones for open_ones, _ in states] == [0, 0]
    assert states[-1][1] > 0


def test_a_server_that_stays_away_ends_the_load_and_what_the_source_raises_comes_out(known: str) -> None:
    run_id = str(uuid.uuid4())
    with TcpProxy(known) as proxy, Keeper(proxy.dsn, give_up_after=0.3) as keeper:

        def away() -> None:
            proxy.mode = "refuse"
            proxy.cut()

        with pytest.raises(DatabaseUnavailable, match="The items could not be loaded") as caught:
            loads.load(keeper, "f", elements(5000, {2000: away}), run_id)
        assert "Nothing of them was started" in caught.value.hint
        proxy.mode = "pass"

        def theirs() -> None:
            raise psycopg.OperationalError("another server is away")

        for first in (0, 2000):
            with pytest.raises(psycopg.OperationalError, match="another server"):
                loads.load(keeper, "f", elements(5000, {first: theirs}), str(uuid.uuid4()))
    with psycopg.connect(known) as conn:
        assert conn.execute("select count(*) from pgflow.loads").fetchone() == (1,)  # a day later it is none
        assert conn.execute("select count(*) from pgflow.runs").fetchone() == (0,)


def test_a_server_that_says_nothing_is_taken_for_lost(known: str) -> None:
    run_id = str(uuid.uuid4())
    with TcpProxy(known) as proxy, Keeper(proxy.dsn, silence=0.5, give_up_after=20) as keeper:

        def silent() -> None:
            proxy.mode = "swallow"
            threading.Timer(0.3, lambda: setattr(proxy, "mode", "pass")).start()

        assert loads.load(keeper, "f", elements(5000, {2000: silent}), run_id) == 5000
    assert loaded(known, run_id) == [*range(5000)]


def test_two_who_load_other_items_with_one_id_do_not_mix_them(known: str) -> None:
    run_id = str(uuid.uuid4())
    with loads.patient(known) as one, loads.patient(known) as other:

        def meanwhile() -> None:
            conn = other.connection()
            with pytest.raises(psycopg.errors.UniqueViolation, match="has other items in the place of these"):
                conn.execute("select pgflow.add_pages(%s, '{0}', '{1}', '{[1]}')", (run_id,))
            with pytest.raises(InputError, match="duplicate key"):
                loads.load(other, "f", elements(100, {}), run_id)

        loads.load(one, "f", elements(9000, {8900: meanwhile}), run_id)
    assert loaded(known, run_id) == [*range(9000)]


def test_a_client_s_start_outlives_lost_connections(known: str) -> None:
    with TcpProxy(known) as proxy, Client(proxy.dsn) as client:

        def items() -> Iterator[list[Any]]:
            for n in range(8000):
                if n % 3000 == 2999:
                    proxy.cut()
                yield [n, WIDE]

        run = client.start("f", items(), key="k")
        assert loaded(known, run.run_id) == [*range(8000)]


@pytest.mark.slow
def test_a_load_outlives_restarts_and_crashes_of_its_server() -> None:
    with clusters() as (primary, standby):
        standby.stop()
        primary.execute("alter system reset synchronous_standby_names")
        primary.execute("select pg_reload_conf()")
        dsn, run_id = primary.dsn("pgflow"), str(uuid.uuid4())
        with psycopg.connect(dsn, autocommit=True) as conn:
            schema.install(conn)
            conn.execute("select pgflow.create_flow('f')")
            conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")

        def restart(number: signal.Signals) -> None:
            primary.stop(number)
            threading.Timer(0.5, primary.start).start()

        at: dict[int, Callable[[], Any]] = {
            3000: lambda: restart(signal.SIGINT),
            9000: lambda: restart(signal.SIGQUIT),
        }
        with loads.patient(dsn) as keeper:
            assert loads.load(keeper, "f", elements(15_000, at), run_id) == 15_000
        assert loaded(dsn, run_id) == [*range(15_000)]
