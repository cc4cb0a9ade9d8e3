"""What a run has returned, converted to what its flow's annotations say."""

from __future__ import annotations

from typing import Any

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import ask
from pgflow_mp.db.reads import documents, runs
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.results import OutputReader, leaf_reader, no_output, typed_output


def one_output(conn: Connection, run_id: str, slug: str, reader: OutputReader) -> Any:
    """What one step of a completed run has returned, as ``reader`` reads it.

    Raises RunFailed where it was skipped.
    """
    view = runs.run_view(conn, run_id)
    row = next((row for row in view[1] if row.step_slug == slug), None) if view else None
    if row is None or row.status != "completed":
        raise no_output(run_id, slug, None if row is None else row.skip_reason)
    return _read(conn, run_id, slug, reader, is_map=row.step_type == "map")


def whole_output(dsn: str, flow: Flow, run_id: str) -> dict[str, object] | None:
    """The run's output, put together here where it is too large for one document in the database."""

    def read(conn: Connection) -> dict[str, object] | None:
        leaves, raw = documents.leaves(conn, run_id), documents.run_output(conn, run_id)
        output = typed_output(flow, raw)
        for leaf in leaves:
            slug = leaf.step_slug
            if leaf.whole:
                continue
            output = {} if output is None else output
            output[slug] = _read(conn, run_id, slug, leaf_reader(flow, slug), is_map=leaf.is_map)
        return output

    return ask(dsn, read)


def _read(conn: Connection, run_id: str, slug: str, reader: OutputReader, *, is_map: bool) -> Any:
    """What a completed step has returned; task by task where that is too large for one document."""
    raw = documents.step_output(conn, run_id, slug)
    if raw is None and is_map:
        return [reader.task(each) for each in documents.iter_map_output(conn, run_id, slug)]
    return reader.whole(b"null" if raw is None else raw)
