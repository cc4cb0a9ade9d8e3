"""Database roles for tests: one that was granted what ``pgflow.grant_access`` gives, and nothing else."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import psycopg
from psycopg.conninfo import make_conninfo

SECRET = "s3cret-0f-mine"


@contextlib.contextmanager
def role_with(dsn: str, access: str | None) -> Iterator[str]:
    """The connection string of a new role that has this access and nothing else; None: it may log in."""
    name = f"role_{access or 'nobody'}_{os.getpid()}_{time.time_ns()}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"create role {name} login password '{SECRET}'")
        if access is not None:
            conn.execute("select pgflow.grant_access(%s, %s)", (name, access))
        try:
            yield make_conninfo(dsn, user=name, password=SECRET)
        finally:
            conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (name,))
            conn.execute(f"drop owned by {name}")
            conn.execute(f"drop role {name}")
