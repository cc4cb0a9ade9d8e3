"""The items of a step as JSONL, streamed: what ``results --with-input`` writes, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import records
from pgflow_mp.db.reads.records import Record
from pgflow_mp.db.shared_connections import SharedConnections
from pgflow_mp.web.questions import RUN, STEP, pattern, question
from pgflow_mp.web.views.run_page import known_run
from pgflow_mp.web.views.step_page import known_step

_FIELDS: Final = ("index", "status", "attempts", "input", "output", "error", "seconds")
_AT_ONCE: Final = 200
_PATH: Final = pattern(f"/runs/{RUN}/steps/{STEP}/items\\.jsonl")


async def download(path: str, query: str, connections: SharedConnections) -> Response | None:
    """The file that a path names; None for a path of another page. Raises what looking it up raises."""
    match = _PATH(path)
    if match is None:
        return None
    asked = question(path, match.groupdict(), query)

    def check() -> tuple[str, str]:
        with connections.lent() as conn:
            run = known_run(conn, asked)
            return run.run_id, known_step(run, asked.pieces["step"]).step_slug

    run_id, step = await run_in_threadpool(check)

    def lines() -> Iterator[bytes]:
        with connections.lent() as conn:
            yield from _lines(conn, run_id, step)

    name = f"{step}-{run_id[:8]}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


def _lines(conn: Connection, run_id: str, step: str) -> Iterator[bytes]:
    block: list[bytes] = []
    for record in records.iter_records(conn, run_id, step, inputs=True):
        block.append(line_of(record))
        if len(block) == _AT_ONCE:
            yield b"".join(block)
            block.clear()
    yield b"".join(block)


def line_of(record: Record) -> bytes:
    """An item as a line of JSON."""
    fields = b", ".join(b'"%s": %s' % (name.encode(), record[name] or b"null") for name in _FIELDS)
    return b"{" + fields + b"}\n"
