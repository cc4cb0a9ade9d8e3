"""Items out of Python's iterables, for runs that are started from Python: drawn and loaded page by page."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from typing import Any

from pgflow_mp.client import keyed_runs
from pgflow_mp.db import engine, loads, run_keys, schema
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.pausing import When
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.db.run_keys import Keyed
from pgflow_mp.errors import InputError
from pgflow_mp.flows import items as uses
from pgflow_mp.flows.flow import Flow
from pgflow_mp.io.iterables import Items
from pgflow_mp.io.source import SMALL
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


def input_pages(flow: Flow, input: Any, encoded: bytes) -> Iterator[loads.ItemPage] | None:
    """The input as pages to be loaded: a large list that maps in ranges run over and nothing else reads.

    So the database has it once, not as the run's input besides. ``encoded`` is the list as JSON. None: it is
    to be stored as one value.
    """
    if not isinstance(input, list | tuple) or not is_large(encoded) or encoded[:1] != b"[":
        return None
    maps = uses.root_maps(flow)
    if not maps or any(step.storage == "tasks" for step in maps) or uses.reads_whole_input(flow):
        return None
    return pages_of(input, len(encoded), nulls=flow.nulls)


def is_large(encoded: bytes) -> bool:
    """Whether an array, as JSON, is rather loaded than stored as one value."""
    return len(encoded) >= SMALL


def pages_of(items: Sequence[Any], size: int, *, nulls: bool = False) -> Iterator[loads.ItemPage]:
    """Pages of about as many elements; a list of ``items`` that is ``size`` bytes long as JSON."""
    count = min(loads.MOST_ITEMS, max(1, loads.PAGE_BYTES * len(items) // size))
    for first in range(0, len(items), count):
        yield from _halved(items[first : first + count], nulls)


def _halved(items: Sequence[Any], nulls: bool) -> Iterator[loads.ItemPage]:
    """Pages that are not much larger than one should be."""
    body = encode_input(items, nulls=nulls)
    if len(body) <= 2 * loads.PAGE_BYTES or len(items) == 1:
        yield len(items), body
        return
    middle = len(items) // 2
    yield from _halved(items[:middle], nulls)
    yield from _halved(items[middle:], nulls)


def load_for(
    dsn: str, flow: Flow, items: Any, run_id: str, mode: str, pages: Iterator[loads.ItemPage] | None = None
) -> None:
    """Load the items for a run of this id, unless there is such a run; ``mode`` is as of ``--compile``.

    ``pages``: these hold them.
    """
    with patient(dsn) as keeper:
        keeper.begin()
        if keeper.call(lambda conn: engine.get_run(conn, run_id)) is not None:
            return
        keeper.call(lambda conn: keyed_runs.ensure_flow(conn, flow, mode))
        if pages is not None:
            loads.load_pages(keeper, flow.slug, pages, run_id)
        else:
            loads.load(keeper, flow.slug, Items(items, nulls=flow.nulls).batches(), run_id)


def start_keyed(
    dsn: str,
    flow: Flow,
    key: str,
    items: Any,
    input: bytes,
    *,
    drawn: bool,
    priority: int,
    tags: Sequence[str] = (),
    mode: str,
) -> Keyed:
    """Start a run of the flow with this key, or find it, for :func:`pgflow_mp.run`.

    ``input`` is raw JSON; where the items are ``drawn``, it is what other steps read, and ``items`` are
    loaded. Raises InputError for a key whose run was given something else.
    """
    with patient(dsn) as keeper:
        keeper.begin()
        known = keeper.call(lambda conn: run_keys.holder(conn, flow.slug, key))
        if mode == "recreate" or known is None:
            keeper.call(lambda conn: keyed_runs.ensure_flow(conn, flow, mode))
        if drawn:
            return start_with(keeper, flow, items, input, str(uuid.uuid4()), priority, key, tags=tags)
        return keeper.call(
            lambda conn: keyed_runs.start_value(conn, flow.slug, input, key, priority=priority, tags=tags)
        )


def start_with(
    keeper: Keeper,
    flow: Flow | str,
    items: Any,
    params: bytes,
    run_id: str,
    priority: int,
    key: str | None = None,
    reuse: Reuse | None = None,
    *,
    tags: Sequence[str] = (),
    after: When | None = None,
) -> Keyed:
    """Load items, and start their run; one of this id, or key, that there is is answered as it is."""
    nulls = isinstance(flow, Flow) and flow.nulls
    slug = flow if isinstance(flow, str) else flow.slug
    batches = Items(items, nulls=nulls).batches()
    return keyed_runs.load_and_start(
        keeper,
        slug,
        batches,
        params,
        run_id,
        priority=priority,
        tags=tags,
        after=after,
        key=key,
        reuse=reuse,
    )


def patient(dsn: str) -> Keeper:
    """A keeper to load with, to a database that has our schema."""
    return loads.patient(dsn, prepare=schema.check)
