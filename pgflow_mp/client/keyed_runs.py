"""Starting runs so that it may be tried again: by an id, or by a key, a name among the runs of a flow.

With a key, what the run was given is compared by a digest. Items are read to their end for that, but loaded
only where nobody has the key yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import psycopg

from pgflow_mp.db import connection, definitions, engine, loads, patience, run_keys, run_tags
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.pausing import When
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.db.run_keys import Keyed
from pgflow_mp.db.starting import check_priority
from pgflow_mp.errors import InputError
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.shapes import definition
from pgflow_mp.io.digest import ItemsDigest, digest_of
from pgflow_mp.io.source import ElementBatch


def nothing_heard(_items: int) -> None:
    """Nobody wants to know how many there are."""


def check_name(key: str | None, run_id: str | None) -> None:
    """Raise InputError for what can be no key, and for one beside the id of a run."""
    if key is None:
        return
    run_keys.check_key(key)
    if run_id is not None:
        raise InputError(
            "key and run_id cannot be used together", hint="The run of a key has an id of its own."
        )


def ensure_flow(conn: Connection, flow: Flow, mode: str) -> None:
    """Create the flow, or compare it with the one that is stored; ``mode`` is as of ``--compile``.

    Raises ShapeMismatch and what definitions.ensure raises.
    """
    if mode == "skip":
        return
    shape = msgspec.json.encode(definition(flow))
    found = definitions.ensure(conn, flow.slug, shape, queue_mode=flow.queues, how=mode)
    if found.status == "mismatch":
        hint = "Give the changed flow a new slug, or compile='recreate'."
        raise definitions.mismatch(flow.slug, found, hint=hint)


def load_and_start(
    keeper: Keeper,
    slug: str,
    batches: Iterator[ElementBatch],
    params: bytes,
    run_id: str,
    *,
    priority: int = 0,
    tags: Sequence[str] = (),
    after: When | None = None,
    key: str | None = None,
    reuse: Reuse | None = None,
    progress: Callable[[int], Any] = nothing_heard,
) -> Keyed:
    """Load items and start their run, of this id or with this key, or find the one that there is.

    ``reuse``, of a run without a key, is what it takes from an earlier one.
    ``params`` are raw JSON, an object. Raises InputError for the id of a run of another flow, and for a key
    whose run was given something else; of what was loaded nothing stays then.
    """
    check_priority(priority)
    tags = run_tags.check_tags(tags)
    if key is not None:
        digest = ItemsDigest(params)
        passing = digest.passing(batches)
        known = keeper.call(lambda conn: run_keys.holder(conn, slug, key))
        if known is not None:
            count = 0
            for batch in passing:
                count += len(batch.elements)
                progress(count)
            if known.digest != digest.digest():
                raise run_keys.other_input(keeper.connection(), slug, key, known)
            return keeper.call(lambda conn: Keyed(_existing(conn, known.run_id), False))
        loads.load(keeper, slug, passing, run_id, progress=progress)
    else:
        run = keeper.call(lambda conn: engine.get_run(conn, run_id))
        if run is not None:
            if run.flow_slug != slug:
                raise InputError(
                    f'Run {run_id} is one of flow "{run.flow_slug}", not of "{slug}"',
                    hint="Give another run_id.",
                )
            return Keyed(run, False)
        loads.load(keeper, slug, batches, run_id, progress=progress)

    def start(conn: Connection) -> Keyed:
        patience.limit(conn, None)  # millions of items take their time
        if key is None:
            run = loads.start_loaded_once(
                conn, run_id, params, priority=priority, tags=tags, after=after, reuse=reuse
            )
            return Keyed(run, True)
        made = digest.digest()
        return run_keys.start_keyed_load(
            conn, slug, key, run_id, made, params, priority=priority, tags=tags, after=after
        )

    with contextlib.ExitStack() as undo:
        undo.callback(loads.drop_with, keeper, run_id)
        try:
            keyed = keeper.call(start)
        except psycopg.Error as error:
            if connection.is_transient(error):
                raise loads.unavailable(error) from error
            raise
        undo.pop_all()
    return keyed


def start_value(
    conn: Connection,
    slug: str,
    input: bytes,
    key: str,
    *,
    priority: int = 0,
    tags: Sequence[str] = (),
    after: When | None = None,
) -> Keyed:
    """Start a run with an input of one value, raw JSON, or find that of the key. Raises InputError."""
    check_priority(priority)
    tags = run_tags.check_tags(tags)
    patience.limit(conn, None)
    digest = digest_of(input)
    return run_keys.start_keyed(conn, slug, key, input, digest, priority=priority, tags=tags, after=after)


def _existing(conn: Connection, run_id: str) -> engine.RunRow:
    run = engine.get_run(conn, run_id)
    if run is None:
        raise InputError(f"Run {run_id} has been removed in the meantime", hint="Try it again.")
    return run
