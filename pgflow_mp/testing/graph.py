"""The steps of a run that is executed inline: which start, complete, are skipped or fail (contract sections
5, 6 and 10), without their tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.steps import StepDefinition
from pgflow_mp.testing.patterns import contains
from pgflow_mp.values.json_values import Json

Status = Literal["created", "started", "completed", "failed", "skipped"]
NULL: Final = b"null"


@dataclass
class InlineStep:
    """What became of a step. ``outputs`` are raw JSON by task index, None where a task has not completed."""

    definition: StepDefinition
    status: Status = "created"
    outputs: list[bytes | None] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    """The last error of each task that failed at least once."""
    failed: set[int] = field(default_factory=set)
    """Tasks that failed for good."""
    attempts: list[int] = field(default_factory=list)
    error: str | None = None
    skip_reason: str | None = None
    raw_output: bytes | None = None
    _waits_for: int = 0
    _inputs: list[bytes] | None = None

    @property
    def output(self) -> Json:
        """The step's output, an array for a map; None unless it is completed."""
        return None if self.raw_output is None else msgspec.json.decode(self.raw_output)


class Graph:
    """The steps of one run on ``input`` (raw JSON). ``failed`` is the step that has failed it."""

    def __init__(self, flow: Flow, input: bytes) -> None:
        self.flow = flow
        self.input = input
        self.failed: InlineStep | None = None
        self.steps = {slug: InlineStep(step) for slug, step in flow.steps.items()}
        self.children: dict[str, list[InlineStep]] = {slug: [] for slug in self.steps}
        for step in self.steps.values():
            step._waits_for = len(step.definition.dependencies)
            for parent in step.definition.dependencies:
                self.children[parent].append(step)
            if step.definition.step_type == "single":
                step._inputs = [b"{}"]
            elif not step.definition.dependencies:
                step._inputs = self._elements(input)

    def enqueue(self, step: InlineStep, index: int, delay: float) -> None:
        """A task is to be executed after ``delay`` seconds."""
        raise NotImplementedError

    def output(self) -> bytes | None:
        """The run's output; None if no leaf has completed."""
        leaves = [step for slug, step in self.steps.items() if not self.children[slug]]
        done = {
            step.definition.slug: step.raw_output or NULL for step in leaves if step.status == "completed"
        }
        return _as_object(done) if done else None

    # -- steps -------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Conditions and empty maps until neither changes anything, then the steps that are ready."""
        changed = True
        while changed:
            if not self._resolve_conditions():
                return
            changed = self._complete_taskless()
        for step in self.steps.values():
            if self._is_ready(step):
                tasks = len(step._inputs or ())
                step.status = "started"
                step.outputs, step.attempts = [None] * tasks, [0] * tasks
                if step.definition.step_type == "single" and step.definition.dependencies:
                    step._inputs = [self._parents(step.definition)]
                delay = step.definition.options.get("start_delay", 0)
                for index in range(tasks):
                    self.enqueue(step, index, delay)

    def _resolve_conditions(self) -> bool:
        while True:
            unmet = [step for step in self.steps.values() if self._is_ready(step) and not self._met(step)]
            modes = [(step, step.definition.when_unmet or "skip") for step in unmet]
            for step, mode in modes:
                if mode == "fail":
                    self.fail_run(step, "Condition not met")
                    return False
            for step, mode in modes:
                if mode == "skip":
                    self._skip(step, "condition_unmet")
            for step, mode in modes:
                if mode == "skip-cascade":
                    self._skip_cascade(step, "condition_unmet")
            if not any(mode == "skip" for _, mode in modes):
                return True

    def _complete_taskless(self) -> bool:
        empty = [
            step
            for step in self.steps.values()
            if self._is_ready(step) and not step._inputs and self._met(step)
        ]
        for step in empty:
            step.raw_output = b"[]"
            self.completed(step)
        return bool(empty)

    def completed(self, step: InlineStep) -> None:
        step.status = "completed"
        for child in self.children[step.definition.slug]:
            child._waits_for -= 1
            if child._inputs is None:
                child._inputs = self._elements(step.raw_output or NULL)

    def exhaust(self, step: InlineStep, error: str) -> None:
        """A task of the step has failed for good, and one too many."""
        mode = step.definition.when_exhausted or "fail"
        if mode == "fail":
            self.fail_run(step, error)
            return
        step.error = error
        if mode == "skip":
            self._skip(step, "handler_failed")
        else:
            self._skip_cascade(step, "handler_failed")
        self.advance()

    def _skip(self, step: InlineStep, reason: str) -> None:
        step.status, step.skip_reason = "skipped", reason
        for child in self.children[step.definition.slug]:
            child._waits_for -= 1
            if child.definition.step_type == "map":
                child._inputs = []

    def _skip_cascade(self, step: InlineStep, reason: str) -> None:
        waiting, seen = [(step, reason)], {id(step)}
        while waiting:
            current, why = waiting.pop()
            if current.status in ("created", "started"):
                current.status, current.skip_reason = "skipped", why
            for child in self.children[current.definition.slug]:
                if id(child) not in seen:
                    seen.add(id(child))
                    waiting.append((child, "dependency_skipped"))

    def fail_run(self, step: InlineStep, error: str) -> None:
        step.status, step.error = "failed", error
        self.failed = step

    # -- small things ------------------------------------------------------------------------------

    def _is_ready(self, step: InlineStep) -> bool:
        return step.status == "created" and step._waits_for == 0

    def _met(self, step: InlineStep) -> bool:
        definition = step.definition
        if definition.when is None and definition.unless is None:
            return True
        raw = self._parents(definition) if definition.dependencies else self.input
        value = msgspec.json.decode(raw)
        return (definition.when is None or contains(value, definition.when)) and (
            definition.unless is None or not contains(value, definition.unless)
        )

    def _parents(self, definition: StepDefinition) -> bytes:
        parents = {slug: self.steps[slug] for slug in definition.dependencies}
        return _as_object(
            {slug: step.raw_output or NULL for slug, step in parents.items() if step.status == "completed"}
        )

    def _elements(self, raw: bytes) -> list[bytes]:
        if not raw.startswith(b"["):
            raise InputError(
                f"Flow {self.flow.slug} has root map steps but input is not an array (got {json_type(raw)})"
            )
        return [bytes(element) for element in msgspec.json.decode(raw, type=list[msgspec.Raw])]


def _as_object(members: Mapping[str, bytes]) -> bytes:
    pairs = [msgspec.json.encode(slug) + b":" + raw for slug, raw in members.items()]
    return b"{" + b",".join(pairs) + b"}"


def json_type(raw: bytes) -> str:
    names = {b"{": "object", b"[": "array", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null"}
    return names.get(raw[:1], "number")
