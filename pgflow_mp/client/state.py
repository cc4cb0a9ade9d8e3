"""The database in which the state lives: one that is named, the environment's, or the embedded server."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

from pgflow_mp import redaction
from pgflow_mp.db import connection, recovery, schema
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import ask
from pgflow_mp.db.public_errors import public_errors
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.run_request import StateDatabase


@contextlib.contextmanager
def open_state(dsn: str | None = None, data_dir: Path | str | None = None) -> Iterator[StateDatabase]:
    """The database to use: ``dsn``, else the environment's, else the embedded server, which ends with us.

    The embedded server gets the schema installed, and what a worker that was killed there held is
    freed at once: where we are the first to start the server, no other worker is alive. ``data_dir`` asks
    for the embedded server whatever the environment says.
    """
    found = connection.discover_dsn(dsn) if dsn is not None or data_dir is None else None
    if found is not None:
        yield StateDatabase(found, redaction.redact(found) or "the server of the libpq environment", None)
        return
    with EmbeddedServer(data_dir) as server:
        set_up(server)
        yield StateDatabase(server.dsn, f"embedded PostgreSQL in {server.data_dir}", server.data_dir)


def set_up(server: EmbeddedServer) -> None:
    """Install the schema, and free what workers held that are dead: no other is alive where we started it.

    Raises DatabaseError. A server that is lost meanwhile is waited for.
    """

    def work(conn: Connection) -> None:
        schema.install(conn)
        if not server.attached:
            recovery.free_tasks_of_all_workers(conn)

    with public_errors():
        ask(server.dsn, work, silence=math.inf)
