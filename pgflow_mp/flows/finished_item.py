"""An item that has ended, as whoever reads results sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal

import msgspec

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Input_co = TypeVar("Input_co", covariant=True, default=object)
    Output_co = TypeVar("Output_co", covariant=True, default=object)
else:
    from typing import TypeVar

    Input_co = TypeVar("Input_co", covariant=True)
    Output_co = TypeVar("Output_co", covariant=True)


class FinishedItem(msgspec.Struct, Generic[Input_co, Output_co], frozen=True):
    """One item of a step that has ended: ``status`` is "completed" or, for good, "failed".

    To type checkers it is a ``FinishedItem[Input, Output]``.
    ``output`` is None and ``error`` a text where it failed. ``seconds`` is from when a worker took it to when
    its result was recorded; of a map in ranges that is one time for the items of a page, which a worker took
    and recorded together.
    """

    index: int
    input: Input_co
    output: Output_co | None
    error: str | None
    seconds: float | None
    status: Literal["completed", "failed"]
    attempts: int
