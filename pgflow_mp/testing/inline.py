"""A whole flow in this process, by the rules of the engine, without a database.

Inputs are decoded, handlers called and outputs encoded exactly as in a lane (pgflow_mp.flows.handlers); which
steps start, are skipped, fail or complete follows the contract (sql sections 5 to 10). Tasks run one
after the other; pauses (retries, start delays) pass on a FakeClock. Not here: real timeouts, memory
caps, and processes that die - ``Faults`` simulates those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, cast, overload

from pgflow_mp.errors import RunFailed
from pgflow_mp.flows import handlers
from pgflow_mp.flows.context import Runtime
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handles import step_in
from pgflow_mp.flows.on_start import ProcessValues
from pgflow_mp.flows.results import no_output, typed_output, typed_step
from pgflow_mp.loading import reentry
from pgflow_mp.testing.clock import FakeClock
from pgflow_mp.testing.faults import simulated
from pgflow_mp.testing.graph import InlineStep
from pgflow_mp.testing.inline_engine import Engine
from pgflow_mp.values import artifacts
from pgflow_mp.values.inputs import encode_input

if TYPE_CHECKING:
    from pgflow_mp.flows.typed import Input, Out, PlainFunction, StepFunction, StepLike

__all__ = ["InlineRun", "InlineStep", "execute_inline", "run_inline"]

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})  # what a run without an input is started with


@dataclass
class InlineRun:
    """What became of a run.

    ``output`` holds the leaf steps' outputs by slug, typed by their annotations; None if none completed.
    """

    flow: Flow
    status: Literal["completed", "failed"]
    output: dict[str, object] | None
    steps: Mapping[str, InlineStep]
    seconds: float
    """What the pauses would have taken."""

    @property
    def error(self) -> str | None:
        """Why the run failed."""
        return next((step.error for step in self.steps.values() if step.status == "failed"), None)


@overload
def run_inline(
    flow: Flow[Input],
    input: Input = ...,
    *,
    clock: FakeClock | None = None,
    on_start: Mapping[str, object] = NOTHING,
) -> dict[str, object] | None: ...
@overload
def run_inline(
    flow: Flow[Input],
    input: Input = ...,
    *,
    output: StepFunction[..., object, Out],
    clock: FakeClock | None = None,
    on_start: Mapping[str, object] = NOTHING,
) -> Out: ...
@overload
def run_inline(
    flow: Flow[Input],
    input: Input = ...,
    *,
    output: str | PlainFunction,
    clock: FakeClock | None = None,
    on_start: Mapping[str, object] = NOTHING,
) -> object: ...
def run_inline(
    flow: Flow[Any],
    input: object = NOTHING,
    *,
    output: StepLike | None = None,
    clock: FakeClock | None = None,
    on_start: Mapping[str, object] = NOTHING,
) -> Any:
    """Execute ``flow`` on ``input`` here and return its output, an object of the leaf steps' outputs.

    ``output``, a step, has its output alone be answered, as by :func:`pgflow_mp.run`.

    ``on_start`` has values for handlers in the place of those that on_start functions of these names make.
    Raises RunFailed with step, index and error of the first failure, InputError for an input that the flow
    cannot be started with.
    """
    wanted = None if output is None else step_in(flow, output)
    run = execute_inline(flow, input, clock=clock, on_start=on_start)
    if run.status == "completed" and wanted is not None:
        found = run.steps[wanted.slug]
        if found.raw_output is None:
            raise no_output(None, wanted.slug, found.skip_reason)
        return typed_step(wanted, found.raw_output)
    if run.status == "completed":
        return run.output
    for step in run.steps.values():
        if step.status == "failed" and step.failed:
            index = min(step.failed)
            slug = step.definition.slug
            raise RunFailed(f'Flow "{flow.slug}" failed: step "{slug}" task {index}: {step.errors[index]}')
    raise RunFailed(f'Flow "{flow.slug}" failed: {run.error}')


def execute_inline(
    flow: Flow[Input],
    input: Input = cast("Any", NOTHING),  # noqa: B008
    *,
    clock: FakeClock | None = None,
    dsn: str | None = None,
    on_start: Mapping[str, object] = NOTHING,
) -> InlineRun:
    """Like :func:`run_inline`, but answers the whole run, failed or not. Raises OnStartFailed.

    ``clock`` lets the pauses of retries and start delays be seen. ``dsn`` is where ``ctx.connect()`` goes.
    """
    handlers.check(flow)
    raw = encode_input(input, nulls=flow.nulls)
    own = {} if flow.artifacts is None else {flow.slug: flow.artifacts}
    roots = artifacts.throwaway()._replace(flows=own)
    runtime = Runtime(dsn=dsn, worker_config={"name": "inline", "workers": 1}, artifacts=roots)
    clock = clock or FakeClock()
    began = clock.time()
    values = ProcessValues(flow.slug, flow.start_functions)
    values.take(on_start)
    engine = Engine(flow, raw, clock, runtime, values.values)
    try:
        with simulated(), reentry.executing():
            values.start()
            engine.run()
    finally:
        failed = values.close()
        runtime.close()
        artifacts.leave()
    if failed:
        raise failed[0]
    output = typed_output(flow, engine.output()) if engine.failed is None else None
    status: Literal["completed", "failed"] = "completed" if engine.failed is None else "failed"
    return InlineRun(flow, status, output, engine.steps, clock.time() - began)
