"""From the errors of a run's failed items to groups of those that are alike: streamed, in constant memory.

Counts are exact, however many failures and errors there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import msgspec

from pgflow_mp.db.engine import Connection, StepProgress
from pgflow_mp.db.reads import failed as reads
from pgflow_mp.db.reads import tasks
from pgflow_mp.db.reads.failed import FailedRow
from pgflow_mp.observe import glimpse
from pgflow_mp.observe.folding import ANYTHING, LONGEST, FailureKind, coarse, fold, kind_of
from pgflow_mp.observe.reports import FailedItem, FailureGroup, Fate, RunFailures
from pgflow_mp.observe.text import essence

MOST_PATTERNS: Final = 200
"""Of a step: further errors are told apart by their types only."""
_MOST_TYPES: Final = 100
EXAMPLES: Final = 3
"""Of a group, at most."""
SHOWN: Final = 20
"""Groups that have examples, unless more are asked for."""
_FATES: Final[tuple[Fate, ...]] = ("failed", "skipped", "tolerated")
"""What stopped something first."""
WHOLE: Final = 1 << 20
"""Bytes of an input that is told whole in JSON."""


@dataclass(slots=True)
class _Alike:
    """Errors of one pattern."""

    kind: FailureKind
    pattern: str
    error: str
    varies: bool = False
    items: int = 0
    indexes: list[int] = field(default_factory=list)


def read_failures(
    conn: Connection,
    run_id: str | UUID,
    steps: Iterable[StepProgress],
    *,
    step: str | None = None,
    text: str | None = None,
    groups: int = SHOWN,
    examples: int = EXAMPLES * SHOWN,
    whole: int = 0,
) -> RunFailures:
    """The failed items of a run, whose ``steps`` these are, or of one ``step`` of them.

    ``text``: only those whose error, or whose group's line, has it in it. The first so many ``groups`` share
    so many ``examples``, with inputs that are whole up to so many bytes.
    """
    found: list[tuple[StepProgress, _Alike]] = []
    for row in steps:
        if (step is None or row.step_slug == step) and may_have_failed(row):
            found += [(row, alike) for alike in _grouped(conn, run_id, row.step_slug, text)]
    found.sort(key=lambda pair: (_FATES.index(_fate(pair[0])), -pair[1].items, pair[1].indexes))
    each = max(1, min(EXAMPLES, examples // max(1, min(groups, len(found))))) if examples else 0
    places = [
        [(row.step_slug, index) for index in alike.indexes[:each]] if number < groups else []
        for number, (row, alike) in enumerate(found)
    ]
    items = {
        (item.step, item.index): item
        for item in items_at(conn, run_id, [place for some in places for place in some], whole)
    }
    told = [
        FailureGroup(
            step=row.step_slug,
            outcome=_fate(row),
            kind=alike.kind,
            error=alike.pattern if alike.varies else alike.error,
            pattern=alike.pattern,
            items=alike.items,
            examples=[items[place] for place in some if place in items],
        )
        for (row, alike), some in zip(found, places, strict=True)
    ]
    return RunFailures(failed=sum(group.items for group in told), groups=told)


def may_have_failed(step: StepProgress) -> bool:
    """Whether a step may have failed items: nothing is read of others."""
    return step.failed_tasks > 0 or (step.started_at is not None and step.status in ("failed", "skipped"))


def items_at(
    conn: Connection, run_id: str | UUID, places: Sequence[tuple[str, int]], whole: int = 0
) -> list[FailedItem]:
    """The failed items in these places (step, index), in this order; inputs whole up to so many bytes."""
    if not places:
        return []
    return [_item(row) for row in reads.failed_rows(conn, run_id, places, glimpse.MOST, whole)]


def earliest(
    conn: Connection, run_id: str | UUID, limit: int, whole: int = 0
) -> tuple[list[FailedItem], int]:
    """``limit`` failed items of a run, those that failed a step before others, and how many there are."""
    places, count = tasks.first_failed(conn, run_id, limit)
    return items_at(conn, run_id, places, whole), count


def iter_items(
    conn: Connection,
    run_id: str | UUID,
    steps: Iterable[StepProgress],
    *,
    step: str | None = None,
    text: str | None = None,
    whole: int = 0,
    start: int = 0,
) -> Iterator[FailedItem]:
    """All of what :func:`read_failures` has counted, by step in index order, however many.

    Of each step from index ``start`` on.
    """
    for row in steps:
        if (step is not None and row.step_slug != step) or not may_have_failed(row):
            continue
        for failed in reads.iter_failed_rows(conn, run_id, row.step_slug, glimpse.MOST, whole, start):
            if text is None or text in failed.error:
                yield _item(failed)
                continue
            line = _line(failed.error, row.step_slug, failed.task_index)
            if _has(text, line, fold(line)):
                yield _item(failed)


def _has(text: str | None, line: str, pattern: str) -> bool:
    """Whether a text is in an error's line as it is shown, whichever way."""
    return text is None or text in line or text in pattern or text in coarse(line)


def _item(row: FailedRow) -> FailedItem:
    whole = {} if row.input is None else {"raw_input": msgspec.Raw(row.input)}
    return FailedItem(
        step=row.step_slug,
        index=row.task_index,
        attempts=row.attempts,
        error=row.error,
        input_bytes=row.input_bytes,
        glimpse=row.glimpse,
        **whole,
    )


def _fate(step: StepProgress) -> Fate:
    return "failed" if step.status == "failed" else "skipped" if step.status == "skipped" else "tolerated"


def _line(error: str, step: str, index: int) -> str:
    return essence(error, LONGEST, beside=(step, index))


def _grouped(conn: Connection, run_id: str | UUID, step: str, text: str | None) -> Iterable[_Alike]:
    groups: dict[tuple[FailureKind, str], _Alike] = {}
    types: dict[tuple[FailureKind, str], _Alike] = {}
    for found in reads.failure_lines(conn, run_id, step, text):
        line, kind = _line(found.line, step, found.indexes[0]), kind_of(found.line)
        pattern = fold(line)
        if not found.holds and not _has(text, line, pattern):
            continue
        group = groups.get((kind, pattern))
        if group is None:
            if len(groups) < MOST_PATTERNS:
                group = groups[kind, pattern] = _Alike(kind, pattern, line)
            else:
                pattern = coarse(line) if len(types) < _MOST_TYPES else ANYTHING
                group = types.setdefault((kind, pattern), _Alike(kind, pattern, pattern))
        group.varies |= group.error != line
        group.items += found.items
        if len(group.indexes) < EXAMPLES or found.indexes[0] < group.indexes[-1]:
            group.indexes = sorted(group.indexes + found.indexes)[:EXAMPLES]
    return [*groups.values(), *types.values()]
