"""Trying failed items of a run again, tolerated ones, too, and computing again what followed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import WHY_NO_RUN, InputError, RunNotFound

_NO_RUN, _HOPELESS = "PF003", "PF007"
_TRIES: Final = 5
_RETRY: Final = (
    "select step_slug, status, retried, first_indexes, unfinished, recomputed, kept, most "
    "from pgflow.retry_items(%s::uuid, %s::text[], %s::int4multirange, %s::text[], %s)"
)
LAST: Final = 2**31 - 1
"""The first index that no item can have."""


class Choice(NamedTuple):
    """Which failed items: of these steps, with an index in these stretches [first, end), with such an error.

    An error is meant by any text that it contains. None: whatever it is.
    """

    steps: Sequence[str] | None = None
    indexes: Sequence[tuple[int, int]] | None = None
    errors: Sequence[str] | None = None

    @property
    def is_all(self) -> bool:
        """Whether all failed items are meant."""
        return self == (None, None, None)


class RetriedStep(NamedTuple):
    """What becomes of one step of a run. ``status`` is what it was before.

    ``retried`` failed items are tried again, ``first_indexes`` are the first ten of them, and ``unfinished``
    ones go on, since the run had failed or the step was skipped. ``recomputed``: how many items the step
    computes again from the beginning, 0 while that is not known, None if it does not. ``kept`` items failed
    and stay so, of which the step tolerates ``most``.
    """

    step: str
    status: str
    retried: int
    first_indexes: list[int]
    unfinished: int
    recomputed: int | None
    kept: int
    most: int

    @property
    def is_recomputed(self) -> bool:
        """Whether it is computed again from the beginning."""
        return self.recomputed is not None

    @property
    def fails_again(self) -> bool:
        """Whether it fails once the rest of it is done, since too many stay failed."""
        return self.kept > self.most


def retry_items(
    conn: Connection, run_id: str | UUID, choice: Choice, *, dry_run: bool = False
) -> list[RetriedStep]:
    """Do it, or tell what would be done; by step, in definition order, and nothing if there is nothing to do.

    Raises RunNotFound, and InputError if the run would fail again at once.
    """
    spans = None if choice.indexes is None else ",".join(f"[{first},{end})" for first, end in choice.indexes)
    arguments = (
        str(run_id),
        None if choice.steps is None else list(choice.steps),
        None if spans is None else "{" + spans + "}",
        None if choice.errors is None else list(choice.errors),
        dry_run,
    )
    for tries in range(1, _TRIES + 1):
        try:
            return [RetriedStep._make(row) for row in conn.execute(_RETRY, arguments).fetchall()]
        except psycopg.errors.DeadlockDetected:  # with a worker that extends its leases: nothing was done
            if tries == _TRIES:
                raise
        except psycopg.Error as error:
            text = error.diag.message_primary or str(error)
            if error.sqlstate == _NO_RUN:
                raise RunNotFound(text, hint=WHY_NO_RUN) from None
            if error.sqlstate == _HOPELESS:
                raise InputError(text, hint=error.diag.message_hint or "") from None
            raise
    raise AssertionError("unreachable")
