"""Items of a step with what went in and what came out, for whoever writes them to a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from pgflow_mp.db.engine import Connection

_PAGE: Final = 500
"""Items that are fetched at once: each has its input and its output."""


def iter_records(
    conn: Connection, run_id: str | UUID, step_slug: str, *, failed: bool, inputs: bool
) -> Iterator[bytes]:
    """An object (raw JSON) for each item of a step in index order, as of one moment.

    It has ``index``, ``status``, with ``inputs`` the item's ``input``, and ``output``; if only ``failed``
    ones are wanted ``attempts`` and ``error`` in its place. What is not there is null.
    """
    query = (
        "select item_index, status, attempts, case when %s::boolean then input end, output, error "
        "from pgflow.items where run_id = %s::uuid and step_slug = %s "
        "and (not %s::boolean or status = 'failed') order by item_index"
    )
    with conn.transaction(), conn.cursor(name="pgflow_records", binary=True) as cursor:
        cursor.itersize = _PAGE
        for index, status, attempts, input, output, error in cursor.execute(
            query, (inputs, str(run_id), step_slug, failed)
        ):
            fields = [b'{"index": %d, "status": %s' % (index, msgspec.json.encode(status))]
            if inputs:
                fields.append(b'"input": ' + (input or b"null"))
            if failed:
                fields.append(b'"attempts": %d, "error": %s' % (attempts, msgspec.json.encode(error)))
            else:
                fields.append(b'"output": %s, "error": %s' % (output or b"null", msgspec.json.encode(error)))
            yield b", ".join(fields) + b"}"
