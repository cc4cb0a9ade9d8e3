"""Handlers that take a list of items at once (``batch=``): what they answer, item by item.

A batch that raises is run again in halves, down to single items: the exception of one that was alone is its
own. What is in the answer counts item by item: an exception, or Failed, is the failure of its item, and each
result is encoded by itself. An answer that is not a list of as many results fails all of them for good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from pgflow_mp.flows.context import Context
from pgflow_mp.values.encoding import OutputError, type_name
from pgflow_mp.values.foreign import elements
from pgflow_mp.values.frames import Unsupported


class WrongAnswer(OutputError):
    """A handler of batches returned something other than a list with a result for each item."""


class TakesBatches(Protocol):
    """``handlers.PreparedHandler`` of a step with ``batch``."""

    @property
    def batch(self) -> int: ...

    def outputs(
        self, input: bytes, indexes: Sequence[int], flow_input: bytes | None, ctx: Context
    ) -> list[tuple[int, bytes]]: ...

    def failure(self, error: BaseException, task_index: int) -> tuple[int, bytes]: ...


def joined(inputs: Sequence[bytes | msgspec.Raw]) -> bytes:
    """The JSON array of items, which is the input of their batch."""
    return b"[" + b",".join([bytes(input) for input in inputs]) + b"]"


def results_of(answer: Any, count: int) -> list[Any]:
    """An answer as a list of ``count`` results. Raises WrongAnswer, or what iterating raises."""
    found = answer
    if isinstance(found, Iterator | deque | tuple):
        found = list(found)
    elif (listed := _elements(found)) is not None:
        found = listed
    elif isinstance(found, Sequence) and not isinstance(found, str | bytes | bytearray | memoryview):
        found = list(found)
    hint = "Return a list with one result for each item, in order; Failed(error) stands for one that failed."
    if not isinstance(found, list):
        raise WrongAnswer(
            f"A batch of {count} was answered with a {type_name(answer)}, not a list", hint=hint
        )
    if len(found) != count:
        raise WrongAnswer(f"A batch of {count} was answered with {len(found)} results", hint=hint)
    return found


def _elements(answer: Any) -> list[Any] | None:
    try:
        return elements(answer)
    except Unsupported as error:
        raise WrongAnswer(str(error), hint=error.hint) from None


def run_batches(
    step: TakesBatches,
    inputs: Sequence[bytes | msgspec.Raw],
    indexes: Sequence[int],
    flow_input: bytes | None,
    context_of: Callable[[int, bytes], Context],
    *,
    size: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> list[tuple[int, bytes]]:
    """Run items in batches of ``size`` at most (0: what the step says): (kind, output or error text) of each.

    ``indexes`` are the items' task indexes, ``context_of(position, input)`` makes the context of a batch from
    its first item. Fewer outcomes than items where it was ``stopped`` in between.
    """
    size = size_of(step, size)
    outcomes: list[tuple[int, bytes]] = []
    waiting = [(low, min(low + size, len(inputs))) for low in range(0, len(inputs), size)][::-1]
    while waiting and not stopped():
        low, high = waiting.pop()
        input = joined(inputs[low:high])
        context = context_of(low, input)
        try:
            outcomes += step.outputs(input, indexes[low:high], flow_input, context)
        except BaseException as error:  # noqa: BLE001 - as of a handler of single items
            if high - low > 1:
                waiting += halves(low, high)
            else:
                outcomes.append(step.failure(error, indexes[low]))
    return outcomes


def size_of(step: TakesBatches, most: int) -> int:
    """Items in a batch: the step's own number, but no more than ``most`` unless that is 0."""
    return max(1, min(step.batch, most) if most else step.batch)


def halves(low: int, high: int) -> list[tuple[int, int]]:
    """What to run instead of a batch that raised: its halves, the first one last, to be popped."""
    middle = (low + high + 1) // 2
    return [(middle, high), (low, middle)]
