"""What outputs become for who asked for them: what the handlers of their steps are annotated to return.

Annotations are for people, too: what does not fit them is what JSON gives, of a map that item alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from pgflow_mp.errors import FlowDefinitionError, RunFailed
from pgflow_mp.flows.assignable import element_of
from pgflow_mp.flows.binding import EMPTY, Source
from pgflow_mp.flows.checks import reader, result_type
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.steps import StepDefinition
from pgflow_mp.values import reading

_plain = msgspec.json.Decoder().decode


def typed_output(flow: Flow, output: bytes | None) -> dict[str, object] | None:
    """The object of the leaves' outputs, of their raw JSON; None if there is none."""
    if output is None:
        return None
    leaves: dict[str, msgspec.Raw] = msgspec.json.decode(output, type=dict[str, msgspec.Raw])
    return {slug: typed_leaf(flow, slug, raw) for slug, raw in leaves.items()}


def typed_leaf(flow: Flow, slug: str, raw: bytes | msgspec.Raw) -> Any:
    """A leaf's output; of another step what JSON gives."""
    return leaf_reader(flow, slug).whole(raw)


def typed_step(step: StepDefinition, raw: bytes | msgspec.Raw) -> Any:
    """A step's output; of a map, a list of as many: None for items whose failure was tolerated."""
    wanted = _returned(step)
    return _listed(wanted, raw) if step.step_type == "map" else _reader(wanted)(raw)


class OutputReader(NamedTuple):
    """What makes of raw outputs of a step what its handler returned."""

    whole: Callable[[bytes | msgspec.Raw], Any] = _plain
    """Of the step's output."""
    task: Callable[[bytes], Any] = _plain
    """Of that of one task, an item of a map."""
    tasks: Callable[[bytes], list[Any]] = _plain
    """Of a JSON array of such."""


def output_reader(step: StepDefinition) -> OutputReader:
    """The reader of a step's outputs."""
    wanted = _returned(step)
    whole, tasks = functools.partial(typed_step, step), functools.partial(_listed, wanted)
    return OutputReader(whole, _reader(wanted), tasks)


def leaf_reader(flow: Flow, slug: str) -> OutputReader:
    """The reader of a leaf's outputs; of those of another step what JSON gives."""
    step = flow.steps.get(slug)
    if step is None or any(slug in other.dependencies for other in flow.steps.values()):
        return OutputReader()
    return output_reader(step)


def no_output(run_id: str | None, slug: str, reason: str | None) -> RunFailed:
    """The error about a step whose output is wanted, and which has none though its run has completed."""
    of = "" if run_id is None else f" of run {run_id}"
    text = f'Step "{slug}"{of} has no output: it was skipped ({reason or "its run did not need it"})'
    return RunFailed(text, run_id=run_id)


def inputs_reader(flow: Flow, step: StepDefinition) -> Callable[[bytes], list[Any]]:
    """What makes of a JSON array of inputs of a map what they are: results of its parent, if that is known.

    Otherwise what its handler is annotated to take.
    """
    wanted: Any = EMPTY
    for slug in step.dependencies:
        parent = flow.steps[slug]
        wanted = _returned(parent) if parent.step_type == "map" else _element(_returned(parent))
    if wanted is EMPTY:
        taken = [each for each in step.arguments if each.source in (Source.INPUT, Source.MEMBERS)]
        try:
            wanted = reader(step.handler, taken[0], step.facts)[0] if len(taken) == 1 else Any
        except FlowDefinitionError:
            wanted = Any
        wanted = _element(wanted) if step.batch else wanted
    return functools.partial(_listed, Any if wanted is EMPTY else wanted)


def _returned(step: StepDefinition) -> Any:
    return result_type(step.handler, batch=step.batch > 0)


def _element(wanted: Any) -> Any:
    """What an array of such a type holds; EMPTY where it is none, or that is not known."""
    found = element_of(wanted)
    return EMPTY if found is Any or found is None else found


def _listed(wanted: Any, raw: bytes | msgspec.Raw) -> Any:
    try:
        return reading.decoder(list.__class_getitem__(wanted))(raw)
    except (msgspec.DecodeError, TypeError):
        pass
    try:
        decode = reading.decoder(wanted)
        items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except (msgspec.DecodeError, TypeError):
        return _plain(raw)
    return [_either(decode, item) for item in items]


def _reader(wanted: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    try:
        decode = reading.decoder(wanted)
    except TypeError:
        return _plain
    return lambda raw: _either(decode, raw)


def _either(decode: Callable[[Any], Any], raw: bytes | msgspec.Raw) -> Any:
    try:
        return decode(raw)
    except (msgspec.DecodeError, TypeError):
        return _plain(raw)
