"""The asynchronous client: the same methods, signatures and docstrings, and it waits without threads."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest
from database_server import DatabaseServer
from tcp_proxy import TcpProxy
from worker_harness import compiled, settings, threaded

import pgflow_mp
from pgflow_mp import AsyncClient, Client, FlowNotFound, InputError, RunFailed, RunNotFound, WaitTimeout
from pgflow_mp.client import AsyncRun, Run
from pgflow_mp.client.async_events import AsyncEvents
from pgflow_mp.client.event_feed import Events
from pgflow_mp.worker.worker import Worker

UNKNOWN = "11111111-1111-4111-8111-111111111111"
OTHERWISE = {"Run": "AsyncRun", "Iterator": "AsyncIterator", "Events": "AsyncEvents"}
"""What the one says in the place of what the other does."""
ITERATED = ("as_completed", "events", "indexed_results", "items", "progress", "results")
"""What is not awaited but iterated."""


def public(cls: type) -> dict[str, Any]:
    return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(public(Client)))
def test_both_clients_have_the_same_methods_signatures_and_docstrings(name: str) -> None:
    ours, theirs = public(Client)[name], public(AsyncClient)[name]
    translated = str(inspect.signature(ours))
    for one, other in OTHERWISE.items():
        translated = re.sub(rf"\b{one}\b(?! cancelled)", other, translated)
    assert str(inspect.signature(theirs)) == translated
    assert ours.__doc__
    assert theirs.__doc__ == ours.__doc__
    assert inspect.iscoroutinefunction(theirs) is (name not in ITERATED)


def test_neither_client_has_what_the_other_has_not() -> None:
    assert public(AsyncClient).keys() == public(Client).keys()
    mine, theirs = public(AsyncRun).keys(), public(Run).keys()
    assert theirs - mine == {"failure"}  # an exception to be raised: result() does
    assert mine - theirs == set()
    assert public(AsyncEvents).keys() == public(Events).keys()
    for cls in (AsyncRun, AsyncEvents):
        assert [name for name, member in public(cls).items() if not member.__doc__] == []


def test_the_help_of_the_package_tells_all_of_it_on_one_screen() -> None:
    text = pgflow_mp.__doc__ or ""
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 76
    named = set(re.findall(r"\w+", text))
    assert public(Client).keys() - named == set()
    errors = {name for name in pgflow_mp.__all__ if name.endswith(("Error", "Failed", "NotFound"))}
    errors |= {"DatabaseError", "DatabaseUnavailable", "ScheduleNotFound", "ShapeMismatch"}
    assert set(pgflow_mp.__all__) - errors - named - {"WaitTimeout"} == set()


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        for flow in ("chain", "mischief", "naps"):
            compiled(found, flow)
        yield found


def doing(dsn: str, work: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
    """Do ``work`` in a loop of its own, within a minute."""

    async def main() -> None:
        async with AsyncClient(dsn) as client:
            await asyncio.wait_for(work(client), 60)

    asyncio.run(main())


def test_a_run_is_started_followed_and_read(dsn: str) -> None:
    async def work(client: AsyncClient) -> None:
        run = await client.start_flow("chain", [1, 2, 3], tags=["mine"])
        assert (run.status, run.flow_slug, await run.input()) == ("started", "chain", [1, 2, 3])
        feed = client.events(run)
        assert feed.cursor
        first = await anext(feed)
        assert first.type == "run:started"
        with threaded(Worker(settings(dsn, "chain"))):
            waiting = asyncio.create_task(client.wait(run.run_id, 30))
            progress = [now async for now in run.progress(interval=0.05)]
            items = [item async for item in client.as_completed(run, "double", ordered=True)]
            rest = [event.type async for event in client.events(run, since=feed.cursor)]
            await waiting
        await feed.close()
        assert [(item.input, item.output) for item in items] == [(1, 2), (2, 4), (3, 6)]
        assert rest[-1] == "run:completed"
        assert len(rest) == 7
        assert (progress[-1].status, progress[-1].done) == ("completed", 7)
        assert await run.result(5) == {"joined": "#2 #4 #6"}
        assert [output async for output in run.results("as_text")] == ["#2", "#4", "#6"]
        assert [pair async for pair in client.indexed_results(run, "as_text")][2] == (2, "#6")
        assert [item.index async for item in client.items(run, "double", limit=2)] == [0, 1]
        assert [step.step_slug for step in await run.steps()] == ["double", "as_text", "joined"]
        assert (await client.runs(tag="mine"))[0].run_id == run.run_id
        assert (await client.run(run.run_id[:13])).run_id == run.run_id
        assert await client.get_run(UNKNOWN) is None
        assert (await client.report(run)).state == "completed"
        assert (await run.key(), await run.error(), await run.failures()) == (None, None, [])

    doing(dsn, work)


def test_runs_are_steered_and_mistakes_are_told(dsn: str) -> None:
    async def work(client: AsyncClient) -> None:
        run = await client.start_flow("mischief", [["permanent", "no"]])
        assert await client.pause(run)
        with pytest.raises(WaitTimeout):
            await run.wait(0.3)
        assert await client.resume(run.run_id)
        with threaded(Worker(settings(dsn, "mischief"))):
            with pytest.raises(RunFailed, match="PermanentError: no"):
                await run.wait(30)
            assert (await run.refresh()).status == "failed"
            assert await run.retry_failed() == 1
            with pytest.raises(RunFailed):
                async for _ in run.as_completed("act", timeout=30):
                    pass
        assert (await run.retry(dry_run=True)).items == 1
        assert await client.drain(worker="nobody") == []
        await client.delete(run)
        assert await client.get_run(run.run_id) is None
        assert (await client.prune(3600.0)).runs == 0
        for call in (client.wait, client.report, client.steps, client.cancel, client.retry_failed):
            with pytest.raises(RunNotFound):
                await call(UNKNOWN)
        with pytest.raises(RunNotFound):
            await anext(client.events(UNKNOWN))
        with pytest.raises(InputError, match="interval must be"):
            async for _ in client.progress(await client.start_flow("chain", []), interval=0):
                pass
        with pytest.raises(FlowNotFound):
            await client.start_flow("nobody", 1)
        assert len(await client.enqueue_many("async_jobs", [1, 2])) == 2
        assert await client.enqueue("async_jobs", 3) > 0
        assert {flow.flow_slug for flow in await client.flows()} >= {"chain", "mischief"}

    doing(dsn, work)


def test_items_of_an_async_iterator_are_drawn_in_their_own_loop(dsn: str) -> None:
    async def work(client: AsyncClient) -> None:
        loop, drawn = asyncio.get_running_loop(), 0

        async def items() -> AsyncIterator[int]:
            nonlocal drawn
            for number in range(300):
                assert asyncio.get_running_loop() is loop
                await asyncio.sleep(0)
                drawn += 1
                yield number

        run = await client.start("chain", items())
        assert (drawn, (await run.steps())[0].initial_tasks) == (300, 300)
        await run.cancel()

        async def broken() -> AsyncIterator[int]:
            yield 1
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            await client.start("chain", broken())

    doing(dsn, work)


def test_many_wait_without_a_thread_each_over_cut_connections(dsn: str) -> None:
    async def work(client: AsyncClient) -> None:
        runs = [await client.start_flow("chain", [n]) for n in range(30)]
        feeds = [asyncio.create_task(_types(client.events(run))) for run in runs]
        waiting = [asyncio.create_task(client.wait(run, 60)) for run in runs]
        await asyncio.sleep(0.5)
        assert threading.active_count() < 25
        proxy.cut()
        with threaded(Worker(settings(dsn, "chain"))):
            await asyncio.sleep(0.3)
            proxy.cut()
            done = await asyncio.gather(*waiting)
            told = await asyncio.gather(*feeds)
        assert [run.status for run in done] == ["completed"] * 30
        assert all(types[-1] == "run:completed" and len(types) == 8 for types in told)

    async def _types(feed: AsyncEvents) -> list[str]:
        return [event.type async for event in feed]

    with TcpProxy(dsn) as proxy:
        doing(proxy.dsn, work)


def test_who_waits_is_woken_and_may_be_cancelled(dsn: str) -> None:
    async def _first(items: AsyncIterator[Any]) -> Any:
        return await anext(items)

    async def work(client: AsyncClient) -> None:
        run = await client.start_flow("naps", [60])
        waiting = asyncio.create_task(run.wait(None))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pgflow.cancel_run(%s)", (run.run_id,))
        with pytest.raises(RunFailed):
            await waiting
        assert time.monotonic() - began < 0.9  # by what it heard: looks are a second apart
        other = await client.start_flow("naps", [60])
        waiting = asyncio.create_task(other.wait(None))
        stream: asyncio.Task[Any] = asyncio.create_task(_first(client.as_completed(other, "nap")))
        await asyncio.sleep(0.2)
        for task in (waiting, stream):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await other.cancel()).status == "failed"  # the client goes on

    doing(dsn, work)


def test_a_client_that_was_closed_opens_again_in_another_loop(dsn: str) -> None:
    client = AsyncClient(dsn)

    async def work() -> None:
        run = await client.start_flow("chain", [1])
        with pytest.raises(WaitTimeout):
            await run.wait(0.2)
        await run.cancel()
        await client.close()

    asyncio.run(work())
    asyncio.run(work())
