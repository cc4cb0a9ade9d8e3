"""Items that failed for good: the lines of their errors page by page, and the items with their inputs.

Everybody with any access but "client" may, each of their flows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from pgflow_mp.db.engine import Connection

PAGE: Final = 5000
"""Failed items of which lines are read at once."""
_ITEMS: Final = 200
_WHOLE_ITEMS: Final = 20
"""Failed items that are read at once; each may have an error of 8 kB, and its whole input."""
_LINES: Final = """
with f as materialized (select * from pgflow.failure_lines(%s::uuid, %s, %s::int, %s::int, %s))
select line, holds, count(*)::int, (array_agg(task_index order by task_index))[:3],
  (select max(task_index) from f)
from f group by line, holds
"""
_COLUMNS: Final = "task_index, attempts, error_message, glimpse, input_bytes, input"


class FailureLine(NamedTuple):
    """A line that ``items`` errors of one page have; ``indexes`` are the first of them, in order.

    ``holds``: the text that was asked for is in the whole error.
    """

    line: str
    holds: bool
    items: int
    indexes: list[int]


class FailedRow(NamedTuple):
    """A failed item. ``glimpse`` is its input in one line, cut off; ``input`` (raw JSON) if asked for."""

    step_slug: str
    task_index: int
    attempts: int
    error: str
    glimpse: str | None
    input_bytes: int | None
    input: bytes | None


def failure_lines(
    conn: Connection, run_id: str | UUID, step_slug: str, containing: str | None = None
) -> Iterator[FailureLine]:
    """What the errors of a step's failed items say, page by page in index order: of those alike once."""
    start = 0
    while True:
        rows = conn.execute(_LINES, (str(run_id), step_slug, start, PAGE, containing)).fetchall()
        yield from (FailureLine._make(row[:4]) for row in rows)
        if sum(row[2] for row in rows) < PAGE:
            return
        start = rows[0][4] + 1


class FailedSince(NamedTuple):
    """An item that failed for good, and when; ``error`` is how its error begins."""

    step_slug: str
    task_index: int
    attempts: int
    failed_at: datetime
    error: str


def failed_since(
    conn: Connection, run_id: str | UUID, last: FailedSince | None = None, limit: int = 1000
) -> list[FailedSince]:
    """Failed items of a run in the order in which they failed: the first ones, or those after ``last``."""
    place = (None, None, None) if last is None else (last.failed_at, last.step_slug, last.task_index)
    rows = conn.execute(
        "select step_slug, task_index, attempts, failed_at, error "
        "from pgflow.failed_since(%s::uuid, %s::timestamptz, %s, %s::int, %s::int)",
        (str(run_id), *place, limit),
    ).fetchall()
    return [FailedSince._make(row) for row in rows]


def failed_rows(
    conn: Connection, run_id: str | UUID, places: Sequence[tuple[str, int]], chars: int, whole: int = 0
) -> list[FailedRow]:
    """Those of these items, by step and index, that have failed, in this order.

    Of inputs so many ``chars``, and the whole ones that are not larger than ``whole`` bytes.
    """
    rows = conn.execute(
        f"select p.step_slug, {_COLUMNS} "  # noqa: S608
        "from unnest(%s::text[], %s::int[]) with ordinality p (step_slug, place, n) "
        "cross join lateral pgflow.failed_items(%s::uuid, p.step_slug, p.place, 1, %s::int, %s::bigint) "
        "where task_index = p.place order by p.n",
        ([step for step, _ in places], [index for _, index in places], str(run_id), chars, whole),
        binary=True,
    ).fetchall()
    return [FailedRow._make(row) for row in rows]


def iter_failed_rows(
    conn: Connection, run_id: str | UUID, step_slug: str, chars: int, whole: int = 0, start: int = 0
) -> Iterator[FailedRow]:
    """All failed items of a step from index ``start`` on, page by page; else as :func:`failed_rows`."""
    count = _WHOLE_ITEMS if whole else _ITEMS
    while True:
        rows = conn.execute(
            f"select %s, {_COLUMNS} "  # noqa: S608
            "from pgflow.failed_items(%s::uuid, %s, %s::int, %s::int, %s::int, %s::bigint)",
            (step_slug, str(run_id), step_slug, start, count, chars, whole),
            binary=True,
        ).fetchall()
        yield from (FailedRow._make(row) for row in rows)
        if len(rows) < count:
            return
        start = rows[-1][1] + 1
