"""Fixtures of the SQL tests: one transaction per test, with stand-ins for what only Supabase has."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from . import helpers
from .helpers import Db


@pytest.fixture
def db(tx: psycopg.Connection[Any]) -> Db:
    """A transaction that is rolled back, with ``realtime`` and the helper functions."""
    with tx.cursor() as cur:
        cur.execute("set local client_min_messages = warning")
        cur.execute((helpers.REALTIME + helpers.TEST_FUNCTIONS).encode())
    return Db(tx)


@pytest.fixture
def plain_db(tx: psycopg.Connection[Any]) -> Db:
    """A transaction that is rolled back, on plain PostgreSQL: no stand-ins for Supabase."""
    with tx.cursor() as cur:
        cur.execute("set local client_min_messages = warning")
        cur.execute(helpers.TEST_FUNCTIONS.encode())
    return Db(tx)


@pytest.fixture
def supabase_db(db: Db) -> Db:
    """As ``db``, with stand-ins for cron, net and vault too."""
    db.do(helpers.CRON + helpers.NET_AND_VAULT)
    return db
