"""Flows as the database has them: created, compared with the code, their options brought in line with it."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import psycopg

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.wire import RawJson

_NOT_THERE = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)


class Definition(NamedTuple):
    """A flow in the database: compiled, verified, recompiled or mismatch. ``notes`` are for the log."""

    status: str
    differences: list[str]
    notes: list[str]


def ensure(conn: Connection, flow_slug: str, shape: bytes, *, recreate: bool = False) -> Definition:
    """Create the flow, or compare its shape, and where that is the same take over the code's options."""
    status, differences = engine.ensure_flow_compiled(conn, flow_slug, shape, allow_data_loss=recreate)
    notes = _apply_options(conn, flow_slug, shape) if status == "verified" else []
    return Definition(status, differences, notes)


def stored_options(conn: Connection, flow_slug: str) -> list[tuple[str, int, int]]:
    """Slug, max_attempts and base_delay of each step; nothing where we may not ask, or without the flow."""
    try:
        return cast(
            "list[tuple[str, int, int]]",
            conn.execute(
                "select step_slug, max_attempts, base_delay from pgflow.flow_options(%s)", (flow_slug,)
            ).fetchall(),
        )
    except _NOT_THERE:
        return []


def _apply_options(conn: Connection, flow_slug: str, shape: bytes) -> list[str]:
    """Sentences about what changed."""
    try:
        row = conn.execute("select pgflow.apply_flow_options(%s, %s)", (flow_slug, RawJson(shape))).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return [f"its options stay as they are stored, role {conn.info.user} may not change them"]
    except psycopg.errors.UndefinedFunction:
        return [
            "its options stay as they are stored until the schema is upgraded: python -m pgflow_mp migrate"
        ]
    return cast("list[str]", cast("tuple[Any, ...]", row)[0])
