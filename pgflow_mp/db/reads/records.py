"""Items of a step with what went in and what came out, for whoever writes them to a file."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads.finished import EndedItems

_PAGE: Final = 500
"""Items that are fetched at once: each has its input and its output."""

Record = Mapping[str, bytes | None]
"""The item's own fields as raw JSON: index, status, attempts, input, output, error, seconds; null is None."""


def iter_records(
    conn: Connection,
    run_id: str | UUID,
    step_slug: str,
    *,
    inputs: bool,
    statuses: Sequence[str] | None = None,
) -> Generator[Record, None, None]:
    """The items of a step that have one of these ``statuses`` (None: all) in index order, as of one moment.

    The input is there if ``inputs`` are wanted. It is one transaction: who may leave early closes it first.
    """
    query = (
        "select item_index, status, attempts, case when %s::boolean then input end, output, error, "
        "started_at, coalesce(completed_at, failed_at) "
        "from pgflow.items where run_id = %s::uuid and step_slug = %s "
        "and (%s::text[] is null or status = any (%s::text[])) order by item_index"
    )
    wanted = None if statuses is None else list(statuses)
    with conn.transaction(), conn.cursor(name="pgflow_records", binary=True) as cursor:
        cursor.itersize = _PAGE
        for index, status, attempts, input, output, error, started, ended in cursor.execute(
            query, (inputs, str(run_id), step_slug, wanted, wanted)
        ):
            yield _record(index, status, attempts, input, output, error, started, ended)


def records_of(stretch: EndedItems) -> Iterator[Record]:
    """The same of items that have just ended."""
    for index, input, output in stretch.items():
        yield _record(
            index,
            stretch.status,
            stretch.attempts,
            input,
            output,
            stretch.error,
            stretch.started_at,
            stretch.finished_at,
        )


def _record(
    index: int,
    status: str,
    attempts: int,
    input: bytes | None,
    output: bytes | None,
    error: str | None,
    started: datetime | None,
    ended: datetime | None,
) -> Record:
    seconds = None if started is None or ended is None else (ended - started).total_seconds()
    return {
        "index": b"%d" % index,
        "status": b'"%s"' % status.encode(),
        "attempts": b"%d" % attempts,
        "input": input,
        "output": output,
        "error": None if error is None else msgspec.json.encode(error),
        "seconds": None if seconds is None else msgspec.json.encode(seconds),
    }
