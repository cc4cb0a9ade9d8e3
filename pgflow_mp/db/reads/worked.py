"""How long a run was worked on: a night between an interruption and the resume is not its duration.

Everybody may ask; the answer needs rights on tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from pgflow_mp.db import rights
from pgflow_mp.db.engine import Connection

_SIGN = "interval '5 seconds'"  # a worker's signs of life come closer than that


class Span(NamedTuple):
    """When a worker of a flow was alive."""

    flow: str
    began: datetime
    ended: datetime


def worker_spans(conn: Connection, since: datetime) -> list[Span]:
    """Lives of workers that ended after ``since``; none where our role has no rights on the tables."""
    rows = rights.read(
        conn,
        lambda conn: conn.execute(
            "select queue_name, started_at, ended from pgflow.workers, lateral (select least("  # noqa: S608
            f"coalesce(stopped_at, clock_timestamp()), last_heartbeat_at + {_SIGN}) as ended) e "
            "where ended > %s order by started_at",
            (since,),
            binary=True,
        ).fetchall(),
        lambda conn: [],
    )
    return [Span(*row) for row in rows]


def seconds(spans: Iterable[Span], flow: str, began: datetime, ended: datetime) -> float:
    """How much of this time, in seconds, some worker of the flow was there; all of it where none is known.

    ``spans`` in the order of their beginnings. Workers that are gone from the database are not known: so is
    all of the time before the first of them.
    """
    known = [span for span in spans if span.flow == flow and span.began < ended and span.ended > began]
    if not known:
        return max(0.0, (ended - began).total_seconds())
    total, until = timedelta(), began
    for number, span in enumerate(known):
        first = began if not number else max(until, span.began)
        if span.ended > until:
            total += max(timedelta(), min(ended, span.ended) - first)
            until = max(until, span.ended)
    return total.total_seconds()
