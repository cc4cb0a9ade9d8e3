"""Functions for plain background jobs, which other processes load by their names, as they do flows."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Final

from pgflow_mp.errors import FlowDefinitionError, FlowNotFound
from pgflow_mp.flows import handlers
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading.finding import target_in
from pgflow_mp.loading.importing import import_target, place_first
from pgflow_mp.loading.targets import Target, here

STEP: Final = "job"
_SLUG: Final = "queue_jobs"


def flow_of(function: Callable[..., Any]) -> Flow:
    """A flow whose one step is the function: each job is an item. Raises FlowDefinitionError."""
    flow = Flow(_SLUG, storage="tasks")
    flow.map(STEP, function)
    handlers.check(flow)
    return flow


def target_for_function(function: Callable[..., Any]) -> Target:
    """The target by which another process finds the function. Raises FlowNotFound if there is none."""
    here()
    if not callable(function):
        raise FlowDefinitionError(f"{function!r} is not a function")
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if module is not None and name.isidentifier() and getattr(module, name, None) is function:
        return target_in(name, module.__name__, vars(module))
    raise FlowNotFound(
        f"{name or function!r} is not a function at the top level of a module",
        hint="Worker processes import functions: define it with def in a file.",
    )


def load(text: str, main_path: str | None) -> Flow:
    """The flow of the function that a target names. Raises FlowNotFound, FlowDefinitionError."""
    target = Target.parse(text)
    if target.flow is None:
        raise FlowNotFound(
            f"{place_first(target)} is a module", hint="Name a function of it: module:function"
        )
    function = vars(import_target(target, main_path, may_be_main=True)).get(target.flow)
    if not inspect.isroutine(function) and not callable(function):
        raise FlowNotFound(
            f'{place_first(target)} has no function "{target.flow}"',
            hint="Name one that stands at its top level: module:function.",
        )
    return flow_of(function)
