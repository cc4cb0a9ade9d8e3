"""The database is lost at each moment of public calls: users get an error of ours, or the result."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from queue_jobs import note
from tcp_proxy import TcpProxy
from worker_flows import chain
from worker_harness import compiled

import pgflow_mp
from pgflow_mp import (
    AsyncClient,
    Client,
    DatabaseError,
    DatabaseUnavailable,
    InputError,
    PgflowError,
    QueueWorker,
)
from pgflow_mp.client import calls
from pgflow_mp.db import connection, keeper, schema
from pgflow_mp.db.patience import PatientConnection
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.runner import resume

MOST = 200
"""Statements that no call here comes to."""


class Cutter:
    """Cuts all connections just before the statement of this number, of whichever thread."""

    def __init__(self, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self._proxy = proxy
        self._lock = threading.Lock()
        self._left: int | None = None
        self._back: float | None = None
        self.has_cut = False
        ours = PatientConnection.wait

        def wait(conn: Any, *given: Any, **more: Any) -> Any:
            self._count()
            return ours(conn, *given, **more)

        monkeypatch.setattr(PatientConnection, "wait", wait)

    def at(self, number: int, *, back_after: float | None = None) -> None:
        """Cut before that statement; ``back_after`` seconds connections are accepted again."""
        self._proxy.mode, self.has_cut, self._left, self._back = "pass", False, number, back_after

    def _count(self) -> None:
        with self._lock:
            if self._left is None:
                return
            self._left -= 1
            if self._left > 0:
                return
            self._left, self.has_cut = None, True
            self._proxy.mode = "refuse"
            self._proxy.cut()
            if self._back is not None:
                threading.Timer(self._back, self._return).start()

    def _return(self) -> None:
        self._proxy.mode = "pass"


@pytest.fixture
def proxy(dsn: str) -> Iterator[TcpProxy]:
    with TcpProxy(dsn) as found:
        yield found


@pytest.fixture
def cutter(proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> Cutter:
    monkeypatch.setattr(calls, "RETRY_FOR", 0.05)
    monkeypatch.setattr(keeper, "_PATIENCE", 0.05)
    return Cutter(proxy, monkeypatch)


def _async(work: Callable[[AsyncClient], Any]) -> Callable[[Client], Any]:
    def run(client: Client) -> Any:
        async def all_of_it() -> None:
            async with AsyncClient(client._dsn()) as other:
                found = work(other)
                if hasattr(found, "__aiter__"):
                    async for _ in found:
                        pass
                else:
                    await found

        asyncio.run(all_of_it())

    return run


def _calls(run_id: str) -> dict[str, Callable[[Client], Any]]:
    return {
        "run": lambda client: client.run(run_id),
        "runs": lambda client: client.runs(),
        "report": lambda client: client.report(run_id),
        "html_report": lambda client: client.html_report(run_id),
        "steps": lambda client: client.steps(run_id),
        "items": lambda client: [*client.items(run_id, "double")],
        "failures": lambda client: client.failures(run_id),
        "results": lambda client: [*client.results(run_id, "double")],
        "as_completed": lambda client: [*client.as_completed(run_id, "double")],
        "events": lambda client: [*client.events(run_id)],
        "progress": lambda client: [*client.progress(run_id)],
        "wait": lambda client: client.wait(run_id, 5).output,
        "workers": lambda client: client.workers(),
        "flows": lambda client: client.flows(),
        "start_flow": lambda client: client.start_flow("chain", [1]),
        "start_flow by key": lambda client: client.start_flow("chain", [1], key="one"),
        "start": lambda client: client.start("chain", iter([1, 2])),
        "start by key": lambda client: client.start(chain, iter([1, 2]), key="two"),
        "enqueue": lambda client: client.enqueue("chores", 1),
        "cancel": lambda client: client.cancel(run_id),
        "retry": lambda client: client.retry(run_id, dry_run=True),
        "pause": lambda client: client.pause(flow="chain"),
        "resume": lambda client: client.resume(flow="chain"),
        "drain": lambda client: client.drain(flow="chain"),
        "prune": lambda client: client.prune(1e6),
        "schedules": lambda client: client.schedules(),
        "schedule": lambda client: client.schedule("chain", "@daily", [1]),
        "async runs": _async(lambda client: client.runs()),
        "async wait": _async(lambda client: client.wait(run_id, 5)),
        "async results": _async(lambda client: client.results(run_id, "double")),
        "async as_completed": _async(lambda client: client.as_completed(run_id, "double")),
        "async events": _async(lambda client: client.events(run_id)),
        "async start": _async(lambda client: client.start("chain", iter([1, 2]))),
    }


@pytest.mark.slow
def test_every_method_of_a_client_raises_errors_of_ours_whenever_the_server_is_lost(
    dsn: str, proxy: TcpProxy, cutter: Cutter
) -> None:
    run_id = "0b2c1e52-2d3e-4e2f-8f5e-6d9a9a7a0c11"
    pgflow_mp.run(chain, [1, 2, 3], dsn=dsn, run_id=run_id, executor="inline")
    wrong: list[str] = []
    for name, call in _calls(run_id).items():
        for number in range(1, MOST):
            cutter.at(number)
            try:
                with Client(proxy.dsn) as client:
                    call(client)
            except DatabaseError:
                pass
            except Exception as error:
                wrong.append(f"{name}, statement {number}: {type(error).__name__}: {error}")
            if not cutter.has_cut:
                break
        assert 1 < number < MOST, name
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_runs_that_are_executed_here_outlive_a_server_that_comes_back(
    dsn: str, proxy: TcpProxy, cutter: Cutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_PATIENCE", 30.0)
    with Client(dsn) as client:
        client.start_flow(chain, [])  # so that it is known

    def resumed() -> object:
        with Client(dsn) as client:
            run = client.start("chain", [1, 2, 3])
        return resume(chain, run.run_id, dsn=proxy.dsn, executor="inline", max_poll_seconds=0.1)

    def streamed() -> object:
        found = chain.imap([1, 2, 3], step="as_text", dsn=proxy.dsn, executor="inline", keep=False)
        return {"joined": " ".join(str(each.output) for each in found)}

    ways: dict[str, Callable[[], object]] = {
        "run": lambda: pgflow_mp.run(chain, [1, 2, 3], dsn=proxy.dsn, executor="inline"),
        "run by key": lambda: pgflow_mp.run(chain, [1, 2, 3], dsn=proxy.dsn, executor="inline", key="one"),
        "resume": resumed,
        "imap": streamed,
    }
    wrong: list[str] = []
    for name, work in ways.items():
        for number in (*range(1, 24), *range(24, MOST, 10)):
            cutter.at(number, back_after=0.05)
            try:
                if (found := work()) != {"joined": "#2 #4 #6"}:
                    wrong.append(f"{name}, statement {number}: {found}")
            except Exception as error:
                wrong.append(f"{name}, statement {number}: {type(error).__name__}: {error}")
            if not cutter.has_cut:
                break
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_a_worker_of_a_queue_outlives_a_server_that_comes_back(
    dsn: str, proxy: TcpProxy, cutter: Cutter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_PATIENCE", 30.0)
    for number in range(1, 40):
        with Client(dsn) as client:
            client.enqueue("chores", {"name": "one", "log": str(tmp_path / "log")})
        worker = QueueWorker(note, "chores", dsn=proxy.dsn, executor="inline")
        cutter.at(number, back_after=0.05)
        report = worker.run(idle_exit=True)
        assert report.done == 1, number
        if not cutter.has_cut:
            break
    assert number > 4


@pytest.mark.slow
def test_an_embedded_server_that_is_killed_while_it_is_set_up_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, kills = schema.install, 2

    def killing(conn: psycopg.Connection[Any]) -> Any:
        nonlocal kills
        if kills:
            kills -= 1
            (found,) = tmp_path.glob("**/postmaster.pid")
            os.kill(int(found.read_text().split()[0]), signal.SIGKILL)
        return ours(conn)

    monkeypatch.setattr(schema, "install", killing)
    assert pgflow_mp.run(chain, [1], data_dir=tmp_path, executor="inline") == {"joined": "#2"}
    kills = 1
    with Client(data_dir=tmp_path) as client:
        assert len(client.runs()) == 1


def test_errors_of_another_database_out_of_which_items_are_drawn_stay_as_they_are(dsn: str) -> None:
    def rows() -> Iterator[int]:
        with psycopg.connect(dsn) as conn, conn.cursor() as cursor:
            yield 1
            yield from (row[0] for row in cursor.execute("select 1 / 0"))

    compiled(dsn, "chain")
    with Client(dsn) as client, pytest.raises(psycopg.errors.DivisionByZero):
        client.start("chain", rows())
    with pytest.raises(psycopg.errors.DivisionByZero):
        pgflow_mp.run(chain, rows(), dsn=dsn, executor="inline")


def test_refusals_say_all_and_failures_keep_the_drivers_error(conn: psycopg.Connection[Any]) -> None:
    def told(query: str) -> PgflowError:
        ours = connection.connect(conn.info.dsn)
        with ours, pytest.raises(PgflowError) as caught, public_errors():
            ours.execute(query.encode())
        return caught.value

    refused = told("do $$ begin raise insufficient_privilege using message = 'permission denied'; end $$")
    assert isinstance(refused, DatabaseError)
    assert isinstance(refused, psycopg.errors.InsufficientPrivilege)  # for those who wait for that
    assert (refused.sqlstate, refused.__cause__) == ("42501", None)
    too_large = told("select 'x'::int")
    assert isinstance(too_large, InputError)
    assert too_large.__cause__ is None
    assert "direct cause" not in "".join(traceback.format_exception(too_large))
    unforeseen = told("select 1 from nowhere")
    assert isinstance(unforeseen.__cause__, psycopg.errors.UndefinedTable)
    lost = told("select pg_terminate_backend(pg_backend_pid())")
    assert isinstance(lost, DatabaseUnavailable)
    assert isinstance(lost.__cause__, psycopg.Error)
