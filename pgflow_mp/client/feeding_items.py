"""Items out of Python's iterables, for runs that are started from Python: drawn and loaded page by page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, Iterator, Mapping
from typing import Any

import msgspec

from pgflow_mp.db import definitions, engine, loads, patience, schema
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.errors import InputError
from pgflow_mp.flows import items as uses
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.shapes import definition
from pgflow_mp.io.iterables import Items
from pgflow_mp.values.inputs import encode_input


def is_drawn(flow: Flow, input: Any, params: Mapping[str, Any] | None) -> bool:
    """Whether the input is to be loaded item by item: an iterator, over which a map of the flow runs.

    Not where other steps read the whole of it, unless there are ``params`` for them. Raises InputError for
    params that nobody would read, and for an async iterator that no map runs over.
    """
    has_map = bool(uses.root_maps(flow))
    if params is not None:
        if not has_map:
            raise InputError(
                f'params are for flows with a map over their input, and "{flow.slug}" has none',
                hint="Give its parameters as the input.",
            )
        return True
    drawn = has_map and not uses.reads_whole_input(flow)
    if isinstance(input, AsyncIterable) and not drawn:
        raise InputError(
            f'Flow "{flow.slug}" reads its input as one value, and an async iterator is none',
            hint="Give the other steps their own input with params={...}, or collect the items in a list.",
        )
    return drawn and isinstance(input, Iterator | AsyncIterable)


def load_for(dsn: str, flow: Flow, items: Any, run_id: str, mode: str) -> None:
    """Load the items for a run of this id, unless there is such a run; ``mode`` is as of ``--compile``."""
    with Keeper(dsn, prepare=schema.check) as keeper:
        conn = keeper.begin()
        if engine.get_run(conn, run_id) is not None:
            return
        if mode != "skip":
            shape = msgspec.json.encode(definition(flow))
            found = definitions.ensure(conn, flow.slug, shape, queue_mode=flow.queues, how=mode)
            if found.status == "mismatch":
                raise definitions.mismatch(
                    flow.slug, found, hint="Give the changed flow a new slug, or compile='recreate'."
                )
        loads.load(conn, flow.slug, Items(items).batches(), run_id)


def start_with(
    keeper: Keeper, slug: str, items: Any, params: Mapping[str, Any] | None, run_id: str, priority: int
) -> engine.RunRow:
    """Load items, and start their run; one of this id that was started before is answered as it is."""
    encoded = encode_input(params or {})
    conn = keeper.connection()
    known = engine.get_run(conn, run_id)
    if known is not None:
        if known.flow_slug != slug:
            raise InputError(f"Run {run_id} is one of flow '{known.flow_slug}', not of '{slug}'")
        return known
    loads.load(conn, slug, Items(items).batches(), run_id)
    with contextlib.ExitStack() as undo:
        undo.callback(loads.drop, conn, run_id)
        row = keeper.call(lambda conn: _start(conn, run_id, encoded, priority))
        undo.pop_all()
    return row


def _start(conn: engine.Connection, run_id: str, params: bytes, priority: int) -> engine.RunRow:
    patience.limit(conn, None)  # millions of items take their time
    return loads.start_loaded_once(conn, run_id, params, priority=priority)
