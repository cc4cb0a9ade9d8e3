"""Limits of flows and steps: so many items at once, so many a second, over all workers (docs/limits.md)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import WHICH_FLOWS, FlowNotFound

_UNKNOWN: Final = "PF016"


class FlowLimit(NamedTuple):
    """The limits of a flow (``step_slug`` is None) or of a step of it; ``rate`` is a second's.

    ``is_set``: somebody has set them, over what the code says (``coded_``). ``held``: items in the hands of
    workers now, where they are counted.
    """

    flow_slug: str
    step_slug: str | None
    at_once: int | None
    rate: float | None
    burst: int | None
    is_set: bool
    coded_at_once: int | None
    coded_rate: float | None
    coded_burst: int | None
    held: int | None


def list_limits(conn: Connection, flow_slug: str | None = None) -> list[FlowLimit]:
    """Those of all flows or of one, by flow, its own before those of its steps."""
    rows = conn.execute(
        "select flow_slug, step_slug, at_once, rate, burst, is_set, coded_at_once, coded_rate, coded_burst, "
        "held from pgflow.list_limits(%s::text)",
        (flow_slug,),
    ).fetchall()
    return [FlowLimit._make(row) for row in rows]


def set_limit(
    conn: Connection,
    flow_slug: str,
    step_slug: str | None = None,
    *,
    at_once: int | None = None,
    rate: float | None = None,
    burst: int | None = None,
) -> None:
    """Set the limits of a flow or a step to these and no others. Raises FlowNotFound."""
    _call(
        conn,
        "select pgflow.set_limit(%s, %s, %s::int, %s::float8, %s::int)",
        (flow_slug, step_slug, at_once, rate, burst),
    )


def reset_limit(conn: Connection, flow_slug: str, step_slug: str | None = None) -> bool:
    """Go back to what the code says; whether others had been set. Raises FlowNotFound."""
    return cast(bool, _call(conn, "select pgflow.reset_limit(%s, %s)", (flow_slug, step_slug)))


def _call(conn: Connection, query: str, values: tuple[object, ...]) -> Any:
    try:
        row = conn.execute(query.encode(), values).fetchone()
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate == _UNKNOWN:
            raise FlowNotFound(str(error.diag.message_primary), hint=WHICH_FLOWS) from None
        raise
    return cast("tuple[Any, ...]", row)[0]
