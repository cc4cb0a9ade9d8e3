"""Running one task inside a lane: typed decode, call, encode (contract: worker section 3).

``prepare`` does once per step and process what can be done once; ``PreparedHandler.execute`` is the
hot path and lets nothing escape: whatever a handler does becomes an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pgflow_mp.errors import FlowDefinitionError, PermanentError
from pgflow_mp.flows.agreement import GivenTypes, check_types, input_of
from pgflow_mp.flows.batching import WrongAnswer, results_of
from pgflow_mp.flows.binding import NOTHING, Source, wants_flow_input
from pgflow_mp.flows.context import Context
from pgflow_mp.flows.failures import Failed, describe_exception, safe_text
from pgflow_mp.flows.invocation import (
    InputMismatch,
    Invocation,
    checked_decoder,
    compiled,
    takes_item_alone,
    values_after_item,
)
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import MAX_OUTPUT_BYTES, as_list, encode_output

if TYPE_CHECKING:
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.steps import StepDefinition

COMPLETED: Final = 0
FAILED: Final = 1
FAILED_FOR_GOOD: Final = 2
_NO_ITERATORS: Final = frozenset({dict, list, tuple, str, int, float, bool, type(None)})  # nearly all results

Output = Callable[["bytes | msgspec.Raw", "bytes | None", Context], bytes]
"""A handler's call with an item's input, the flow's where it is wanted, and the context, as JSON."""


class _Answered(Exception):
    """The one item of a batch failed, by what the handler answered."""

    def __init__(self, kind: int, body: bytes) -> None:
        super().__init__()
        self.kind = kind
        self.body = body


def prepare(
    flow: Flow,
    step: str | StepDefinition,
    values: Mapping[str, Any] = NOTHING,
    *,
    max_output: int = MAX_OUTPUT_BYTES,
) -> PreparedHandler:
    """The handler of a step (or of its slug), ready to run tasks; reuse it for every task of the process.

    ``values`` are what the flow's on_start functions have returned here (``on_start.ProcessValues``).
    Raises FlowNotFound for an unknown step, FlowDefinitionError for an annotation that cannot be
    resolved or that JSON cannot be converted to.
    """
    return PreparedHandler(flow.steps[step] if isinstance(step, str) else step, values, max_output)


def check(flow: Flow) -> None:
    """Called when a flow is loaded.

    Raises FlowDefinitionError for a flow without steps, for annotations that cannot be used, and for those
    that could not be compared with what they are given before the module had been run to its end.
    """
    if not flow.steps:
        raise FlowDefinitionError(
            f'Flow "{flow.slug}" has no steps',
            hint="Decorate functions with @flow.step, @flow.array or @flow.map.",
        )
    for slug, step in flow.steps.items():
        prepare(flow, slug)
        if any(isinstance(argument.annotation, str) for argument in step.arguments):
            parents = [flow.steps[parent] for parent in step.dependencies]
            given = GivenTypes(parents, input_of(flow), NOTHING, flow.slug)
            check_types(step.handler, step.arguments, step.facts, given)


class PreparedHandler:
    """One step's handler with its decoders.

    ``call(input, flow_input, ctx)`` decodes, calls and returns the result as it is, with exceptions
    passing through (InputMismatch if the input does not fit). ``output`` encodes the result; what it raises
    ``failure`` makes an outcome of. ``execute`` is both. ``wants_context``: the handler is given the context;
    if not, the same one will do for many items.
    """

    def __init__(
        self, step: StepDefinition, values: Mapping[str, Any] = NOTHING, max_output: int = MAX_OUTPUT_BYTES
    ) -> None:
        self.step = step
        self.wants_flow_input = wants_flow_input(step.arguments, step.facts)
        self.wants_context = any(argument.source is Source.CONTEXT for argument in step.arguments)
        self.batch = step.batch
        """The most items that the handler takes at once, as a list; 0: one by one."""
        self.call: Invocation = compiled(step, values)
        self._values = values
        self._is_array = step.is_array
        self._max_output = max_output
        self._nulls = step.nan == "null"

    def output(self, input: bytes | msgspec.Raw, flow_input: bytes | None, ctx: Context) -> bytes:
        """Run one task; its output as JSON. Raises what the handler raises, InputMismatch, OutputError.

        ``input`` is raw JSON: the element in a map, the object of parent outputs in a dependent step.
        ``flow_input`` is the run's input, which a root step receives. A handler of batches is given a list of
        the one item.
        """
        if self.batch:
            return self._output_alone(bytes(input), flow_input, ctx)
        result = self.call(input, flow_input, ctx)
        if (self._is_array or type(result) not in _NO_ITERATORS) and type(result) is not list:
            result = list(result) if isinstance(result, Iterator) else result
            result = as_list(result) if self._is_array else result
        return encode_output(result, self._max_output, self._nulls)

    @cached_property
    def quick_output(self) -> Output:
        """``output``, with as little as can be around the most common handler, that of one item of a map."""
        step, limit, nulls = self.step, self._max_output, self._nulls
        more = values_after_item(step, self._values)
        if self.batch or step.step_type != "map" or not (more or takes_item_alone(step)):
            return self.output
        handler, decode = step.handler, checked_decoder(step, step.arguments[0])
        if more:
            handler = _followed(handler, more)

        def output(input: bytes | msgspec.Raw, flow_input: bytes | None, ctx: Context) -> bytes:
            result = handler(decode(input))
            if type(result) not in _NO_ITERATORS and isinstance(result, Iterator):
                result = list(result)
            return encode_output(result, limit, nulls)

        return output

    def outputs(
        self, input: bytes, indexes: Sequence[int], flow_input: bytes | None, ctx: Context
    ) -> list[tuple[int, bytes]]:
        """Run a batch, ``input`` being the JSON array of the items with these indexes: the outcome of each.

        Raises what the handler raises, and InputMismatch: then its halves are to be run.
        """
        try:
            results = results_of(self.call(input, flow_input, ctx), len(indexes))
        except WrongAnswer as error:
            return [self.failure(error, index) for index in indexes]
        return [self._outcome(result, index) for result, index in zip(results, indexes, strict=True)]

    def _outcome(self, result: Any, task_index: int) -> tuple[int, bytes]:
        """What one result in the answer to a batch says."""
        try:
            if type(result) not in _NO_ITERATORS:
                if isinstance(result, Failed):
                    return self._failed(result, task_index)
                if isinstance(result, BaseException):
                    return self.failure(result, task_index)
                result = list(result) if isinstance(result, Iterator) else result
            return COMPLETED, encode_output(result, self._max_output, self._nulls)
        except BaseException as error:  # noqa: BLE001 - one that cannot be stored does not concern the others
            return self.failure(error, task_index)

    def _failed(self, result: Failed, task_index: int) -> tuple[int, bytes]:
        if isinstance(result.error, BaseException):
            kind, text = self.failure(result.error, task_index)
        else:
            kind, text = FAILED, safe_text(str(result.error))
        return FAILED_FOR_GOOD if result.permanent else kind, text

    def _output_alone(self, input: bytes, flow_input: bytes | None, ctx: Context) -> bytes:
        ((kind, body),) = self.outputs(b"[" + input + b"]", [ctx.task_index], flow_input, ctx)
        if kind != COMPLETED:
            raise _Answered(kind, body)
        return body

    def failure(self, error: BaseException, task_index: int) -> tuple[int, bytes]:
        """``(1, error text)`` if a retry may help, else ``(2, text)``."""
        if isinstance(error, _Answered):
            return error.kind, error.body
        if isinstance(error, InputMismatch):
            return FAILED_FOR_GOOD, safe_text(f"{type(error).__name__}: {error}")
        if isinstance(error, OutputError):
            return FAILED_FOR_GOOD, safe_text(self._output_text(error, task_index))
        if isinstance(error, PermanentError):
            return FAILED_FOR_GOOD, describe_exception(error)
        if isinstance(error, BaseExceptionGroup):
            kind_of_failure = FAILED_FOR_GOOD if error.split(PermanentError)[1] is None else FAILED
            return kind_of_failure, describe_exception(error)
        return FAILED, describe_exception(error)

    def execute(self, input: bytes, flow_input: bytes | None, ctx: Context) -> tuple[int, bytes]:
        """``output`` as an outcome: ``(0, output)`` or what ``failure`` says. Nothing is ever raised."""
        try:
            return COMPLETED, self.output(input, flow_input, ctx)
        except BaseException as error:  # noqa: BLE001 - sys.exit, KeyboardInterrupt, MemoryError: all outcomes
            return self.failure(error, ctx.task_index)
        finally:
            if ctx.paged is not None:
                ctx.runtime.outputs.close()

    def _output_text(self, error: OutputError, task_index: int) -> str:
        where = f'Output of step "{self.step.slug}"'
        if self.step.step_type == "map":
            where += f", index {task_index},"
        hint = f"\n{error.hint}" if error.hint else ""
        return f"OutputError: {where} cannot be stored: {error}{hint}"


def _followed(handler: Callable[..., Any], values: tuple[Any, ...]) -> Callable[[Any], Any]:
    return lambda item: handler(item, *values)
