"""Inputs and outputs of runs, steps and tasks, as raw JSON: large, and read only when they are wanted.

Everybody with any access but "client" may, each of their flows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from pgflow_mp.db import rights
from pgflow_mp.db.engine import Connection

_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
PAGE_ROWS: Final = 5000
PAGE_BYTES: Final = 8 << 20
"""Of output in a page of results, as stored. A larger one is a page by itself."""
_ARRAY_BYTES: Final = 1 << 20
"""Of pages that are read at once, as stored."""


class Leaf(NamedTuple):
    """A completed step that nothing depends on; if not ``whole``, the run's output has no room for it."""

    step_slug: str
    is_map: bool
    whole: bool


def run_input(conn: Connection, run_id: str | UUID) -> bytes | None:
    """The run's input as raw JSON, an array where items were loaded as such; None for an unknown run."""
    row = conn.execute("select pgflow.run_input(%s::uuid)", (str(run_id),), binary=True).fetchone()
    return None if row is None else row[0]


def run_output(conn: Connection, run_id: str | UUID) -> bytes | None:
    """The run's output as raw JSON; None if it has none, or none that fits one document (see ``leaves``)."""
    return _payload(
        conn,
        "select output from pgflow.runs where run_id = %s::uuid",
        "select pgflow.run_output(%s::uuid)",
        str(run_id),
    )


def step_output(conn: Connection, run_id: str | UUID, step_slug: str) -> bytes | None:
    """The output of a step as raw JSON; None if it has none, or none that fits one document.

    The array of a map in ranges is put together for the answer.
    """
    row = conn.execute(
        "select pgflow.step_output(%s::uuid, %s)", (str(run_id), step_slug), binary=True
    ).fetchone()
    return None if row is None else row[0]


def beginning_of_output(
    conn: Connection, run_id: str | UUID, whole: int, otherwise: int
) -> tuple[int, str] | None:
    """Characters of the run's output, and its text if it is at most ``whole`` long, else how it begins."""
    row = conn.execute(
        "select length(t), left(t, case when length(t) <= %s then %s else %s end) "
        "from (select pgflow.run_output(%s::uuid)::text as t offset 0) o where t is not null",
        (whole, whole, otherwise, str(run_id)),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def leaves(conn: Connection, run_id: str | UUID) -> list[Leaf]:
    """What the run's output is made of, in definition order."""
    rows = conn.execute(
        "select step_slug, is_map, whole from pgflow.run_leaves(%s::uuid)", (str(run_id),)
    ).fetchall()
    return [Leaf._make(row) for row in rows]


def iter_tasks(
    conn: Connection, run_id: str | UUID, step_slug: str
) -> Iterator[tuple[int, str, bytes | None]]:
    """(Index, status, output as raw JSON) of a step's items in index order, page by page.

    Of a map in tasks that are not all spawned yet, those that are.
    """
    start, rows = 0, PAGE_ROWS
    while True:
        page = conn.execute(
            "select task_index, status, output "
            "from pgflow.run_results_page(%s::uuid, %s, %s::int, %s::int, %s::bigint)",
            (str(run_id), step_slug, start, rows, PAGE_BYTES),
            binary=True,
        ).fetchall()
        if not page:
            return
        yield from page
        start = page[-1][0] + 1
        rows = min(PAGE_ROWS, 4 * len(page) + 16)  # more would be looked at in vain where outputs are large


def iter_results(conn: Connection, run_id: str | UUID, step_slug: str) -> Iterator[tuple[int, bytes | None]]:
    """Outputs of a step's completed tasks as (task index, raw JSON) in index order, page by page."""
    for task_index, status, output in iter_tasks(conn, run_id, step_slug):
        if status == "completed":
            yield task_index, output


def iter_map_output(conn: Connection, run_id: str | UUID, step_slug: str) -> Iterator[bytes]:
    """The elements of a completed map's output as raw JSON: one an item, null for those that failed.

    They come as whole pages are stored, and no row is made of each: a microsecond an item, not seven.
    """
    start = 0
    while True:
        pieces = conn.execute(
            "select first_index, items, piece from pgflow.output_page(%s::uuid, %s, %s::int, %s::bigint)",
            (str(run_id), step_slug, start, _ARRAY_BYTES),
            binary=True,
        )
        body, first, items = bytearray(), 0, 0
        for first, items, piece in pieces:  # noqa: B007 - they are the same in all
            body += piece
        if not body:
            break
        yield from map(bytes, _ELEMENTS.decode(body)[start - first :])
        start = first + items
    if not start:  # the map is empty, or not completed
        for _, _, output in iter_tasks(conn, run_id, step_slug):
            yield output or b"null"


def iter_run_output(conn: Connection, run_id: str | UUID) -> Iterator[bytes]:
    """The output of a completed run, one document and a line's end, in pieces: it may fit no JSON value."""
    yield b"{"
    for number, leaf in enumerate(leaves(conn, run_id)):
        yield b", " * bool(number)
        yield f'"{leaf.step_slug}": '.encode()
        if not leaf.is_map:
            yield step_output(conn, run_id, leaf.step_slug) or b"null"
            continue
        before = b"["
        for item in iter_map_output(conn, run_id, leaf.step_slug):
            yield before + item
            before = b", "
        yield b"]" if before == b", " else b"[]"
    yield b"}\n"


def _payload(conn: Connection, from_table: str, by_function: str, run_id: str) -> bytes | None:
    def select(conn: Connection, query: str) -> tuple[Any, ...] | None:
        return conn.execute(query.encode(), (run_id,), binary=True).fetchone()

    row = rights.read(conn, lambda conn: select(conn, from_table), lambda conn: select(conn, by_function))
    return None if row is None else row[0]
