"""A chunk that runs in a process or thread of somebody else's: item by item, and what is known of them.

``execute`` runs it in one thread. Another one may ask meanwhile what is running, and take the answer: what
runs then is given up, and whatever comes of it is ignored.
"""

from __future__ import annotations

import functools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Final

from pgflow_mp.executors.bundles import Bundle, RangeBundle, TaskBundle, bounds_of, task_context
from pgflow_mp.executors.decoded_pages import Pages
from pgflow_mp.executors.endings import frame
from pgflow_mp.executors.execution import Prepared, Runnable, error_text
from pgflow_mp.executors.messages import Chunk, Kind, Outcome, RangeChunk, encode
from pgflow_mp.executors.tallies import Tally
from pgflow_mp.flows.batching import run_batches
from pgflow_mp.flows.context import Context, Runtime
from pgflow_mp.loading import reentry
from pgflow_mp.values import artifacts

LONGEST: Final = 1.0
"""Seconds after which a chunk begins no more items: they go to whoever is free."""


class BegunItems:
    """Items ``first``..``end`` - 1, which run together; of ``step``, since time.monotonic() was ``since``."""

    __slots__ = ("end", "first", "since", "step")

    def __init__(self, first: int, end: int, step: int) -> None:
        self.first, self.end, self.step = first, end, step
        self.since = time.monotonic()


class ChunkRun(ABC):
    """``stopped`` is asked before each item. Threads: execute() is one's, all else another's."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.running: BegunItems | None = None
        self.changed = threading.Event()
        """Set when it is over, or when somebody wants it to be."""
        self.over = False
        self.unwanted = False
        self._stopped = stopped
        self._lock = threading.Lock()
        self._taken = False
        self._until = time.monotonic() + LONGEST

    def execute(self) -> None:
        """Run it."""
        try:
            with reentry.executing():
                self._execute()
        finally:
            artifacts.leave()
            self.over = True
            self.changed.set()

    def give_up(self, error: str | None) -> tuple[bytes, tuple[int, int] | None]:
        """The outcomes of all, and what was being run (position, items), which is ignored from here on.

        An item that ran by itself is charged with ``error``, if there is one; what has not ended has not run.
        """
        with self._lock:
            self._taken = True
            running, failed = self.running, None
            if running is not None and running.end <= self._ended:
                running = None
            if error is not None and running is not None and self._is_single(running):
                body = error.encode("utf-8", "backslashreplace")
                failed = Outcome(running.first, Kind.FAILED, body, time.monotonic() - running.since)
            given_up = None if running is None else (running.first, running.end - running.first)
            return self._answer(failed), given_up

    def answer(self) -> bytes:
        """The outcomes of all, once it is over."""
        return self._answer(None)

    def _is_single(self, running: BegunItems) -> bool:
        return running.end - running.first == 1 and running.first == self._ended

    @property
    @abstractmethod
    def _ended(self) -> int:
        """Items whose outcomes are known: the first ones."""

    @abstractmethod
    def _execute(self) -> None: ...

    @abstractmethod
    def _answer(self, failed: Outcome | None) -> bytes: ...

    def _may_begin(self, at: int) -> bool:
        """Whether items from this position on are to be begun."""
        return not (self._taken or self._stopped() or (at and time.monotonic() > self._until))

    def _batches(self, bundle: Bundle, step: int) -> Iterator[tuple[int, list[tuple[int, bytes]], float]]:
        """Position, outcomes and seconds of each batch, as far as they are to be begun."""
        for low, high in reversed(bundle.batches()):
            if not self._may_begin(low):
                return
            started = time.perf_counter()
            found = run_batches(
                bundle.step,
                bundle.inputs(low, high),
                bundle.indexes(low, high),
                bundle.flow_input,
                functools.partial(self._begin_batch, bundle, step, low, high),
                size=bundle.size,
                stopped=lambda: self._taken or self._stopped(),
            )
            yield low, found, time.perf_counter() - started
            if len(found) < high - low:
                return

    def _begin_batch(self, bundle: Bundle, step: int, low: int, high: int, at: int, input: bytes) -> Context:
        self.running = BegunItems(low + at, high, step)
        return bundle.context(low + at, input)


class TaskRun(ChunkRun):
    """Of a Chunk."""

    def __init__(
        self, chunk: Chunk, prepared: Prepared, runtime: Runtime, stopped: Callable[[], bool]
    ) -> None:
        super().__init__(stopped)
        self._chunk = chunk
        self._steps = [prepared.of(chunk.flow, step) for step in chunk.steps]
        self._runtime = runtime
        self._outcomes: list[Outcome] = []

    def _execute(self) -> None:
        chunk, outcomes = self._chunk, self._outcomes
        for first, end in bounds_of(chunk, [step.batch for step in self._steps]):
            number = chunk.items[first].step
            step = self._steps[number]
            if step.batch:
                bundle = TaskBundle(chunk, step, first, end, self._runtime)
                for low, found, seconds in self._batches(bundle, number):
                    with self._lock:
                        if self._taken:
                            return
                        outcomes += bundle.outcomes(low, found, seconds)
            else:
                for item in chunk.items[first:end]:
                    if not self._may_begin(len(outcomes)):
                        break
                    self.running = BegunItems(len(outcomes), len(outcomes) + 1, item.step)
                    context = task_context(chunk, item, item.input, self._runtime)
                    ended = run_item(self._steps[item.step], item.input, item.flow_input, context)
                    with self._lock:
                        if self._taken:
                            return
                        outcomes.append(Outcome(len(outcomes), *ended))
            if len(outcomes) < end:
                return

    @property
    def _ended(self) -> int:
        return len(self._outcomes)

    def _answer(self, failed: Outcome | None) -> bytes:
        outcomes = [*self._outcomes, failed] if failed is not None else list(self._outcomes)
        outcomes += [Outcome(n, Kind.NOT_RUN, b"", 0.0) for n in range(len(outcomes), self._chunk.size)]
        return encode(outcomes)


class RangeRun(ChunkRun):
    """Of a RangeChunk."""

    def __init__(
        self,
        chunk: RangeChunk,
        prepared: Prepared,
        runtime: Runtime,
        stopped: Callable[[], bool],
        pages: Pages,
    ) -> None:
        super().__init__(stopped)
        self._chunk = chunk
        self._step = prepared.of(chunk.flow, chunk.step)
        self._elements = pages.elements(chunk)
        self._bundle = RangeBundle(chunk, self._step, self._elements, runtime)
        self._stream = bytearray()
        self._seconds, self._count = 0.0, 0
        self._tally = Tally()

    @property
    def _ended(self) -> int:
        return self._count

    def _execute(self) -> None:
        bundle, step = self._bundle, self._step
        if step.batch:
            for _, found, spent in self._batches(bundle, 0):
                if not self._add(found, spent):
                    return
        else:
            for position, element in enumerate(self._elements):
                if not self._may_begin(position):
                    break
                self.running = BegunItems(position, position + 1, 0)
                input = bytes(element)
                kind, body, spent = run_item(step, input, None, bundle.context(position, input))
                if not self._add([(kind, body)], spent):
                    return

    def _add(self, found: list[tuple[int, bytes]], spent: float) -> bool:
        with self._lock:
            if self._taken:
                return False
            if found:
                completed, share = sum(kind == Kind.COMPLETED for kind, _ in found), spent / len(found)
                self._stream += self._bundle.ended(self._count, found, spent)
                self._tally.name(self._count, share, completed)
                self._count += len(found)
                self._seconds += share * completed
            return True

    def _answer(self, failed: Outcome | None) -> bytes:
        stream, ended = bytes(self._stream), self._count
        if failed is not None:
            stream += frame(failed)
            ended += 1
        if ended < self._chunk.count:
            stream += self._bundle.not_run(ended)
        return encode((stream, self._seconds, self._tally.counts, self._tally.slowest))


def run_item(
    step: Runnable, input: bytes, flow_input: bytes | None, context: Context
) -> tuple[int, bytes, float]:
    """Kind, body and seconds of one item, whatever its handler does."""
    started = time.perf_counter()
    try:
        kind, body = step.execute(input, flow_input, context)
    except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
        kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
    return kind, body, time.perf_counter() - started
