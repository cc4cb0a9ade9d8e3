"""Reading with few rights: tables where the role may, else the functions that it was granted.

``pgflow.grant_access`` gives a role functions only (contract sql section 15). Tables are quicker, so a role
is asked once per process whether it may read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")

_restricted: set[tuple[str, str, int, str]] = set()


def read(
    conn: psycopg.Connection[Any],
    from_tables: Callable[[psycopg.Connection[Any]], T],
    by_functions: Callable[[psycopg.Connection[Any]], T],
) -> T:
    """What ``from_tables`` returns, or ``by_functions`` where the role may not read tables.

    The connection is in autocommit mode: a refused statement must not spoil a transaction.
    """
    who = (conn.info.user, conn.info.host, conn.info.port, conn.info.dbname)
    if who not in _restricted:
        try:
            return from_tables(conn)
        except psycopg.errors.InsufficientPrivilege:
            _restricted.add(who)
    return by_functions(conn)
