"""Runs whose rows somebody keeps locked: they wait, the others do not.

Whoever may cancel, retry or settle a run may do so in a transaction that it does not end. What is to be
recorded of that run has to wait for it, and would hold up all that comes after it.
"""

from __future__ import annotations

from typing import Final

from pgflow_mp.db.item_ranges import RangeCompletion, RangeFailure
from pgflow_mp.db.settling import Call, Completion
from pgflow_mp.worker.groups import AnyGroup, Group
from pgflow_mp.worker.range_groups import RangeFailures, RangeGroup, RangePart

PATIENCE: Final = 3.0  # seconds that a statement waits for a lock
_FIRST, _LONGEST = 1.0, 30.0  # seconds between two tries


class Locked:
    """When the runs are tried again whose locks were waited for in vain. Times are time.monotonic()."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[float, float]] = {}  # next try, pause

    def found(self, run: str, now: float) -> bool:
        """It was locked for longer than PATIENCE; True for the first time in a row."""
        _, pause = self._runs.get(run, (0.0, 0.0))
        longer = min(_LONGEST, 2 * pause) or _FIRST
        self._runs[run] = (now + longer, longer)
        return not pause

    def freed(self, run: str) -> None:
        """Something of it could be recorded."""
        if self._runs:
            self._runs.pop(run, None)

    def rest(self, run: str, now: float) -> float:
        """Seconds until it is tried again, 0 for most."""
        return max(0.0, self._runs[run][0] - now) if run in self._runs else 0.0

    def __bool__(self) -> bool:
        return bool(self._runs)


def runs_of(calls: list[Call]) -> list[list[Call]]:
    """The calls of each run apart."""
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.run_id, []).append(call)
    return list(found.values())


def as_group(call: Call) -> AnyGroup:
    """What a call was made of."""
    if isinstance(call, RangeCompletion):
        parts = [  # of which leases is not known here
            RangePart(0, lease_no, first, count, [output[1:-1]], len(output) - 2)
            for lease_no, first, count, output in zip(*call[3:], strict=True)
        ]
        return RangeGroup(*call[:3], parts)
    if isinstance(call, RangeFailure):
        bodies = [text.encode() for text in call.errors]
        return RangeFailures(
            *call[:3], list(call.lease_nos), list(call.indexes), bodies, list(call.permanent)
        )
    failures = not isinstance(call, Completion)
    bodies = call.outputs if isinstance(call, Completion) else [text.encode() for text in call.errors]
    permanent = [] if isinstance(call, Completion) else list(call.permanent)
    return Group(
        call.run_id,
        call.step_slug,
        call.worker_id,
        failures,
        list(call.indexes),
        list(call.attempts),
        list(bodies),
        permanent,
        list(call.msg_ids),
    )
