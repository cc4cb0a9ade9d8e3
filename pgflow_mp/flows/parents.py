"""Which steps a step depends on, by what it was given: slugs, functions, and defaults of its parameters."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.binding import Source
from pgflow_mp.flows.defaults import AskedDefault

if TYPE_CHECKING:
    from pgflow_mp.flows.steps import StepDefinition, Steps


def sources_of(
    asked: Mapping[str, AskedDefault], steps: Steps, slug: str, where: str, *, is_map: bool
) -> Mapping[str, tuple[Source, str]]:
    """What each parameter with such a default receives: of a parent its slug, of on_start the name.

    Raises FlowDefinitionError for what the flow does not have.
    """
    found: dict[str, tuple[Source, str]] = {}
    for name, default in asked.items():
        if default.word == "input_of":
            _check_flow(default, steps, name, where)
            found[name] = (Source.FLOW_INPUT, "flow_input")
        elif default.word == "value_of":
            found[name] = (Source.VALUE, _value_name(default, steps, name, where))
        else:
            parent = slug_of(steps, slug, default.of, where)
            if is_map:
                raise FlowDefinitionError(
                    f'{where}: parameter "{name}" receives all of the output of step "{parent}" by its '
                    "default, yet a map receives the elements of one parent",
                    hint=f"over={parent} for its elements; or join what items need in an array step first.",
                )
            found[name] = (Source.PARENT, parent)
    return found


def _check_flow(asked: AskedDefault, steps: Steps, name: str, where: str) -> None:
    if getattr(asked.of, "_steps", None) is not steps:
        other = getattr(asked.of, "slug", asked.of)
        raise FlowDefinitionError(
            f'{where}: parameter "{name}" receives the input of another flow by its default, "{other}"',
            hint="Give input_of() the flow that the step is of.",
        )


def _value_name(asked: AskedDefault, steps: Steps, name: str, where: str) -> str:
    for made in steps.on_start.values():
        if asked.of == made.name or asked.of is made.function:
            return made.name
    known = ", ".join(steps.on_start) or "none"
    raise FlowDefinitionError(
        f'{where}: parameter "{name}" receives {asked!r} by its default, which is no on_start function of '
        "the flow",
        hint=f"Those defined before it: {known}.",
    )


def named_parents(steps: Steps, slug: str, given: Any, where: str) -> tuple[str, ...]:
    """The slugs behind ``depends_on`` or ``over``. Raises FlowDefinitionError."""
    if given is None:
        return ()
    if isinstance(given, str) or callable(given):
        given = [given]
    if not isinstance(given, Iterable):
        raise FlowDefinitionError(f"Parents of {where} must be slugs or functions, not {given!r}")
    names: dict[str, None] = {}
    for parent in given:
        name = slug_of(steps, slug, parent, where)
        if name in names:
            raise FlowDefinitionError(f'Step "{slug}" depends on step "{name}" more than once')
        names[name] = None
    return tuple(names)


def slug_of(steps: Steps, slug: str, parent: Any, where: str) -> str:
    """The slug of a parent that is given by it, or by its function. Raises FlowDefinitionError."""
    if isinstance(parent, str):
        if parent not in steps:
            raise FlowDefinitionError(
                f'Step "{slug}" depends on undefined step "{parent}"',
                hint=f"Steps defined before it: {', '.join(steps) or 'none'}.",
            )
        return parent
    if not callable(parent):
        raise FlowDefinitionError(f"Parents of {where} must be slugs or functions, not {parent!r}")
    matches = [step.slug for step in steps_of(steps, parent)]
    if not matches:
        name = getattr(parent, "__name__", repr(parent))
        raise FlowDefinitionError(
            f'Step "{slug}" depends on undefined step "{name}"',
            hint=f'That function is not a step of flow "{steps.flow_slug}".',
        )
    if len(matches) > 1:
        raise FlowDefinitionError(
            f'Step "{slug}" depends on a function that is the handler of several steps: '
            + ", ".join(matches),
            hint="Give the parent's slug instead of the function.",
        )
    return matches[0]


def steps_of(steps: Mapping[str, StepDefinition], function: Any) -> list[StepDefinition]:
    """The steps whose handler a function is; else those whose handler wraps it, or what it wraps."""
    exact = [step for step in steps.values() if step.handler is function]
    if exact:
        return exact
    functions = set(map(id, unwrapped(function)))
    return [step for step in steps.values() if functions & set(map(id, unwrapped(step.handler)))]


def unwrapped(handler: Any) -> Iterator[Any]:
    """The handler and every function that it wraps (decorators above and below ours, partials)."""
    for _ in range(100):
        yield handler
        inner = getattr(handler, "__wrapped__", None)
        handler = handler.func if inner is None and isinstance(handler, functools.partial) else inner
        if handler is None:
            return
