"""serve: the web page, until it is stopped."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import TYPE_CHECKING

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import database_choice
from pgflow_mp.cli.parser import Parser, add_database
from pgflow_mp.errors import ConfigError
from pgflow_mp.installed import pip_install

if TYPE_CHECKING:
    from pgflow_mp.web.page_settings import PageSettings


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [OPTIONS]"
    parser.description = (
        "Serve a web page of what runs, waits and failed. By default it is read-only, and for this machine\n"
        "alone: http://127.0.0.1:8470/. Needs the extra web: pip install 'pgflow-mp[web]'"
    )
    parser.option(
        "--host",
        env="PGFLOW_WEB_HOST",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="where to listen (127.0.0.1); others get in by another one, and need a token",
    )
    parser.option(
        "--port",
        env="PGFLOW_WEB_PORT",
        metavar="N",
        default=8470,
        convert=converters.port,
        help="the port (8470); 0: any that is free",
    )
    parser.option(
        "--allow-actions",
        env="PGFLOW_WEB_ALLOW_ACTIONS",
        flag=True,
        default=False,
        help="let visitors with the token cancel, retry, pause, resume, drain, delete",
    )
    parser.option(
        "--token",
        env="PGFLOW_WEB_TOKEN",
        metavar="TOKEN",
        help="what visitors have to show, 16 characters or more; auto makes one and prints the link",
    )
    parser.option(
        "--without-token",
        env="PGFLOW_WEB_WITHOUT_TOKEN",
        flag=True,
        default=False,
        help="let everybody read who gets at the address",
    )
    parser.option(
        "--allowed-host",
        env="PGFLOW_WEB_ALLOWED_HOST",
        metavar="NAME",
        action="append",
        help="a name by which browsers may ask for the page, as behind a proxy; several times",
    )
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Serve it until Ctrl-C or SIGTERM."""
    from pgflow_mp.cli.connecting import open_database

    try:
        import jinja2
        import psycopg_pool
        import sse_starlette
        import starlette
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"serve needs {error.name}, which is not installed",
            hint=f"Install it: {pip_install('web')}",
        ) from None
    del jinja2, psycopg_pool, sse_starlette, starlette, uvicorn
    from pgflow_mp.web.page_settings import PageSettings

    given = args.allowed_host
    settings = PageSettings(
        host=args.host,
        port=args.port,
        allow_actions=args.allow_actions,
        token=args.token,
        without_token=args.without_token,
        allowed_hosts=tuple(given if isinstance(given, list) else given.split(",") if given else ()),
    ).checked()
    choice = database_choice(args)
    listening = _listen(settings)
    with listening, open_database(choice, writes=settings.allow_actions) as database:
        from dataclasses import replace

        place, options = database.place, tuple(database.options)
        settings = replace(settings, port=listening.getsockname()[1], place=place, options=options)
        return _serve(database.dsn, settings, listening)


def _listen(settings: PageSettings) -> socket.socket:
    """The socket, before anything is started for it. Raises ConfigError."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        where = f"{settings.host} port {settings.port}"
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"The page cannot listen at {where}: {reason}",
            hint="Give another --port, or --port 0 for any that is free.",
        ) from None
    return listening


def _serve(dsn: str, settings: PageSettings, listening: socket.socket) -> int:
    import asyncio

    from pgflow_mp.cli.complaints import INTERRUPTED, OK
    from pgflow_mp.web.http_server import serve
    from pgflow_mp.web.page_settings import url_of

    url = url_of(settings.host, settings.port)

    def ready() -> None:
        what = "cancel, retry and delete runs there" if settings.allow_actions else "look; it is read-only"
        link = url if settings.token is None else f"{url}enter?token={settings.token}"
        print(
            f"Serving {settings.place}\nOpen {link} to {what}. Ctrl-C ends it.", file=sys.stderr, flush=True
        )

    interrupted = asyncio.run(serve(dsn, settings, listening, ready))
    return INTERRUPTED if interrupted else OK
