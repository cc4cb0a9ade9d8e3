"""A flow as the database knows it: its shape, and the SQL that creates it (contract: worker 6.1, 6.2)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NotRequired, TypedDict

from pgflow_mp.flows.options import DEFAULT_KEY, DEFAULT_STORAGE, KEYS, Storage
from pgflow_mp.flows.storage import asked, when_new

if TYPE_CHECKING:
    from pgflow_mp.flows.flow import Flow
    from pgflow_mp.flows.steps import Mode, Pattern, StepDefinition


OptionValue = int | float | str | list[str]


class PatternShape(TypedDict):
    """A condition; its value is there where it is defined."""

    defined: bool
    value: NotRequired[Pattern]


class StepShape(TypedDict):
    """A step in the shape of its flow. Its options are there where one is set, by their names in JSON."""

    slug: str
    stepType: str
    dependencies: list[str]
    whenUnmet: Mode
    whenExhausted: Mode
    requiredInputPattern: PatternShape
    forbiddenInputPattern: PatternShape
    options: NotRequired[dict[str, OptionValue]]


class FlowShape(TypedDict):
    """The shape of a flow, of which the same holds."""

    steps: list[StepShape]
    options: NotRequired[dict[str, OptionValue]]


def shape(flow: Flow) -> FlowShape:
    """The JSON shape of ``flow``, keys as in the contract. Options are there only where they are set."""
    storages = asked(flow)
    result: FlowShape = {
        "steps": [_step_shape(step, storages.get(step.slug)) for step in flow.steps.values()]
    }
    if options := {**flow.options, **flow.limits}:
        result["options"] = {KEYS[name]: value for name, value in options.items()}
    return result


def definition(flow: Flow) -> FlowShape:
    """The shape, and what only matters where the flow is created: how maps are stored that do not say it."""
    result = shape(flow)
    if when_new(flow) != asked(flow) and DEFAULT_STORAGE != "tasks":
        result["options"] = {**result.get("options", {}), DEFAULT_KEY: DEFAULT_STORAGE}
    return result


def to_sql(flow: Flow, *, whole: bool = False) -> str:
    """The statements that create ``flow``, one a line, ending in a newline.

    ``whole``: also the storage of maps that do not say it, as a start creates the flow; without it they are
    in tasks. A flow with a queue for each step is made by one call: steps cannot be added to it one by one.
    """
    if flow.queues == "step":
        text = json.dumps((definition if whole else shape)(flow), ensure_ascii=False, separators=(",", ":"))
        return f"SELECT pgflow.ensure_flow_compiled({_text(flow.slug)}, {_text(text)}, 'step');\n"
    arguments = [_text(flow.slug), *(f"{name} => {value}" for name, value in flow.options.items())]
    statements = [f"SELECT pgflow.create_flow({', '.join(arguments)});"]
    statements += [
        f"SELECT pgflow.add_step({', '.join(_step_arguments(flow.slug, step))});"
        for step in flow.steps.values()
    ]
    storages = when_new(flow) if whole and DEFAULT_STORAGE != "tasks" else asked(flow)
    for step in flow.steps.values():
        if policy := _policy(step, storages.get(step.slug)):
            arguments = [_text(flow.slug), _text(step.slug)]
            arguments += [f"{name} => {_literal(value)}" for name, value in policy.items()]
            statements.append(f"SELECT pgflow.set_step_policy({', '.join(arguments)});")
    for names, limits in (((), flow.limits), *(((step.slug,), step.limits) for step in flow.steps.values())):
        if limits:
            arguments = [_text(flow.slug), *map(_text, names)]
            arguments += [f"{name} => {_literal(value)}" for name, value in limits.items()]
            statements.append(f"SELECT pgflow.define_limit({', '.join(arguments)});")
    for step in flow.steps.values():
        if step.requires:
            labels = f"ARRAY[{', '.join(map(_text, step.requires))}]"
            arguments = [_text(flow.slug), _text(step.slug), labels]
            statements.append(f"SELECT pgflow.set_requirements({', '.join(arguments)});")
    return "\n".join(statements) + "\n"


def _step_shape(step: StepDefinition, storage: Storage | None) -> StepShape:
    result: StepShape = {
        "slug": step.slug,
        "stepType": step.step_type,
        "dependencies": sorted(step.dependencies),
        "whenUnmet": step.when_unmet or "skip",
        "whenExhausted": step.when_exhausted or "fail",
        "requiredInputPattern": _pattern(step.when),
        "forbiddenInputPattern": _pattern(step.unless),
    }
    options: dict[str, OptionValue] = {**step.options, **_policy(step, storage), **step.limits}
    if step.requires:
        options["labels"] = list(step.requires)
    if options:
        result["options"] = {KEYS[name]: value for name, value in options.items()}
    return result


def _pattern(pattern: Pattern | None) -> PatternShape:
    return {"defined": False} if pattern is None else {"defined": True, "value": pattern}


def _step_arguments(flow_slug: str, step: StepDefinition) -> list[str]:
    arguments = [_text(flow_slug), _text(step.slug)]
    if step.dependencies:
        arguments.append(f"ARRAY[{', '.join(map(_text, step.dependencies))}]")
    arguments += [f"{name} => {value}" for name, value in step.options.items()]
    texts = {
        "required_input_pattern": _json(step.when),
        "forbidden_input_pattern": _json(step.unless),
        "when_unmet": step.when_unmet,
        "when_exhausted": step.when_exhausted,
        "step_type": "map" if step.step_type == "map" else None,
    }
    arguments += [f"{name} => {_text(value)}" for name, value in texts.items() if value is not None]
    return arguments


def _policy(step: StepDefinition, storage: Storage | None) -> dict[str, int | float | str]:
    """What set_step_policy is given of a step, by its parameters."""
    policy: dict[str, int | float | str] = dict(step.policy)
    if storage is not None:
        policy["storage"] = storage
    if not step.barrier:
        policy["barrier"] = False
    return policy


def _literal(value: int | float | str) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _json(pattern: Pattern | None) -> str | None:
    return None if pattern is None else json.dumps(pattern, ensure_ascii=False, separators=(",", ":"))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
