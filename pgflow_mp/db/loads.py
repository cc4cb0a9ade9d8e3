"""Loading the items of a run page by page: nobody sees them until the run is started, whole and at once.

Pages go to the server in a pipeline: while it stores one, the next is read. A load that is given up is
dropped; one that is killed never runs, and the database drops it a day later, when somebody else loads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, cast

import psycopg

from pgflow_mp.db import connection, definitions, engine
from pgflow_mp.db.engine import Connection, RunRow
from pgflow_mp.db.keeper import first_line
from pgflow_mp.db.wire import Int4Array, RawJson, RawJsonArray
from pgflow_mp.errors import DatabaseUnavailable, FlowNotFound, InputError, RunNotFound

PAGE_BYTES: Final = 64_000
MOST_ITEMS: Final = 20_000
"""Of a page: of tiny elements there are not more."""
_AT_ONCE: Final = 4  # pages a call
_AHEAD: Final = 4  # calls under way before they are waited for: a transaction of about 1 MB

Elements = Sequence[object]
"""Raw JSON, as bytes or what is joined like them."""
Hears = Callable[[int], object]


class HasElements(Protocol):
    """Consecutive elements."""

    @property
    def elements(self) -> Elements: ...


def load(
    conn: Connection,
    flow_slug: str,
    batches: Iterator[HasElements],
    run_id: str,
    *,
    progress: Hears = lambda _items: None,
) -> int:
    """Store all elements for the run to come; how many they are. ``progress`` is told how many so far.

    Whatever is raised meanwhile, KeyboardInterrupt too, drops the load. Raises FlowNotFound, and InputError
    for a flow without a map over its input.
    """
    try:
        conn.execute("select pgflow.open_load(%s, %s::uuid)", (flow_slug, run_id))
    except psycopg.Error as error:
        raise _refused(conn, error, flow_slug) from error
    try:
        return _send(conn, run_id, batches, progress)
    except psycopg.Error as error:
        drop(conn, run_id)
        if connection.is_transient(error) or conn.broken:
            raise DatabaseUnavailable(
                f"the items could not be loaded: {first_line(error)}",
                hint="Nothing of them was started: load them anew.",
            ) from error
        raise InputError(f"The items cannot be loaded: {first_line(error)}") from error
    except BaseException:
        drop(conn, run_id)
        raise


def drop(conn: Connection, run_id: str) -> None:
    """Give a load up; where the database cannot be reached, it does that by itself after a day."""
    with contextlib.suppress(psycopg.Error, OSError):
        conn.execute("select pgflow.drop_load(%s::uuid)", (run_id,))


def start_loaded_once(conn: Connection, run_id: str, params: bytes, *, priority: int = 0) -> RunRow:
    """Start the run of a load, or find that it was started. ``params``: a JSON object. Raises InputError."""
    known = engine.get_run(conn, run_id)
    if known is None:
        try:
            conn.execute(
                "select pgflow.start_loaded_run(%s::uuid, %s, %s)", (run_id, RawJson(params), priority)
            )
        except psycopg.Error as error:
            if connection.is_transient(error):
                raise
            raise InputError(f"The run cannot be started: {first_line(error)}") from error
        known = engine.get_run(conn, run_id)
    if known is None:
        raise RunNotFound(f"Run not found: {run_id}")
    return known


def _send(conn: Connection, run_id: str, batches: Iterator[HasElements], progress: Hears) -> int:
    first = calls = 0
    group: list[tuple[int, int, bytes]] = []

    with conn.pipeline() as pipeline:

        def send() -> None:
            nonlocal calls
            firsts, counts, bodies = zip(*group, strict=True)
            conn.execute(
                "select pgflow.add_pages(%s::uuid, %s, %s, %s)",
                (run_id, Int4Array(firsts), Int4Array(counts), RawJsonArray(bodies)),
            )
            group.clear()
            calls += 1
            if calls % _AHEAD == 0:
                pipeline.sync()  # commits them, and raises what was refused
                progress(first)

        for count, body in _pages(batches):
            group.append((first, count, body))
            first += count
            if len(group) == _AT_ONCE:
                send()
        if group:
            send()
    progress(first)
    return first


def _pages(batches: Iterator[HasElements]) -> Iterator[tuple[int, bytes]]:
    """(items, JSON array) of about PAGE_BYTES out of batches of any size."""
    held: list[object] = []
    size = 0
    for batch in batches:
        for at in range(0, len(batch.elements), MOST_ITEMS):
            part = batch.elements[at : at + MOST_ITEMS]
            body = _join(part)
            if len(body) >= PAGE_BYTES // 2 and not held:
                yield from _cut(part, body)
                continue
            held += part
            size += len(body)
            if size >= PAGE_BYTES // 2 or len(held) >= MOST_ITEMS:
                yield from _cut(held, _join(held))
                held, size = [], 0
    if held:
        yield len(held), _join(held)


def _cut(elements: Elements, body: bytes) -> Iterator[tuple[int, bytes]]:
    if len(body) <= 2 * PAGE_BYTES or len(elements) == 1:
        yield len(elements), body
        return
    middle = len(elements) // 2
    for part in (elements[:middle], elements[middle:]):
        yield from _cut(part, _join(part))


def _join(elements: Elements) -> bytes:
    return b"[" + b",".join(cast("Sequence[bytes]", elements)) + b"]"


def _refused(conn: Connection, error: psycopg.Error, flow_slug: str) -> Exception:
    if connection.is_transient(error):
        return DatabaseUnavailable(f"the items could not be loaded: {first_line(error)}")
    if error.sqlstate == "PF006" and not definitions.queues(conn, flow_slug):
        return FlowNotFound(
            f"There is no flow '{flow_slug}' in the database",
            hint="Start a worker that serves it, or create it by hand: python -m pgflow_mp compile FLOW "
            "prints the SQL.",
        )
    hint = "Start it with its input as one value." if error.sqlstate == "PF006" else ""
    return InputError((error.diag.message_primary or first_line(error)).strip(), hint=hint)
