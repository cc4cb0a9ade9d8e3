"""A flow as data: what flow files say, with its functions by import path (docs/flow-files.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.file_format import VERSION
from pgflow_mp.flows.validation import describe

if TYPE_CHECKING:
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.steps import StepDefinition

_LIMITS: Final = {"at_once": "limit", "rate": "rate", "burst": "burst"}
_POLICY: Final = {"tolerated_failures": "tolerate", "tolerated_share": "tolerate"}
"""Options by the SQL parameters that definitions keep them under."""


def data_of(flow: Flow) -> dict[str, Any]:
    """The flow in dicts and lists, with what was said of it: options that are not set are left out.

    Raises FlowDefinitionError for a function that has no import path.
    """
    steps = flow._steps
    data: dict[str, Any] = {"version": VERSION, "slug": flow.slug}
    if flow.queues != "flow":
        data["queues"] = flow.queues
    if steps.former_slugs:
        data["former_slugs"] = True
    data |= {**flow.options, **_renamed(flow.limits, _LIMITS)}
    if steps.storage is not None:
        data["storage"] = steps.storage
    if steps.nan != "error":
        data["nan"] = steps.nan
    if flow.artifacts is not None:
        data["artifacts"] = flow.artifacts
    starts = [
        {"name": name, "handler": _path(flow, start.function, f'on_start function "{name}"')}
        for name, start in flow.start_functions.items()
    ]
    if starts:
        data["on_start"] = starts
    data["steps"] = [_step(flow, step) for step in flow.steps.values()]
    return data


def to_json(flow: Flow) -> str:
    """The same as JSON, indented."""
    return json.dumps(data_of(flow), indent=2, ensure_ascii=False) + "\n"


def _step(flow: Flow, step: StepDefinition) -> dict[str, Any]:
    is_map = step.step_type == "map"
    data: dict[str, Any] = {"slug": step.slug}
    if is_map or step.is_array:
        data["kind"] = "map" if is_map else "array"
    data["handler"] = _path(flow, step.handler, f'handler of step "{step.slug}"')
    if step.dependencies:
        data |= {"over": step.dependencies[0]} if is_map else {"depends_on": list(step.dependencies)}
    data |= {**step.options, **_renamed(step.policy, _POLICY), **_renamed(step.limits, _LIMITS)}
    if step.requires:
        data["requires"] = list(step.requires)
    if is_map and step.storage != flow._steps.storage:
        data["storage"] = step.storage
    if not step.barrier:
        data["barrier"] = False
    if step.nan != flow._steps.nan:
        data["nan"] = step.nan
    for name in ("when", "unless", "when_unmet", "when_exhausted"):
        if (value := getattr(step, name)) is not None:
            data[name] = value
    return data


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _path(flow: Flow, function: Callable[..., Any], what: str) -> str:
    """``module:function``, by which other processes find just this function. Raises FlowDefinitionError."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", "")
    for place, known in ((module, name), *_variables(flow, function)):
        if not known.isidentifier() or _found(place, known) is not function:
            continue
        if place in ("__main__", "__mp_main__"):
            raise FlowDefinitionError(
                f'{what} of flow "{flow.slug}" is in the script that runs, {describe(function)}: it has no '
                "import path",
                hint="Put the functions into a module, and import it.",
            )
        return f"{place}:{known}"
    raise FlowDefinitionError(
        f'{what} of flow "{flow.slug}" has no import path: {describe(function)} is not a variable at the top '
        f"level of {f'module {module}' if module else 'a module'}",
        hint="Lambdas, methods and functions in functions cannot be named in a file: define it with def at "
        "the top level of a module, under its own name.",
    )


def _variables(flow: Flow, function: Callable[..., Any]) -> list[tuple[str, str]]:
    """Where else it may be: a variable of the flow's module, or of its own, as partials and objects are."""
    places = dict.fromkeys((flow.module, getattr(function, "__module__", None) or ""))
    return [
        (place, name)
        for place in places
        for name, value in list(vars(sys.modules.get(place) or object).items())
        if value is function
    ]


def _found(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), "__dict__", {}).get(name)
