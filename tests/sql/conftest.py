"""Fixtures of the SQL tests: one transaction per test, with stand-ins for what only Supabase has.

The connections live as long as the session, so that a thousand small tests need not open one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from . import helpers
from .helpers import Db

Begin = Callable[[str], psycopg.Connection[Any]]


@pytest.fixture(scope="session")
def _begin(server: Any, template: str) -> Iterator[Begin]:
    """Gives a connection to a database prepared by the given script; one of each, opened when needed."""
    with ExitStack() as stack:
        dsns: dict[str, str] = {}
        open_: dict[str, psycopg.Connection[Any]] = {}

        def begin(script: str) -> psycopg.Connection[Any]:
            if script not in dsns:
                dsns[script] = stack.enter_context(server.database(template))
                with psycopg.connect(dsns[script]) as conn:
                    conn.execute(script.encode())
            if script not in open_ or open_[script].closed:
                open_[script] = psycopg.connect(dsns[script], prepare_threshold=None)
            return open_[script]

        yield begin
        for conn in open_.values():
            conn.close()


def _transaction(conn: psycopg.Connection[Any]) -> Iterator[Db]:
    conn.execute("set local client_min_messages = warning")
    try:
        yield Db(conn)
    finally:
        if not conn.closed:
            conn.rollback()


@pytest.fixture
def db(_begin: Begin) -> Iterator[Db]:
    """A transaction that is rolled back, with ``realtime`` and the helper functions."""
    yield from _transaction(_begin(helpers.REALTIME + helpers.TEST_FUNCTIONS))


@pytest.fixture
def plain_db(_begin: Begin) -> Iterator[Db]:
    """A transaction that is rolled back, on plain PostgreSQL: no stand-ins for Supabase."""
    yield from _transaction(_begin(helpers.TEST_FUNCTIONS))


@pytest.fixture
def supabase_db(_begin: Begin) -> Iterator[Db]:
    """As ``db``, with stand-ins for cron, net and vault too."""
    scripts = (helpers.REALTIME, helpers.TEST_FUNCTIONS, helpers.CRON, helpers.NET_AND_VAULT)
    yield from _transaction(_begin("".join(scripts)))


@pytest.fixture
def alone(conn: psycopg.Connection[Any]) -> Db:
    """A database of its own in autocommit mode, where a lock is waited for half a second."""
    db = Db(conn)
    db.do(helpers.REALTIME + helpers.TEST_FUNCTIONS)
    db.do("set lock_timeout = '500ms'")
    return db


@pytest.fixture
def beside(dsn: str) -> Iterator[Db]:
    """A second session, whose transaction is rolled back."""
    with psycopg.connect(dsn) as conn:
        yield Db(conn)
        conn.rollback()
