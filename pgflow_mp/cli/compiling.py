"""Making the database know a flow before something is started of it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from pgflow_mp.errors import FlowNotFound

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.preflight import FlowFacts

logger = logging.getLogger("pgflow_mp")


def compile_flow(conn: psycopg.Connection[tuple[Any, ...]], flow: FlowFacts, how: str) -> None:
    """Create the flow in the database, or compare it and apply its options. Raises ShapeMismatch.

    A role that may start runs and no more takes the flow as it is stored.
    """
    from pgflow_mp.db import definitions

    if how == "skip":
        return
    result = definitions.ensure(conn, flow.slug, flow.shape, queue_mode=flow.queue_mode, how=how)
    if result.status == "stored":
        print(
            f"note: role {conn.info.user} may not compare flows; {flow.slug} is started as it is stored",
            file=sys.stderr,
        )
    if result.status == "mismatch":
        raise definitions.mismatch(
            flow.slug,
            result,
            hint="Give the changed flow a new slug, or delete the stored one and all its runs: "
            "--compile recreate.",
        )
    for note in result.notes:
        logger.info("flow %s: %s", flow.slug, note)


def check_known(
    conn: psycopg.Connection[tuple[Any, ...]], slug: str, missing: Exception | None, place: str
) -> None:
    """Raise FlowNotFound for a flow that the database does not know; ``missing``: why we do not."""
    import psycopg

    from pgflow_mp.db.reads import runs

    try:
        known = runs.known_flows(conn)
    except psycopg.errors.InsufficientPrivilege:  # starting will tell
        return
    if slug not in known:
        raise FlowNotFound(
            f'{missing}, and no flow "{slug}" in {place}',
            hint=f"Flows there: {', '.join(known)}." if known else getattr(missing, "hint", ""),
        )
