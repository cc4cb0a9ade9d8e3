"""Opening the database that a command works with: the embedded one, or the one that was named."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pgflow_mp.cli.command_line import DatabaseChoice
from pgflow_mp.cli.parser import command
from pgflow_mp.errors import ConfigError, DatabaseError, DatabaseUnavailable, SchemaError

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.embedded.server import EmbeddedServer

T = TypeVar("T")
_OWN_CONNECTIONS: Final = 4  # claiming, settling, heartbeat, this command
_SPARE: Final = 20


@dataclass(frozen=True)
class OpenDatabase:
    """A database that is ready for use.

    ``place`` says where it is, without a password. ``options`` are what another command line needs to
    find it again.
    """

    dsn: str
    place: str
    server: EmbeddedServer | None
    options: list[str]

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection on which payloads are raw JSON; a server that is away for the moment is waited for."""
        from pgflow_mp.db import connection, wire

        conn = connection.connect_when_up(self.dsn)
        wire.adapt(conn)
        return conn

    def ask(self, work: Callable[[psycopg.Connection[tuple[Any, ...]]], T]) -> T:
        """What ``work`` returns, which may be done twice: where the server is lost, once it is back."""
        from pgflow_mp.db import keeper

        return keeper.ask(self.dsn, work, silence=math.inf)


def beside(server: EmbeddedServer | None) -> str | None:
    """Where artifacts are kept that go with the embedded server; None for another one."""
    return None if server is None else str(server.data_dir.parent / "artifacts")


def named_dsn(choice: DatabaseChoice) -> str | None:
    """The connection string that the options or the environment name; None: the embedded server."""
    from pgflow_mp.db.connection import discover_dsn

    return None if choice.data_dir_given else discover_dsn(choice.dsn)


def never_used(choice: DatabaseChoice) -> bool:
    """Whether it is an embedded server that does not exist yet; asking makes none."""
    from pgflow_mp.embedded.server import EmbeddedServer

    return named_dsn(choice) is None and not EmbeddedServer(choice.data_dir).data_dir.exists()


@contextlib.contextmanager
def open_database(
    choice: DatabaseChoice, *, workers: int | None = None, check: bool = True, writes: bool = True
) -> Iterator[OpenDatabase]:
    """The command's database, for the length of a ``with`` block.

    The embedded server is started and its schema installed. Elsewhere the schema has to be there
    (unless ``check`` is false). ``workers`` is the number of processes that may ask for connections.
    ``writes``: refuse a database in which nothing can be written. Raises DatabaseError, SchemaError.
    """
    dsn = named_dsn(choice)
    if dsn is None:
        with _embedded(choice, workers) as database:
            yield database
        return
    from pgflow_mp.db import fitness, schema

    place = describe(dsn)
    with connect(dsn, choice) as conn:
        if writes:
            fitness.check_writable(conn)
        if check:
            try:
                schema.check(conn)
            except SchemaError as error:
                raise _with_command(error, choice) from None
        if workers is not None:
            _check_connections(conn, workers, place)
    yield OpenDatabase(dsn, place, None, choice.options)


@contextlib.contextmanager
def dsn_while_open(choice: DatabaseChoice, workers: int | None) -> Iterator[str]:
    """The connection string of the command's database, for who wants it before the command opens that."""
    with open_database(choice, workers=workers, writes=False) as database:
        yield database.dsn


@contextlib.contextmanager
def _embedded(choice: DatabaseChoice, workers: int | None) -> Iterator[OpenDatabase]:
    from pgflow_mp.client.state import set_up
    from pgflow_mp.db import connection
    from pgflow_mp.embedded.parameters import MAX_CONNECTIONS
    from pgflow_mp.embedded.server import EmbeddedServer

    settings: dict[str, str] = {}
    if workers is not None and workers + _SPARE > MAX_CONNECTIONS:
        settings["max_connections"] = str(workers + _SPARE)
    server = EmbeddedServer(choice.data_dir, settings=settings)
    if not server.data_dir.exists():
        logging.getLogger("pgflow_mp").info("setting up the embedded PostgreSQL in %s", server.data_dir)
    if choice.quiet:
        logging.getLogger("pgflow_mp.embedded.lease").setLevel(logging.WARNING)
    with server:
        set_up(server)
        if workers is not None and server.attached:
            with connection.connect_when_up(server.dsn) as conn:
                _check_connections(conn, workers, "The embedded server")
        yield OpenDatabase(server.dsn, f"embedded PostgreSQL in {server.data_dir}", server, choice.options)


def connect(dsn: str, choice: DatabaseChoice) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect; a server that is starting is waited for, for up to a minute.

    An error says who named the server, unless the command line did.
    """
    from pgflow_mp.db import connection

    try:
        return connection.connect_when_up(dsn)
    except (DatabaseError, ConfigError) as error:
        if choice.dsn is None:
            error.hint = f"{error.hint}\nThis server is named by {source_of_dsn(choice)}.".lstrip()
        raise


def describe(dsn: str) -> str:
    """A server and its database in words, without secrets."""
    from pgflow_mp.db.connection import parse
    from pgflow_mp.db.connection_errors import location

    return f"PostgreSQL at {location(parse(dsn))}"


def source_of_dsn(choice: DatabaseChoice) -> str:
    """Which option or variable named the database."""
    from pgflow_mp.db.connection import DSN_VARIABLES

    if choice.dsn is not None:
        return "--dsn"
    found = [name for name in DSN_VARIABLES if os.environ.get(name, "").strip()]
    return found[0] if found else "the PG* variables"


def _with_command(error: SchemaError, choice: DatabaseChoice) -> SchemaError:
    for verb in ("install", "migrate"):
        if f"pgflow_mp {verb}" in error.hint:
            named = choice.dsn is not None
            source = "" if named else f"The database is named by {source_of_dsn(choice)}. "
            does = "Install it" if verb == "install" else "Upgrade it"
            return SchemaError(str(error), hint=f"{source}{does}: {command(verb, *choice.options)}")
    return error


def _check_connections(conn: psycopg.Connection[tuple[Any, ...]], workers: int, place: str) -> None:
    """Refuse to begin where the worker itself would run out of connections; warn for the handlers."""
    row = conn.execute(
        "select current_setting('max_connections')::int,"
        " current_setting('superuser_reserved_connections')::int"
        " + coalesce(current_setting('reserved_connections', true), '0')::int,"
        " (select coalesce(sum(numbackends), 0) - 1 from pg_catalog.pg_stat_database)::int"
    ).fetchone()
    limit, reserved, used = row or (0, 0, 0)
    free = limit - reserved - used
    if free < _OWN_CONNECTIONS:
        raise DatabaseUnavailable(
            f"{place} has {max(free, 0)} of its {limit} connections left (max_connections); "
            f"a worker needs {_OWN_CONNECTIONS}",
            hint="End idle clients or other workers, or raise max_connections at the server.",
        )
    if workers > free - _OWN_CONNECTIONS:
        logging.getLogger("pgflow_mp").warning(
            "%d workers, but the server has only %d connections left (max_connections = %d): "
            "steps that open one of their own (ctx.connect) may fail",
            workers,
            free - _OWN_CONNECTIONS,
            limit,
        )
