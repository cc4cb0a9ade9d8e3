"""Giving a run the steps that came to its flow after it had been started."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import psycopg

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import WHY_NO_RUN, InputError, RunNotFound


def are_lacking(conn: Connection, run_id: str, slugs: Iterable[str]) -> bool:
    """Whether the run has not got all of these steps."""
    return not {row.step_slug for row in engine.run_progress(conn, run_id)}.issuperset(slugs)


def add(conn: Connection, run_id: str) -> list[str]:
    """Add the steps that the stored flow has and the run has not; which. It goes on if it had ended.

    In a failed run what failed is tried again, too. Raises RunNotFound, and InputError where a new step maps
    over what is not an array.
    """
    try:
        row = conn.execute("select pgflow.add_new_steps(%s::uuid)", (run_id,)).fetchone()
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate == "PF003":
            raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN) from None
        if error.sqlstate == "PF007":
            raise InputError(str(error.diag.message_primary), hint=error.diag.message_hint or "") from None
        raise
    return cast("list[str]", cast("tuple[Any, ...]", row)[0])
