"""What a run has returned, converted to what its flow's annotations say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.results import no_output, typed_leaf, typed_output


def one_output(conn: Connection, run_id: str, slug: str, read: Callable[[bytes], Any]) -> Any:
    """What one step of a completed run has returned, as ``read``. Raises RunFailed where it was skipped."""
    view = runs.run_view(conn, run_id)
    row = next((row for row in view[1] if row.step_slug == slug), None) if view else None
    if row is None or row.status != "completed":
        raise no_output(run_id, slug, None if row is None else row.skip_reason)
    return read(step_output(conn, run_id, slug, is_map=row.step_type == "map"))


def step_output(conn: Connection, run_id: str, slug: str, *, is_map: bool) -> bytes:
    """The raw output of a completed step, put together where it is too large for one document."""
    raw = documents.step_output(conn, run_id, slug)
    if raw is None and is_map:
        return b"[" + b",".join(documents.iter_map_output(conn, run_id, slug)) + b"]"
    return b"null" if raw is None else raw


def whole_output(dsn: str, flow: Flow, run_id: str) -> dict[str, object] | None:
    """The run's output, put together here where it is too large for one document in the database."""
    with Keeper(dsn) as keeper:
        conn = keeper.begin()
        leaves, raw = documents.leaves(conn, run_id), documents.run_output(conn, run_id)
        output = typed_output(flow, raw)
        for leaf in leaves:
            slug = leaf.step_slug
            if leaf.whole:
                continue
            output = {} if output is None else output
            output[slug] = typed_leaf(flow, slug, step_output(conn, run_id, slug, is_map=leaf.is_map))
    return output
