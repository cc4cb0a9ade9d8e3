"""Runs that take finished work of an earlier one instead of doing it again."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.wire import RawJson


class Reuse(NamedTuple):
    """What is to be taken: these ``steps`` of ``source_run``, where their input is the same.

    ``reads_input`` says of each whether its function reads the run's input beside its own, which then has to
    be the same, too; None: nobody knows.
    """

    source_run: str
    steps: list[str]
    reads_input: list[bool | None]


class Reused(NamedTuple):
    """What was taken of a step: so many of its ``items``; None while it has not been looked for."""

    step_slug: str
    source_run: str
    taken: int | None
    items: int | None

    @property
    def text(self) -> str:
        """As a sentence without an end."""
        if self.taken is None:
            return f"step {self.step_slug} is looked for in run {self.source_run} when it starts"
        counted = f"{self.taken:,} of {self.items:,} items of step {self.step_slug}"
        return f"reused {counted} from run {self.source_run}"


def start(
    conn: Connection, flow_slug: str, input: bytes, run_id: str, reuse: Reuse, *, priority: int = 0
) -> None:
    """Start a run with this input (raw JSON)."""
    conn.execute(
        "select pgflow.start_run_from(%s, %s, %s::uuid, %s, %s::boolean[], %s::uuid, %s::int)",
        (flow_slug, RawJson(input), reuse.source_run, reuse.steps, reuse.reads_input, run_id, priority),
    )


def start_loaded(
    conn: Connection, run_id: str, params: bytes | None, reuse: Reuse, *, priority: int = 0
) -> None:
    """Start the run of a load."""
    given = None if params is None else RawJson(params)
    conn.execute(
        "select pgflow.start_loaded_run_from(%s::uuid, %s, %s::uuid, %s, %s::boolean[], %s::int)",
        (run_id, given, reuse.source_run, reuse.steps, reuse.reads_input, priority),
    )


def reused(conn: Connection, run_id: str) -> list[Reused]:
    """What a run has taken, and is to take; nothing where we may not ask."""
    try:
        rows = conn.execute(
            "select step_slug, source_run::text, taken, items from pgflow.run_reuses(%s::uuid)", (run_id,)
        ).fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction):
        return []
    return [Reused._make(row) for row in rows]
