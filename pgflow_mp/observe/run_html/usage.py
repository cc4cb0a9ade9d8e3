"""From what lanes did to how many were in use, and how many items ended, over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from pgflow_mp.observe.drawings.trend import Curve
from pgflow_mp.observe.work_reports import SpanReport

PIECES: Final = 120
"""Points of a curve."""


class LaneUse(NamedTuple):
    """Curves over the seconds since the beginning; ``lanes`` there are known of; ``share`` (0..1) in use."""

    in_use: Curve
    items: Curve
    lanes: int
    share: float


def usage_of(spans: Sequence[SpanReport], begin: datetime, end: datetime) -> LaneUse:
    """Of a run that was worked on between ``begin`` and ``end``."""
    whole = max((end - begin).total_seconds(), 1e-3)
    width = whole / PIECES
    busy, ended = [0.0] * PIECES, [0.0] * PIECES
    for span in spans:
        first = max(0.0, (span.started_at - begin).total_seconds())
        last = min(whole, (span.ended_at - begin).total_seconds())
        long = max((span.ended_at - span.started_at).total_seconds(), 1e-6)
        for piece in range(min(PIECES - 1, int(first / width)), min(PIECES - 1, int(last / width)) + 1):
            inside = min(last, (piece + 1) * width) - max(first, piece * width)
            part = min(1.0, max(0.0, inside) / long)
            busy[piece] += part * min(span.seconds, long)
            ended[piece] += part * span.items
    lanes = len({(span.worker, span.lane) for span in spans})
    middle = [(piece + 0.5) * width for piece in range(PIECES)]
    return LaneUse(
        Curve("lanes in use", [(at, one / width) for at, one in zip(middle, busy, strict=True)]),
        Curve("items a second", [(at, one / width) for at, one in zip(middle, ended, strict=True)]),
        lanes,
        min(1.0, sum(busy) / (whole * lanes)) if lanes else 0.0,
    )
