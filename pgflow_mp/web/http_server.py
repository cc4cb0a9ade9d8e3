"""Serving the page with uvicorn on a socket that is there already, until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Final

import uvicorn

from pgflow_mp.web.application import WebPage
from pgflow_mp.web.page_settings import PageSettings

_MOST_REQUESTS: Final = 300
_GRACE: Final = 1
"""Seconds that streams have to end when the page is stopped."""


async def serve(
    dsn: str, settings: PageSettings, listening: socket.socket, ready: Callable[[], None]
) -> bool:
    """Serve until SIGINT or SIGTERM; whether it was SIGINT. ``ready`` is called once browsers may come.

    A second signal ends it at once. Main thread only.
    """
    for name in ("uvicorn.error", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    page = WebPage(dsn, settings)
    server = uvicorn.Server(
        uvicorn.Config(
            page.guard,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            http="h11",
            limit_concurrency=_MOST_REQUESTS,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=16 << 10,
        )
    )
    heard: list[int] = []
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        heard.append(number)
        server.handle_exit(number, None)  # sse-starlette listens there, and ends its streams

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        serving = asyncio.ensure_future(server._serve(sockets=[listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await serving
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return heard[:1] == [signal.SIGINT]
