"""Items of a step that have ended, found while it runs without looking at those that have been seen.

Everybody with any access but "client" may, each of their flows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from pgflow_mp.db.engine import Connection

END: Final = 2**31 - 1
"""Behind the last index that there may be."""
_GAPS: Final = 1000
"""That one look names at most."""
_RAW: Final = msgspec.json.Decoder(list[msgspec.Raw])
_LOOK: Final = (
    "select first_index, items, status, attempts, inputs, outputs, error_message, started_at, finished_at, "
    "array(select lower(i) from unnest(indexes) i) as begins, array(select upper(i) from unnest(indexes) i) "
    "from pgflow.finished_items(%s::uuid, %s, %s::int4multirange, %s, %s::int, %s::bigint)"
)


class EndedItems(NamedTuple):
    """Items that ended alike from ``first_index`` on; ``outputs`` (and ``inputs``) are JSON arrays of theirs.

    ``spans`` are the (begin, end) of those that are meant: others of the arrays are to be left alone.
    """

    first_index: int
    status: str
    attempts: int
    inputs: bytes | None
    outputs: bytes
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None
    spans: tuple[tuple[int, int], ...]

    @property
    def seconds(self) -> float | None:
        """From when a worker took them to when they were recorded."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def items(self) -> Iterator[tuple[int, bytes | None, bytes]]:
        """(index, input, output) of each as raw JSON; no input where none was asked for."""
        outputs = _RAW.decode(self.outputs)
        inputs = None if self.inputs is None else _RAW.decode(self.inputs)
        for begin, end in self.spans:
            for at in range(begin - self.first_index, end - self.first_index):
                given = None if inputs is None else bytes(inputs[at])
                yield self.first_index + at, given, bytes(outputs[at])


class IndexSet:
    """Indexes, as few intervals as there are: (begin, end) with the end not in it."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._begins)

    def add(self, begin: int, end: int) -> None:
        """Add those from ``begin`` to ``end``."""
        first = bisect_left(self._ends, begin)  # touching ones become one
        last = bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
        self._begins[first:last] = [begin]
        self._ends[first:last] = [end]

    def missing(self, begin: int, end: int, most: int = _GAPS) -> list[tuple[int, int]]:
        """The intervals from ``begin`` to ``end`` that are not in it, ``most`` of them."""
        found: list[tuple[int, int]] = []
        at = bisect_right(self._ends, begin)
        while begin < end and len(found) < most:
            known, behind = (self._begins[at], self._ends[at]) if at < len(self._begins) else (end, end)
            if begin < known:
                found.append((begin, min(known, end)))
            begin = max(begin, behind)
            at += 1
        return found


def look(
    conn: Connection,
    run_id: str | UUID,
    step_slug: str,
    missing: list[tuple[int, int]],
    *,
    inputs: bool,
    rows: int = 5000,
    size: int = 1 << 20,
) -> tuple[list[EndedItems], int]:
    """What has ended in these intervals, in index order, and how far they were looked at.

    No more than ``rows`` tasks and ``size`` bytes are looked at. Spans may reach out of the intervals.
    """
    wanted = "{" + ",".join(f"[{begin},{end})" for begin, end in missing) + "}"
    answered = conn.execute(_LOOK, (str(run_id), step_slug, wanted, inputs, rows, size), binary=True)
    found: list[EndedItems] = []
    looked = 0
    spans: tuple[tuple[int, int], ...]
    for (
        first,
        items,
        status,
        attempts,
        inputs_of,
        outputs_of,
        error,
        started,
        ended,
        begins,
        ends,
    ) in answered:
        if status is None:
            looked = first
            continue
        if items is None:
            given = b"[" + (inputs_of or b"null") + b"]" if inputs else None
            output, spans = b"[" + (outputs_of or b"null") + b"]", ((first, first + 1),)
        else:
            given, output, spans = inputs_of, outputs_of, tuple(zip(begins, ends, strict=True))
        found.append(EndedItems(first, status, attempts, given, output, error, started, ended, spans))
    return found, looked
