"""Executes chunks in a lane's process, item by item, and publishes every outcome as it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Final

import msgspec

from pgflow_mp.executors.endings import frame
from pgflow_mp.executors.execution import Pages, Prepared, Runnable, error_text
from pgflow_mp.executors.lanes.slots import SlotFiles, SlotWriter
from pgflow_mp.executors.lanes.surroundings import Surroundings
from pgflow_mp.executors.messages import Chunk, Kind, Outcome, RangeChunk, Setup, decode_chunk, encode
from pgflow_mp.flows.context import Context, Runtime
from pgflow_mp.flows.flow import Flow

_CUT_OFF: Final = 4  # exit code
_NO_ROOM: Final = (MemoryError, OSError, ValueError)


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
        self._now_ns = now_ns  # taken before handlers can put another clock into the module
        self._runtime = Runtime(dsn=setup.dsn, worker_config=setup.worker_config, shutdown=slot)
        self._prepared = Prepared(flows)
        self._pages = Pages()
        self._is_copy = False
        os.register_at_fork(after_in_child=self._become_copy)

    def _become_copy(self) -> None:
        self._is_copy = True

    def run(self, ordinal: int, data: bytes) -> None:
        """Execute one chunk, item by item."""
        surroundings, slot = self._surroundings, self._slot
        chunk = decode_chunk(data)
        if not surroundings.begin_chunk():
            os._exit(_CUT_OFF)
        if isinstance(chunk, RangeChunk):
            elements = self._pages.elements(chunk)
            slot.begin(ordinal)
            self._run_range(ordinal, chunk, elements)
        else:
            slot.begin(ordinal)
            self._run_tasks(ordinal, chunk)
        slot.end()
        if not surroundings.connected:
            os._exit(_CUT_OFF)  # rather than write into what has our files' numbers now

    def _run_tasks(self, ordinal: int, chunk: Chunk) -> None:
        slot, runtime, now_ns = self._slot, self._runtime, self._now_ns
        surroundings = self._surroundings
        flow, runs, steps = chunk.flow, chunk.runs, chunk.steps
        executes = [self._prepared.of(flow, step).execute for step in steps]
        for position, item in enumerate(chunk.items):
            started = now_ns()
            slot.start(position, started)  # before the look at skipped: see LaneProcess.relieve
            if slot.skipped >= ordinal:
                slot.finish(encode(Outcome(position, Kind.NOT_RUN, b"", 0.0)))
                continue
            context = Context(
                run_id=runs[item.run],
                flow_slug=flow,
                step_slug=steps[item.step],
                task_index=item.index,
                attempt=item.attempt,
                msg_id=item.msg_id,
                raw_input=item.input,
                raw_flow_input=item.flow_input,
                runtime=runtime,
            )
            try:
                kind, body = copy_context().run(executes[item.step], item.input, item.flow_input, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                kind, body = Kind.FAILED, error_text(error).encode("utf-8", "backslashreplace")
            if self._is_copy:
                os._exit(0)  # a copy of this process, forked by the handler, that came back here
            seconds = (now_ns() - started) / 1e9
            fine = surroundings.after_item(seconds, failed=kind != Kind.COMPLETED)
            outcome = Outcome(position, kind, body, seconds)
            try:
                slot.finish(encode(outcome))
            except _NO_ROOM as error:
                slot.finish(encode(_no_room(outcome, error)))
            if not fine:
                os._exit(_CUT_OFF)

    def _run_range(self, ordinal: int, chunk: RangeChunk, elements: list[msgspec.Raw]) -> None:
        slot, now_ns, surroundings = self._slot, self._now_ns, self._surroundings
        step = self._prepared.of(chunk.flow, chunk.step)
        output, renew = step.output, step.wants_context
        context = self._context(chunk, 0, b"null")
        for position, element in enumerate(elements):
            started = now_ns()
            slot.start(position, started)
            if slot.skipped >= ordinal:
                rest = frame(Outcome(position, Kind.NOT_RUN, b"", 0.0))
                slot.finish(rest, chunk.count - position)
                return
            if renew:
                context = self._context(chunk, position, bytes(element))
            kind: int = Kind.COMPLETED
            try:
                body = copy_context().run(output, element, None, context)
            except BaseException as error:  # noqa: BLE001 - sys.exit(), KeyboardInterrupt and the like
                kind, body = _failure(step, error, chunk.first_index + position)
            if self._is_copy:
                os._exit(0)
            spent = now_ns() - started
            fine = surroundings.after_item(spent / 1e9, failed=kind != Kind.COMPLETED)
            try:
                if kind == Kind.COMPLETED:
                    slot.spend(spent)
                    slot.finish(body + b",")
                else:
                    slot.finish(frame(Outcome(position, kind, body, spent / 1e9)))
            except _NO_ROOM as error:
                slot.finish(frame(_no_room(Outcome(position, kind, body, spent / 1e9), error)))
            if not fine:
                os._exit(_CUT_OFF)

    def _context(self, chunk: RangeChunk, position: int, element: bytes) -> Context:
        return Context(
            run_id=chunk.run,
            flow_slug=chunk.flow,
            step_slug=chunk.step,
            task_index=chunk.first_index + position,
            raw_input=element,
            runtime=self._runtime,
        )


def _failure(step: Runnable, error: BaseException, index: int) -> tuple[int, bytes]:
    try:
        return step.failure(error, index)
    except BaseException as another:  # noqa: BLE001 - a signal's handler, whatever it raises
        return Kind.FAILED, error_text(another).encode("utf-8", "backslashreplace")


def _no_room(outcome: Outcome, error: Exception) -> Outcome:
    size = len(outcome.body)
    text = f"MemoryError: no room to hand over an output of {size} bytes ({error})"
    return Outcome(outcome.position, Kind.FAILED, text.encode(), outcome.seconds)
