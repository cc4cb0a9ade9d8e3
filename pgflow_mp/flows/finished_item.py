"""An item that has ended, as whoever reads results sees it."""

from __future__ import annotations

from typing import Any

import msgspec


class FinishedItem(msgspec.Struct, frozen=True):
    """One item of a step that has ended: ``status`` is "completed" or, for good, "failed".

    ``output`` is None and ``error`` a text where it failed. ``seconds`` is from when a worker took it to when
    its result was recorded; of a map in ranges that is one time for the items of a page, which a worker took
    and recorded together.
    """

    index: int
    input: Any
    output: Any
    error: str | None
    seconds: float | None
    status: str
    attempts: int
