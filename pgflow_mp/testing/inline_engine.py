"""The tasks of a run that is executed inline: attempts, retries, failures (contract sections 7 to 9)."""

from __future__ import annotations

import heapq
import itertools
import uuid
from collections.abc import Mapping
from typing import Any, Final

from pgflow_mp.flows.batching import halves, joined
from pgflow_mp.flows.context import Context, Runtime
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handlers import COMPLETED, FAILED, FAILED_FOR_GOOD, PreparedHandler, prepare
from pgflow_mp.flows.invocation import noting
from pgflow_mp.flows.steps import StepDefinition
from pgflow_mp.testing.clock import FakeClock
from pgflow_mp.testing.faults import SimulatedCrash, SimulatedTimeout
from pgflow_mp.testing.graph import NULL, Graph, InlineStep, json_type

_CRASH_BUDGET: Final = 2


class Engine(Graph):
    """Executes the tasks of one run, in the order in which they become due."""

    def __init__(
        self, flow: Flow, input: bytes, clock: FakeClock, runtime: Runtime, values: Mapping[str, Any]
    ) -> None:
        super().__init__(flow, input)
        self.clock = clock
        self._runtime = runtime
        self._values = values
        self._run_id = str(uuid.uuid4())
        self._prepared: dict[str, PreparedHandler] = {}
        self._calls: dict[str, Any] = {}
        self._queue: list[tuple[float, int, str, int]] = []
        self._order = itertools.count()
        self._parked: list[tuple[InlineStep, int, str]] = []
        self._crashes: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        self.advance()
        while self.failed is None:
            if self._queue:
                due, _, slug, index = heapq.heappop(self._queue)
                step = self.steps[slug]
                if step.status != "started":
                    continue
                if due > self.clock.time():
                    self.clock.sleep(due - self.clock.time())
                if step.definition.batch:
                    self._execute_batch(step, [index, *self._due_with_it(step)])
                else:
                    self._execute(step, index)
            elif self._parked:
                step, index, error = self._parked.pop(0)
                if step.status == "started":
                    self._fail(step, index, error, for_good=True)
            else:
                return

    # -- tasks -------------------------------------------------------------------------------------

    def _execute(self, step: InlineStep, index: int) -> None:
        raw = (step._inputs or [])[index]
        step.attempts[index] += 1
        raised: list[BaseException] = []
        handler = self._handler(step.definition, raised)
        kind, body = handler.execute(raw, self.input, self._context(step, index, raw))
        self._settle(step, index, kind, body, raised.pop() if raised else None)

    def _due_with_it(self, step: InlineStep) -> list[int]:
        """The tasks that are handed to the step's handler together with the one before them."""
        found: list[int] = []
        while self._queue and len(found) < step.definition.batch - 1:
            due, _, slug, index = self._queue[0]
            if slug != step.definition.slug or due > self.clock.time():
                break
            heapq.heappop(self._queue)
            found.append(index)
        return found

    def _execute_batch(self, step: InlineStep, indexes: list[int]) -> None:
        """As a lane does: in halves where it raises, until one item is alone."""
        handler = self._handler(step.definition, [])
        for index in indexes:
            step.attempts[index] += 1
        waiting = [(0, len(indexes))]
        while waiting and step.status == "started":
            low, high = waiting.pop()
            part, trouble = indexes[low:high], None
            raw = joined([(step._inputs or [])[index] for index in part])
            try:
                found = handler.outputs(raw, part, self.input, self._context(step, part[0], raw))
            except BaseException as error:  # noqa: BLE001 - sys.exit and the like, as of a single item
                if high - low > 1:
                    waiting += halves(low, high)
                    continue
                found, trouble = [handler.failure(error, part[0])], error
            for index, (kind, body) in zip(part, found, strict=True):
                if step.status == "started":
                    self._settle(step, index, kind, body, trouble)

    def _context(self, step: InlineStep, index: int, raw: bytes) -> Context:
        return Context(
            self._run_id,
            self.flow.slug,
            step.definition.slug,
            index,
            step.attempts[index],
            0,
            raw,
            self.input,
            self._runtime,
        ).enter()

    def _settle(
        self, step: InlineStep, index: int, kind: int, body: bytes, trouble: BaseException | None
    ) -> None:
        definition = step.definition
        if kind == COMPLETED:
            self._complete(step, index, body)
            return
        error = body.decode("utf-8", "replace")
        if isinstance(trouble, SimulatedTimeout):
            kind, error = FAILED, _timeout_text(definition, index, self._option(definition, "timeout", 60))
        elif isinstance(trouble, SimulatedCrash):
            kind, error = self._crash(step, index, str(trouble))
            if kind == FAILED_FOR_GOOD:  # recorded when all else is done, as a worker does
                self._parked.append((step, index, error))
                return
        self._fail(step, index, error, for_good=kind == FAILED_FOR_GOOD)

    def _handler(self, definition: StepDefinition, raised: list[BaseException]) -> PreparedHandler:
        """The step's handler, noting what it raises."""
        handler = self._prepared.get(definition.slug)
        if handler is None:
            handler = self._prepared[definition.slug] = prepare(self.flow, definition, self._values)
            self._calls[definition.slug] = handler.call
        handler.call = noting(self._calls[definition.slug], raised)
        return handler

    def _crash(self, step: InlineStep, index: int, how: str) -> tuple[int, str]:
        slug = step.definition.slug
        error = f'Crashed: step "{slug}" task {index}: its process died from {how} (simulated)'
        count = self._crashes[slug, index] = self._crashes.get((slug, index), 0) + 1
        last = self._option(step.definition, "max_attempts", 3)
        if count >= _CRASH_BUDGET:
            return FAILED_FOR_GOOD, f"quarantined after {count} crashes: {error}"
        if step.attempts[index] >= last:
            text = f"quarantined, its last attempt ({last} of {last}) crashed: {error}"
            return FAILED_FOR_GOOD, text
        return FAILED, error

    def _complete(self, step: InlineStep, index: int, body: bytes) -> None:
        definition = step.definition
        if definition.step_type == "single":
            starved = [child for child in self.children[definition.slug] if child._inputs is None]
            if starved and not body.startswith(b"["):
                self._type_violation(step, starved[0], body)
                return
        step.outputs[index] = body
        self._count_done(step)

    def _type_violation(self, step: InlineStep, child: InlineStep, body: bytes) -> None:
        produced, slug = json_type(body), step.definition.slug
        step.errors[0] = f"[TYPE_VIOLATION] Produced {produced} instead of array"
        step.failed.add(0)
        self.fail_run(
            step,
            f"[TYPE_VIOLATION] Map step {child.definition.slug} expects array input "
            f"but dependency {slug} produced {produced}",
        )

    def _fail(self, step: InlineStep, index: int, error: str, *, for_good: bool) -> None:
        definition = step.definition
        for_good = for_good or step.attempts[index] >= self._option(definition, "max_attempts", 3)
        step.errors[index] = error
        if for_good:
            step.failed.add(index)
        else:
            delay = self._option(definition, "base_delay", 5) * 2.0 ** step.attempts[index]
            self.enqueue(step, index, delay)
        if self._fails_alike(step):
            self.exhaust(step, error)
        elif for_good:
            tolerated = max(
                definition.policy.get("tolerated_failures", 0),
                int(definition.policy.get("tolerated_share", 0.0) * len(step.outputs)),
            )
            if len(step.failed) > tolerated:
                self.exhaust(step, error)
            else:
                self._count_done(step)

    @staticmethod
    def _fails_alike(step: InlineStep) -> bool:
        limit = step.definition.policy.get("stop_after_alike")
        if limit is None or any(output is not None for output in step.outputs):
            return False
        heads = {error.partition("\n")[0] for error in step.errors.values()}
        return len(step.errors) >= min(limit, len(step.outputs)) and len(heads) == 1

    def _count_done(self, step: InlineStep) -> None:
        done = sum(output is not None for output in step.outputs) + len(step.failed)
        if done < len(step.outputs):
            return
        if step.definition.step_type == "map":
            step.raw_output = b"[" + b",".join(output or NULL for output in step.outputs) + b"]"
        else:
            step.raw_output = step.outputs[0]
        self.completed(step)
        self.advance()

    def enqueue(self, step: InlineStep, index: int, delay: float) -> None:
        """A task is due after ``delay`` seconds."""
        due = self.clock.time() + delay
        heapq.heappush(self._queue, (due, next(self._order), step.definition.slug, index))

    def _option(self, definition: StepDefinition, name: str, default: int) -> int:
        return definition.options.get(name, self.flow.options.get(name, default))


def _timeout_text(definition: StepDefinition, index: int, timeout: float) -> str:
    from pgflow_mp.executors.verdicts import timeout_error

    return timeout_error(definition.slug, index, timeout)
