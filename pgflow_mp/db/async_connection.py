"""An asynchronous connection that listens; nothing else is done on it."""

from __future__ import annotations

from typing import Any

import psycopg

from pgflow_mp import libpq
from pgflow_mp.db.connection import APPLICATION_NAME, LIVENESS, parse


async def connect(dsn: str) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """Connect in autocommit mode. Raises psycopg.Error, ConfigError for an unusable connection string."""
    parameters = parse(dsn)
    options: dict[str, Any] = {**LIVENESS, "connect_timeout": 10, "client_encoding": "utf8"}
    given = {name: value for name, value in options.items() if parameters.get(name) is None}
    with libpq.hidden(parameters):
        return await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, prepare_threshold=None, fallback_application_name=APPLICATION_NAME, **given
        )
