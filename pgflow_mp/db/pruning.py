"""Letting go of runs that ended long ago, a short transaction at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import WHICH_FLOWS, FlowNotFound

_WAIT: Final = 0.05  # seconds
_PATIENCE: Final = 60  # calls in a row that find nothing that is not locked


class Pruned(NamedTuple):
    """What one call did: runs that are gone, rows of what such runs left; ``done``: there is no more."""

    runs: int
    rows: int
    done: bool


def prune_some(conn: Connection, keep: float, flows: Sequence[str] | None = None) -> Pruned:
    """Let go of some of what ended more than ``keep`` seconds ago, of these flows or all that we may use.

    For the schema's owner, and with the access "operator".
    """
    row = conn.execute(
        "select runs, removed, is_done from pgflow.prune_runs(make_interval(secs => %s::float8), %s::text[])",
        (keep, None if flows is None else list(flows)),
    ).fetchone()
    return Pruned._make(row or (0, 0, True))


def prune(
    conn: Connection,
    keep: float,
    flows: Sequence[str] | None = None,
    *,
    progress: Callable[[Pruned], object] = lambda _so_far: None,
) -> Pruned:
    """Let go of all of it; ``progress`` hears what was removed so far, between transactions."""
    runs = rows = 0
    while not (some := prune_some(conn, keep, flows)).done:
        runs, rows = runs + some.runs, rows + some.rows
        progress(Pruned(runs, rows, False))
    return Pruned(runs, rows, True)


def may_prune(conn: Connection) -> bool:
    """Whether our role may."""
    row = conn.execute(
        "select has_function_privilege('pgflow.prune_runs(interval, text[], int)', 'execute')"
    ).fetchone()
    return row == (True,)


def remove_run(conn: Connection, run_id: str) -> None:
    """Let go of one run that has ended, and of all that is left of it; of one that is not there nothing is.

    What somebody keeps locked for seconds is left to whoever prunes next. For the schema's owner, and with
    the access "operator".
    """
    idle = 0
    while idle < _PATIENCE:
        row = conn.execute("select removed, is_done from pgflow.remove_run(%s::uuid)", (run_id,)).fetchone()
        if row is None or row[1]:
            return
        idle = 0 if row[0] else idle + 1
        if idle > 2:  # as many calls that remove nothing are about the run itself, and its end
            time.sleep(_WAIT)


def delete_flow(conn: Connection, slug: str) -> None:
    """Let go of a flow with all its runs, whether they have ended or not. For the schema's owner.

    Raises FlowNotFound.
    """
    known = conn.execute("select flow_slug from pgflow.flows where flow_slug = %s", (slug,)).fetchone()
    if known is None:
        raise FlowNotFound(f'There is no flow "{slug}" in this database', hint=WHICH_FLOWS)
    conn.execute("select pgflow.delete_flow_and_data(%s)", (slug,))
