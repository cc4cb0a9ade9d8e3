"""Items of a chunk that a handler of batches takes together, and the contexts of a chunk's items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import msgspec

from pgflow_mp.executors.endings import frame
from pgflow_mp.executors.execution import Runnable
from pgflow_mp.executors.messages import Chunk, Item, Kind, Outcome, RangeChunk, encode
from pgflow_mp.flows.batching import size_of
from pgflow_mp.flows.context import Context, Runtime


def task_context(chunk: Chunk, item: Item, input: bytes, runtime: Runtime) -> Context:
    """The context of an item of a Chunk."""
    return Context(
        run_id=chunk.runs[item.run],
        flow_slug=chunk.flow,
        step_slug=chunk.steps[item.step],
        task_index=item.index,
        attempt=item.attempt,
        msg_id=item.msg_id,
        raw_input=input,
        raw_flow_input=item.flow_input,
        runtime=runtime,
        paged=item.paged,
    ).enter()


def range_context(chunk: RangeChunk, position: int, input: bytes, runtime: Runtime) -> Context:
    """The context of an item of a RangeChunk: no message stands for it, and it is at its first attempt."""
    return Context(
        run_id=chunk.run,
        flow_slug=chunk.flow,
        step_slug=chunk.step,
        task_index=chunk.first_index + position,
        raw_input=input,
        runtime=runtime,
    ).enter()


class Bundle(ABC):
    """Items at positions ``first``..``end`` - 1 of a chunk: of one step and run, in batches of ``size``."""

    def __init__(self, step: Runnable, first: int, end: int, most: int, flow_input: bytes | None) -> None:
        self.step = step
        self.first = first
        self.end = end
        self.size = size_of(step, most)
        self.flow_input = flow_input

    def batches(self) -> list[tuple[int, int]]:
        """Their bounds, to be popped."""
        starts = range(self.first, self.end, self.size)
        return [(low, min(low + self.size, self.end)) for low in starts][::-1]

    @abstractmethod
    def inputs(self, low: int, high: int) -> Sequence[bytes | msgspec.Raw]: ...

    @abstractmethod
    def indexes(self, low: int, high: int) -> Sequence[int]: ...

    @abstractmethod
    def context(self, low: int, input: bytes) -> Context:
        """Of a batch: that of its first item, with the input of all."""

    @abstractmethod
    def ended(self, low: int, outcomes: Sequence[tuple[int, bytes]], seconds: float) -> bytes:
        """How items from ``low`` on ended, as a lane publishes it; all of them in ``seconds``."""

    @abstractmethod
    def not_run(self, low: int) -> bytes:
        """That items from ``low`` to the end did not run."""


class TaskBundle(Bundle):
    """Of a Chunk."""

    def __init__(self, chunk: Chunk, step: Runnable, first: int, end: int, runtime: Runtime) -> None:
        super().__init__(step, first, end, chunk.batch, chunk.items[first].flow_input)
        self._chunk = chunk
        self._runtime = runtime

    def inputs(self, low: int, high: int) -> Sequence[bytes | msgspec.Raw]:
        return [item.input for item in self._chunk.items[low:high]]

    def indexes(self, low: int, high: int) -> Sequence[int]:
        return [item.index for item in self._chunk.items[low:high]]

    def context(self, low: int, input: bytes) -> Context:
        return task_context(self._chunk, self._chunk.items[low], input, self._runtime)

    def outcomes(self, low: int, outcomes: Sequence[tuple[int, bytes]], seconds: float) -> Iterator[Outcome]:
        """As they are reported, each with its share of the time."""
        for position, (kind, body) in enumerate(outcomes, low):
            yield Outcome(position, kind, body, seconds / len(outcomes))

    def ended(self, low: int, outcomes: Sequence[tuple[int, bytes]], seconds: float) -> bytes:
        return b"".join(map(encode, self.outcomes(low, outcomes, seconds)))

    def not_run(self, low: int) -> bytes:
        return self.ended(low, [(Kind.NOT_RUN, b"")] * (self.end - low), 0.0)


class RangeBundle(Bundle):
    """All of a RangeChunk."""

    def __init__(
        self, chunk: RangeChunk, step: Runnable, elements: list[msgspec.Raw], runtime: Runtime
    ) -> None:
        super().__init__(step, 0, chunk.count, chunk.batch, None)
        self._chunk = chunk
        self._elements = elements
        self._runtime = runtime

    def inputs(self, low: int, high: int) -> Sequence[bytes | msgspec.Raw]:
        return self._elements[low:high]

    def indexes(self, low: int, high: int) -> Sequence[int]:
        first = self._chunk.first_index
        return range(first + low, first + high)

    def context(self, low: int, input: bytes) -> Context:
        return range_context(self._chunk, low, input, self._runtime)

    def ended(self, low: int, outcomes: Sequence[tuple[int, bytes]], seconds: float) -> bytes:
        return b"".join(
            body + b","
            if kind == Kind.COMPLETED
            else frame(Outcome(position, kind, body, seconds / len(outcomes)))
            for position, (kind, body) in enumerate(outcomes, low)
        )

    def not_run(self, low: int) -> bytes:
        return frame(Outcome(low, Kind.NOT_RUN, b"", 0.0))


def bounds_of(chunk: Chunk, batches: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, end) of stretches that run alike; ``batches`` are the batch sizes of the chunk's steps.

    Consecutive items of one step and run where that takes batches, else of all steps that do not.
    """
    if not any(batches):
        yield 0, chunk.size
        return
    first, last = 0, None
    for position, item in enumerate(chunk.items):
        key = (item.run, item.step) if batches[item.step] else None
        if position and key != last:
            yield first, position
            first = position
        last = key
    if chunk.items:
        yield first, chunk.size
