"""Pages that change while somebody looks: the stream, and one look into the database for all who look."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator

import psycopg
import pytest
from web_flows import Shown
from web_harness import Served

from pgflow_mp.db import engine, wire
from pgflow_mp.errors import PgflowError
from pgflow_mp.web.live_updates import MOST_VIEWERS, Parts, Pump, TooMany


def events(page: Served, path: str) -> Iterator[tuple[str, str]]:
    """(event, data) of a stream, as they come; for at most 20 s each."""
    conn = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    try:
        conn.request("GET", path)
        got = conn.getresponse()
        assert (got.status, got.getheader("content-type")) == (200, "text/event-stream; charset=utf-8")
        name = ""
        while raw := got.readline():
            field, _, value = raw.decode().rstrip("\r\n").partition(": ")
            name = value if field == "event" else name
            if field == "data":
                yield name, value
    finally:
        conn.close()


def test_what_changes_is_sent_and_nothing_else(page: Served, shown: Shown) -> None:
    with psycopg.connect(shown.dsn, autocommit=True) as conn:
        wire.adapt(conn)
        run = engine.start_flow(conn, "lonely", b"[1]")
        stream = events(page, f"/live/runs/{run}")
        name, first = next(stream)
        assert name == "parts"
        assert {"head", "graph", "steps", "failures"} <= set(json.loads(first))
        engine.cancel_run(conn, run, "enough")
        seen = ""
        while "cancelled" not in seen:
            name, data = next(stream)
            parts = json.loads(data)
            seen = parts.get("head", "")
            assert "failures" not in parts, "nothing has failed"
        stream.close()  # type: ignore[attr-defined]


def test_a_page_that_is_not_there_has_no_stream(page: Served) -> None:
    assert page.ask("/live/nix").status == 404
    assert page.ask("/live/runs?flow=%ff").status == 400


class Drawing:
    """What is drawn, and how often."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.parts: Parts = {"a": "1", "b": "1"}
        self.trouble = ""

    def __call__(self, page: str) -> tuple[Parts, bool]:
        self.drawn.append(page)
        if self.trouble:
            raise PgflowError(self.trouble)
        return dict(self.parts), False


async def collect(pump: Pump, page: str, into: list[tuple[str, str]]) -> None:
    async for each in pump.follow(page):
        into.append(each)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to be so")


def test_all_who_look_at_a_page_share_one_look_and_nobody_is_looked_for_when_they_are_gone() -> None:
    async def play() -> None:
        drawing = Drawing()
        pump = Pump(drawing, interval=0.02)
        got: list[list[tuple[str, str]]] = [[] for _ in range(50)]
        viewers = [asyncio.create_task(collect(pump, "/", each)) for each in got]
        await until(lambda: all(each == [("parts", '{"a": "1", "b": "1"}')] for each in got))
        assert len(drawing.drawn) < 25
        drawing.parts["b"] = "2"
        await until(lambda: all(each[1:] == [("parts", '{"b": "2"}')] for each in got))
        drawing.trouble = "the database is away"
        await until(lambda: all(("trouble", "the database is away") in each for each in got))
        drawing.trouble = ""
        await until(lambda: all(each[-1] == ("trouble", "") for each in got))
        late: list[tuple[str, str]] = []
        viewers.append(asyncio.create_task(collect(pump, "/", late)))
        await until(lambda: late == [("parts", '{"a": "1", "b": "2"}')])
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
        before = len(drawing.drawn)
        await asyncio.sleep(0.1)
        assert (len(drawing.drawn), pump.viewers) == (before, 0)

    asyncio.run(play())


def test_there_is_an_end_to_those_who_can_look_on() -> None:
    async def play() -> None:
        pump = Pump(Drawing(), interval=0.02)
        viewers = [asyncio.create_task(collect(pump, "/", [])) for _ in range(MOST_VIEWERS)]
        await asyncio.sleep(0.1)
        with pytest.raises(TooMany):
            pump.check_room("/")
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
        pump.check_room("/")
        await pump.close()

    asyncio.run(play())
