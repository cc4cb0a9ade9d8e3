"""The web page as an ASGI application: routes to pages, streams, downloads and actions."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.shared_connections import SharedConnections
from pgflow_mp.errors import PgflowError
from pgflow_mp.observe import metrics
from pgflow_mp.web import rendering, views
from pgflow_mp.web.acting import Actions
from pgflow_mp.web.downloads import download
from pgflow_mp.web.guard import ENTRANCE, Guard, safe_way
from pgflow_mp.web.live_updates import Parts, Pump, TooMany
from pgflow_mp.web.page_settings import PageSettings
from pgflow_mp.web.questions import PageQuery, question
from pgflow_mp.web.rendering import Drawn
from pgflow_mp.web.troubles import trouble_of

_log = logging.getLogger("pgflow_mp.web")
_PING: Final = 15
"""Seconds between comments on a silent stream, so that whoever is in between does not cut it."""
_KEPT: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


class Served(NamedTuple):
    """A page that was found: what draws it, the question, and the entry of the menu that it belongs to."""

    view: views.View
    question: PageQuery
    menu: str


class WebPage:
    """Draws pages for whoever may see them. Threads: starlette's pool draws and acts."""

    def __init__(self, dsn: str, settings: PageSettings) -> None:
        self._settings = settings
        self._connections = SharedConnections(dsn)
        self._actions = Actions(dsn, settings)
        self.pump = Pump(self._draw_parts, settings.interval)
        self.guard = Guard(self._starlette(), settings)

    def _starlette(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/assets/{mark}/{name}", self._asset),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
                Route(ENTRANCE, self._entrance, methods=["GET", "POST"]),
                Route("/live/{path:path}", self._stream),
                Route("/{path:path}", self._page, methods=["GET"]),
                Route("/{path:path}", self._act, methods=["POST"]),
            ],
            lifespan=self._life,
        )

    @contextlib.asynccontextmanager
    async def _life(self, _app: Any) -> AsyncIterator[None]:
        self._connections.open()
        self._actions.open()
        try:
            yield
        finally:
            await self.pump.close()
            await run_in_threadpool(self._connections.close)
            await run_in_threadpool(self._actions.close)

    # -- pages --------------------------------------------------------------------------------------------

    def _find(self, path: str, query: str) -> Served | None:
        for page in views.PAGES:
            if (match := page.matches(path)) is not None:
                settings = self._settings
                asked = question(
                    path,
                    match.groupdict(),
                    query,
                    may_act=settings.allow_actions,
                    options=settings.options,
                )
                return Served(page.view, asked, page.menu)
        return None

    def _read(self, work: Callable[[Connection], Any]) -> Any:
        with self._connections.lent() as conn:
            return work(conn)

    def _draw_parts(self, page: str) -> tuple[Parts, bool]:
        path, _, query = page.partition("?")
        try:
            served = self._find(path, query)
            if served is None:
                return {}, True
            drawn: Drawn = self._read(lambda conn: served.view(conn, served.question))
            return rendering.draw_parts(drawn, **self._around(served.menu, None)), drawn.over
        except Exception as error:
            trouble = trouble_of(error, _log)
            raise PgflowError(trouble.title) from error

    def _around(self, menu: str | None, request: Request | None) -> dict[str, Any]:
        return {
            "here": menu,
            "place": self._settings.place,
            "may_act": self._settings.allow_actions,
            "mark": "" if request is None else request.scope.get("pgflow.mark", ""),
            "now": f"{datetime.now(UTC):%H:%M:%S} UTC",
            "live_path": None,
            "said": None,
        }

    async def _page(self, request: Request) -> Response:
        path, query = request.url.path, request.url.query
        around = self._around(None, request)
        try:
            sent = await download(path, query, self._connections)
            if sent is not None:
                return sent
            served = self._find(path, query)
            if served is None:
                return self._error(around, 404, "There is no such page", "The address is mistyped, or old.")
            around["here"] = served.menu
            around["said"] = self._actions.told(served.question)

            def work() -> tuple[Drawn, str]:
                drawn: Drawn = self._read(lambda conn: served.view(conn, served.question))
                if drawn.parts:
                    around["live_path"] = "/live" + path + (f"?{query}" if query else "")
                return drawn, rendering.draw(drawn, **around)

            drawn, html = await run_in_threadpool(work)
            return HTMLResponse(html, status_code=drawn.status)
        except Exception as error:  # noqa: BLE001 - whatever it is, the visitor is told
            trouble = trouble_of(error, _log)
            return self._error(around, trouble.status, trouble.title, trouble.hint)

    def _error(self, around: dict[str, Any], status: int, title: str, hint: str) -> Response:
        drawn = Drawn("error.html", {}, {"title": title, "hint": hint})
        return HTMLResponse(rendering.draw(drawn, **around), status_code=status)

    # -- what goes on -------------------------------------------------------------------------------------

    async def _stream(self, request: Request) -> Response:
        path, query = "/" + request.path_params["path"], request.url.query
        try:
            if self._find(path, query) is None:
                return Response(status_code=404)
            page = path + (f"?{query}" if query else "")
            self.pump.check_room(page)
        except TooMany as error:
            return Response(str(error), status_code=503, media_type="text/plain")
        except PgflowError as error:
            return Response(str(error), status_code=400, media_type="text/plain")

        async def events() -> AsyncIterator[ServerSentEvent]:
            async with contextlib.aclosing(self.pump.follow(page)) as followed:
                async for name, data in followed:
                    yield ServerSentEvent(data, event=name)

        return EventSourceResponse(events(), ping=_PING)

    # -- the rest -----------------------------------------------------------------------------------------

    async def _act(self, request: Request) -> Response:
        around = self._around(None, request)
        try:
            form = await _form(request)
            if not self.guard.is_form(request.scope, form.get("mark", [""])[0]):
                return self._error(
                    around,
                    403,
                    "The form is not ours, or too old",
                    "Go back, load the page again, and retry.",
                )
            done = await run_in_threadpool(self._actions.perform, request.url.path, form)
            if isinstance(done, Drawn):
                return HTMLResponse(rendering.draw(done, **around))
            return RedirectResponse(done, status_code=303)
        except Exception as error:  # noqa: BLE001
            trouble = trouble_of(error, _log)
            return self._error(around, trouble.status, trouble.title, trouble.hint)

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in rendering.ASSETS:
            return Response(status_code=404)
        return Response(rendering.asset(name), media_type=rendering.ASSETS[name], headers=_KEPT)

    async def _health(self, _request: Request) -> Response:
        """200 while the database answers, else 503, for whoever restarts what does not work."""
        try:
            await run_in_threadpool(self._read, lambda _conn: None)  # lending checks it
        except Exception:  # noqa: BLE001
            return Response("the database does not answer\n", status_code=503, media_type="text/plain")
        return Response("ok\n", media_type="text/plain")

    async def _metrics(self, _request: Request) -> Response:
        """What is in the database, for Prometheus."""
        try:
            metrics.require()
            found = await run_in_threadpool(self._read, metrics.page_metrics)
        except Exception as error:  # noqa: BLE001
            trouble = trouble_of(error, _log)
            text = f"{trouble.title}\n{trouble.hint}\n"
            return Response(text, status_code=trouble.status, media_type="text/plain")
        return Response(found.body, headers={"Content-Type": found.content_type})

    async def _entrance(self, request: Request) -> Response:
        around = self._around(None, request)
        wrong = False
        if request.method == "POST":
            form = await _form(request)
            then = safe_way(form.get("then", ["/"])[0])
            admitted = self.guard.admitted(form.get("token", [""])[0].strip(), then)
            if admitted is not None:
                return admitted
            wrong = True
        else:
            then = safe_way(request.query_params.get("then", "/"))
        drawn = Drawn("enter.html", {}, {"then": then, "wrong": wrong})
        return HTMLResponse(rendering.draw(drawn, **around), status_code=403 if wrong else 200)


async def _form(request: Request) -> dict[str, list[str]]:
    """The fields of a form, each with its values."""
    from urllib.parse import parse_qs

    body = await request.body()
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=3000)
