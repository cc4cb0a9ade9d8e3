"""What is started by the clock, when it is due next, and what became of the last time."""

from __future__ import annotations

from pgflow_mp.db import schedules as stored
from pgflow_mp.db.engine import Connection
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn


def schedules(conn: Connection, asked: PageQuery) -> Drawn:
    """All of them that our role may see."""
    values = {"schedules": stored.schedules(conn), "asked": asked}
    return Drawn("schedules.html", {"schedules": "parts/schedules.html"}, values)
