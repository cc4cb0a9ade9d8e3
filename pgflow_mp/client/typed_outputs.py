"""What a run has returned, converted to what its flow's annotations say."""

from __future__ import annotations

from typing import Any

from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.reads import documents
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.results import typed_leaf, typed_output


def whole_output(dsn: str, flow: Flow, run_id: str) -> Any:
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
            if leaf.is_map:
                whole = b"[" + b",".join(documents.iter_map_output(conn, run_id, slug)) + b"]"
            else:
                whole = documents.step_output(conn, run_id, slug) or b"null"
            output[slug] = typed_leaf(flow, slug, whole)
    return output
