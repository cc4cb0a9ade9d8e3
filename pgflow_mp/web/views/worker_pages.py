"""Workers, and one of them with what its lanes do."""

from __future__ import annotations

from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import RunNotFound
from pgflow_mp.observe import read_reports
from pgflow_mp.web.questions import PageQuery
from pgflow_mp.web.rendering import Drawn

_MOST: Final = 1000


def workers(conn: Connection, asked: PageQuery) -> Drawn:
    """Those alive, or with ``all=1`` also those that were there lately."""
    everybody = asked.text("all") == "1"
    found = read_reports.read_workers(conn, alive_only=not everybody, limit=_MOST)
    values = {"workers": found, "everybody": everybody, "asked": asked}
    return Drawn("workers.html", {"workers": "parts/workers.html"}, values)


def worker(conn: Connection, asked: PageQuery) -> Drawn:
    """One of them, by any of its ids."""
    wanted = asked.pieces["worker"].lower()
    found = read_reports.read_worker(conn, wanted)
    if found is None:
        raise RunNotFound(
            f"There is no worker {wanted} in this database", hint="Workers that ended long ago are forgotten."
        )
    over = found.state in ("stopped", "dead")
    return Drawn("worker.html", {"worker": "parts/worker.html"}, {"worker": found, "asked": asked}, over=over)
