"""Decorated functions in the place of the slugs of their steps, where somebody asks for what steps gave.

    run(flow, lines, output=total)
    client.results(run_id, count)

A step is found again by its function, or one that this wraps, among the flows that are defined here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from pgflow_mp.errors import FlowNotFound
from pgflow_mp.flows.parents import steps_of, unwrapped
from pgflow_mp.flows.steps import StepDefinition

if TYPE_CHECKING:
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.typed import StepLike

_SLUG: Final = "Give the step's slug instead of the function."
_Flows: TypeAlias = "weakref.WeakKeyDictionary[Flow, None]"
_DEFINED: Final[weakref.WeakKeyDictionary[Callable[..., object], _Flows]] = weakref.WeakKeyDictionary()
"""The flows that a function is a step of, in the order in which it became one."""


def remember(flow: Flow, step: StepDefinition) -> None:
    """Have the step be found by its function, as long as there are both; not by one that cannot be a key."""
    try:
        _DEFINED.setdefault(step.handler, weakref.WeakKeyDictionary())[flow] = None
    except TypeError:
        return


def step_in(flow: Flow, step: StepLike) -> StepDefinition:
    """The step of a flow that a slug or a function means. Raises FlowNotFound."""
    if isinstance(step, str):
        return flow.steps[step]
    return _only(steps_of(flow.steps, step), step, flow.slug)


def step_of(flow_slug: str, function: StepLike) -> tuple[Flow, StepDefinition]:
    """The step that a function is in a flow of this slug, and that flow. Raises FlowNotFound.

    Of several flows of one slug, such as one that was defined again at a prompt, it is the latest.
    """
    for each in unwrapped(function):
        try:
            flows = list(_DEFINED.get(each, ()))
        except TypeError:
            continue
        for flow in reversed(flows):
            if flow.slug == flow_slug:
                return flow, step_in(flow, each)
    raise _none(function, flow_slug)


def _only(found: list[StepDefinition], function: StepLike, flow_slug: str) -> StepDefinition:
    if not found:
        raise _none(function, flow_slug)
    if len(found) > 1:
        slugs = ", ".join(step.slug for step in found)
        raise FlowNotFound(
            f'{_name(function)} is the handler of several steps of flow "{flow_slug}": {slugs}', hint=_SLUG
        )
    return found[0]


def _none(function: StepLike, flow_slug: str) -> FlowNotFound:
    return FlowNotFound(f'{_name(function)} is not a step of flow "{flow_slug}"', hint=_SLUG)


def _name(function: StepLike) -> str:
    return f"Function {getattr(function, '__name__', repr(function))}"
