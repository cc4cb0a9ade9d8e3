"""Driving the queue of baseline.sql: enqueue, then claim and complete by the batch until it is empty."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pgflow_mp.db import connection, engine, wire

BATCH = 500
SQL = Path(__file__).with_name("baseline.sql")


def install(dsn: str) -> engine.Connection:
    """A connection to a database that has the queue now."""
    conn = connection.connect(dsn)
    wire.adapt(conn)
    conn.execute("set search_path = public")  # our sessions have no schema to make things in
    conn.execute(SQL.read_text(encoding="utf-8").encode())
    return conn


def drain(conn: engine.Connection, items: Sequence[object]) -> float:
    """Seconds from enqueue until every item has its result."""
    began = time.perf_counter()
    conn.execute("select baseline_enqueue(%s)", (wire.RawJson(msgspec.json.encode(items)),))
    done = 0
    while rows := conn.execute("select * from baseline_claim(%s)", (BATCH,), binary=True).fetchall():
        ids, payloads = [row[0] for row in rows], [row[1] for row in rows]
        conn.execute("select baseline_complete(%s::bigint[], %s)", (ids, wire.RawJsonArray(payloads)))
        done += len(rows)
    seconds = time.perf_counter() - began
    if done != len(items):
        raise RuntimeError(f"{done} of {len(items)} items")
    conn.execute("truncate baseline_items")
    return seconds
