"""Executes chunks in a lane's process, item by item, and publishes every outcome as it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

import msgspec

from pgflow_mp.errors import OnStartFailed
from pgflow_mp.executors.bundles import (
    Bundle,
    RangeBundle,
    TaskBundle,
    bounds_of,
    range_context,
    task_context,
)
from pgflow_mp.executors.decoded_pages import Pages
from pgflow_mp.executors.endings import frame
from pgflow_mp.executors.execution import Execute, Prepared, Runnable, artifact_roots, error_text
from pgflow_mp.executors.lanes.slots import SlotFiles, SlotWriter
from pgflow_mp.executors.lanes.surroundings import LONG, Surroundings
from pgflow_mp.executors.messages import (
    Chunk,
    Kind,
    Outcome,
    RangeChunk,
    Setup,
    StartTrouble,
    decode_chunk,
    encode,
)
from pgflow_mp.flows.batching import halves, joined
from pgflow_mp.flows.context import Runtime
from pgflow_mp.flows.flow import Flow

_CUT_OFF: Final = 4  # exit code
_LONG: Final = int(LONG * 1e9)
NO_ROOM: Final = (MemoryError, OSError, ValueError)


class OwnSlot(SlotWriter):
    """Leaves a file alone that a handler has opened under the number of one of ours, which it closed."""

    def __init__(self, files: SlotFiles) -> None:
        super().__init__(files)
        self._identities = [os.fstat(file.fd)[1:3] for file in files.buffers]

    def _remap(self, buffer: int, size: int) -> None:
        if os.fstat(self._files[buffer].fd)[1:3] != self._identities[buffer]:
            raise OSError("a handler has closed the files of this process")
        super()._remap(buffer, size)


class Lane:
    """Executes chunks in this process."""

    def __init__(
        self,
        flows: dict[str, Flow],
        setup: Setup,
        slot: SlotWriter,
        surroundings: Surroundings,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._slot = slot
        self._surroundings = surroundings
        self._new_context = surroundings.contexts
        self._now_ns = now_ns  # taken before handlers can put another clock into the module
        self._runtime = Runtime(
            dsn=setup.dsn,
            worker_config=setup.worker_config,
            shutdown=slot,
            artifacts=artifact_roots(setup, flows),
        )
        self._prepared = Prepared(flows)
        self._pages = Pages()
        self._trouble: StartTrouble | None = None
        self._is_copy = False
        os.register_at_fork(after_in_child=self._become_copy)

    def _become_copy(self) -> None:
        self._is_copy = True

    def run(self, ordinal: int, data: bytes) -> StartTrouble | None:
        """Execute one chunk, item by item or batch by batch; none of it if its flow cannot be started."""
        slot = self._slot
        chunk = decode_chunk(data)
        if not self._surroundings.begin_chunk():
            os._exit(_CUT_OFF)
        if chunk.flow in self._prepared.waiting and self._trouble is None:
            self._start(chunk.flow)
        if self._trouble is not None:
            return self._trouble
        surroundings = self._surroundings
        if isinstance(chunk, RangeChunk):
            elements = self._pages.elements(chunk)
            slot.begin(ordinal)
            self._run_range(chunk, elements)
        else:
            slot.begin(ordinal)
            self._run_tasks(chunk)
        slot.end()
        if not surroundings.connected:
            os._exit(_CUT_OFF)  # rather than write into what has our files' numbers now
        return None

    def _start(self, flow: str) -> None:
        """Call its on_start functions. What they leave changed is what items find, each of them.

        After a failure this process runs nothing any more: it is to be replaced.
        """
        note = self._slot.start_note
        try:
            self._prepared.start(flow, lambda name: note.begin(flow, name, self._now_ns()))
        except OnStartFailed as error:
            self._trouble = StartTrouble(flow, str(error))
        if self._is_copy:
            os._exit(0)
        if not self._surroundings.connected:
            os._exit(_CUT_OFF)
        self._surroundings = self._surroundings.renewed()
        self._new_context = self._surroundings.contexts
        note.end(self._prepared.endings)

    def close(self) -> None:
        """The process ends: do what on_start functions have to do then."""
        if not self._is_copy:
            self._prepared.close()

    def _run_tasks(self, chunk: Chunk) -> None:
        steps = [self._prepared.of(chunk.flow, step) for step in chunk.steps]
        executes: list[Execute] = [step.execute for step in steps]
        for first, end in bounds_of(chunk, [step.batch for step in steps]):
            step = steps[chunk.items[first].step]
            if step.batch:
                self._run_batches(TaskBundle(chunk, step, first, end, self._runtime))
            else:
                self._run_single_tasks(chunk, first, end, executes)

    def _run_single_tasks(self, chunk: Chunk, first: int, end: int, executes: list[Execute]) -> None:
        slot, runtime, now_ns = self._slot, self._runtime, self._now_ns
        surroundings, new_context = self._surroundings, self._new_context
        for position, item in enumerate(chunk.items[first:end], first):
            started = now_ns()
            if not slot.start(position, started):
                slot.finish(encode(Outcome(position, Kind.NOT_RUN, b"", 0.0)))
                continue
            context = task_context(chunk, item, item.input, runtime)
            try:
                kind, body = new_context().run(executes[item.step], item.input, item.flow_input, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
            if self._is_copy:
                os._exit(0)  # a copy of this process, forked by the handler, that came back here
            seconds = (now_ns() - started) / 1e9
            fine = surroundings.after_item(seconds, kind != Kind.COMPLETED)
            outcome = Outcome(position, kind, body, seconds)
            try:
                slot.finish(encode(outcome))
            except NO_ROOM as error:
                slot.finish(encode(_no_room(outcome, error)))
            if not fine:
                os._exit(_CUT_OFF)

    def _run_range(self, chunk: RangeChunk, elements: list[msgspec.Raw]) -> None:
        slot, now_ns, surroundings = self._slot, self._now_ns, self._surroundings
        step = self._prepared.of(chunk.flow, chunk.step)
        if step.batch:
            self._run_batches(RangeBundle(chunk, step, elements, self._runtime))
            return
        output, renew = step.quick_output, step.wants_context
        start, complete, new_context = slot.start, slot.complete, self._new_context
        is_changed, tally = surroundings.is_changed, slot.tally
        context = range_context(chunk, 0, b"null", self._runtime)
        began = told = started = now_ns()  # less what items took that failed, so that spent is ended - began
        first = 0  # of those that are not in the tally yet, which began at told
        for position, element in enumerate(elements):
            if not start(position, started):
                slot.spend(started - began)
                tally.add(position - first, started - told)
                rest = frame(Outcome(position, Kind.NOT_RUN, b"", 0.0))
                slot.finish(rest, chunk.count - position)
                return
            if renew:
                context = range_context(chunk, position, bytes(element), self._runtime)
            try:
                body = new_context().run(output, element, None, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                if self._is_copy:
                    os._exit(0)
                seconds = (now_ns() - started) / 1e9
                kind, body = _failure(step, error, chunk.first_index + position)
                slot.spend(started - began)
                tally.add(position - first, started - told)
                self._publish_failure(Outcome(position, kind, body, seconds))
                is_changed, ended = surroundings.is_changed, now_ns()
                began += ended - started
                told = started = ended
                first = position + 1
                continue
            if self._is_copy:
                os._exit(0)
            ended = now_ns()
            try:
                changed = ended - started > _LONG or is_changed()
            except Exception:  # noqa: BLE001 - as in after_item
                changed = True
            fine = not changed or surroundings.after_item((ended - started) / 1e9, False)
            if changed or ended - told > _LONG:
                slot.spend(ended - began)
                if ended - started > _LONG:
                    tally.add(position - first, started - told)
                    tally.name(position, ended - started)
                else:
                    tally.add(position + 1 - first, ended - told)
                told, first = ended, position + 1
            try:
                complete(body)
            except NO_ROOM as error:
                failed = Outcome(position, Kind.FAILED, body, (ended - started) / 1e9)
                slot.finish(frame(_no_room(failed, error)))
            if not fine:
                os._exit(_CUT_OFF)
            started = ended
            if changed:
                is_changed, started = surroundings.is_changed, now_ns()
                began += started - ended
                told = started
        slot.spend(started - began)
        tally.add(chunk.count - first, started - told)

    def _publish_failure(self, outcome: Outcome) -> None:
        """Of an item of a range."""
        fine = self._surroundings.after_item(outcome.seconds, True)
        self._slot.finish(frame(outcome))
        if not fine:
            os._exit(_CUT_OFF)

    def _run_batches(self, bundle: Bundle) -> None:
        slot, now_ns = self._slot, self._now_ns
        outputs = bundle.step.outputs
        waiting = bundle.batches()
        total = 0
        while waiting:
            low, high = waiting.pop()
            slot.widen(high - low)
            started = now_ns()
            if not slot.start(low, started):
                slot.finish(bundle.not_run(low), bundle.end - low)
                break
            indexes = bundle.indexes(low, high)
            found: list[tuple[int, bytes]] = []
            try:
                input = joined(bundle.inputs(low, high))
                context = bundle.context(low, input)
                found = self._new_context().run(outputs, input, indexes, bundle.flow_input, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                if high - low == 1:
                    found = [_failure(bundle.step, error, indexes[0])]
            if self._is_copy:
                os._exit(0)
            spent = now_ns() - started
            completed = sum(kind == Kind.COMPLETED for kind, _ in found)
            fine = self._surroundings.after_item(spent / 1e9, completed < high - low)
            if found:
                total += spent * completed // len(found)
                slot.spend(total)
                if completed:
                    slot.tally.name(low, spent // len(found), completed)
                self._publish_batch(bundle, low, found, spent / 1e9)
            else:
                waiting += halves(low, high)
            if not fine:
                os._exit(_CUT_OFF)
        slot.widen(1)

    def _publish_batch(
        self, bundle: Bundle, low: int, found: list[tuple[int, bytes]], seconds: float
    ) -> None:
        try:
            self._slot.finish(bundle.ended(low, found, seconds), len(found))
        except NO_ROOM as error:
            failed = [(Kind.FAILED, _no_room_text(len(body), error)) for _, body in found]
            self._slot.finish(bundle.ended(low, failed, seconds), len(found))


def _failure(step: Runnable, error: BaseException, index: int) -> tuple[int, bytes]:
    try:
        return step.failure(error, index)
    except BaseException as another:  # noqa: BLE001 - a signal's handler, whatever it raises
        return Kind.FAILED, error_text(another).encode("utf-8", "backslashreplace")


def _no_room(outcome: Outcome, error: Exception) -> Outcome:
    text = _no_room_text(len(outcome.body), error)
    return Outcome(outcome.position, Kind.FAILED, text, outcome.seconds)


def _no_room_text(size: int, error: Exception) -> bytes:
    return f"MemoryError: no room to hand over an output of {size} bytes ({error})".encode()
