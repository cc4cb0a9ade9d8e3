"""Whether what a step receives is of the type that its parameter has, said as type checkers say it.

They see most of it before anything runs (docs/typing.md); here is the rest: parents that are given by slug,
several parents of one step, conditions. What annotations do not say passes.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.annotations import plain
from pgflow_mp.flows.assignable import assignable, contains, element_of
from pgflow_mp.flows.binding import EMPTY, Argument, Source, StepFacts
from pgflow_mp.flows.checks import result_type
from pgflow_mp.flows.resolving import resolve
from pgflow_mp.flows.validation import describe

if TYPE_CHECKING:
    from pgflow_mp.flows.steps import StepDefinition

_MODULES: Final = re.compile(r"\b(?:\w+\.|<locals>\.)+(?=\w)")


class GivenTypes:
    """What parents and the flow give to a step. ``names`` are in sight of annotations that are texts."""

    def __init__(
        self, parents: Sequence[StepDefinition], flow_input: Any, names: Mapping[str, Any], flow_slug: str
    ) -> None:
        self._parents = {parent.slug: parent for parent in parents}
        self.flow_input = flow_input
        self._names = names
        self._flow_slug = flow_slug

    def output(self, slug: str) -> Any:
        """The type of a parent's output; Any if nothing says it."""
        parent = self._parents[slug]
        if hasattr(parent.handler, "__wrapped__"):  # the decorator may return something else
            return Any
        one = result_type(parent.handler, batch=parent.batch > 0, names=self._names)
        if parent.step_type != "map":
            return one
        return list.__class_getitem__(one | None if parent.tolerates and one is not Any else one)

    def to(self, argument: Argument, facts: StepFacts) -> tuple[str, Any] | None:
        """What an argument is given, in words, and its type; None if it is not told."""
        if argument.source is Source.PARENT:
            output = self.output(argument.of)
            skipped = self._parents[argument.of].may_be_skipped and argument.default is EMPTY
            return f'the output of step "{argument.of}"', output | None if skipped else output
        if argument.source is Source.FLOW_INPUT:
            return f'the input of flow "{self._flow_slug}"', self.flow_input
        if argument.source is not Source.INPUT:
            return None
        what, whole = f'the input of flow "{self._flow_slug}"', self.flow_input
        if facts.is_map and facts.dependencies:
            what, whole = f'the output of step "{facts.dependencies[0]}"', self.output(facts.dependencies[0])
        if not facts.is_map:
            return what, whole
        element = element_of(whole)
        if element is None:
            raise FlowDefinitionError(
                f'Map step "{facts.step_slug}" of flow "{self._flow_slug}" runs over {what}, of type '
                f'"{shown(whole)}", which has no elements',
                hint="A map runs over a list: over= names a step that returns one, or Flow[list[...]].",
                option="over",
            )
        if facts.batch:
            return f"a list of elements of {what}", list.__class_getitem__(element)
        return f"an element of {what}", element


def check_types(
    handler: Callable[..., Any], arguments: Sequence[Argument], facts: StepFacts, given: GivenTypes
) -> None:
    """Refuse a parameter that cannot hold what it is given. Raises FlowDefinitionError."""
    for argument in arguments:
        told = given.to(argument, facts)
        wanted = _resolved(argument.annotation, handler)
        if told is None or told[1] is Any or wanted is Any or assignable(told[1], wanted):
            continue
        what, of = told[0], shown(told[1])
        to = shown(wanted)
        if of == to:  # of two modules
            of, to = inspect.formatannotation(told[1]), inspect.formatannotation(wanted)
        raise FlowDefinitionError(
            f'Handler {describe(handler)} of {facts.where}: {what} has type "{of}", which is not '
            f'assignable to parameter "{argument.name}" of type "{to}"',
            hint=f"Annotate it {of}, or give it {to}.",
        )


def check_array(handler: Callable[..., Any], facts: StepFacts, names: Mapping[str, Any]) -> None:
    """Refuse an array step whose result is none by its annotation."""
    wanted = Any if hasattr(handler, "__wrapped__") else result_type(handler, names=names)
    if element_of(wanted) is None:
        raise FlowDefinitionError(
            f"Handler {describe(handler)} of {facts.where}: an array step gives a list, yet its result has "
            f'type "{shown(wanted)}"',
            hint="Return a list or yield its elements, or let it be a step: @flow.step.",
        )


def check_patterns(patterns: Mapping[str, Any], facts: StepFacts, given: GivenTypes) -> None:
    """Refuse a condition that cannot be met, or not be unmet, by what its step receives."""
    for option, pattern in patterns.items():
        for what, known, name, value in _places(pattern, facts, given):
            if known is None:
                raise FlowDefinitionError(
                    f'{option}= of {facts.where} names "{name}", which is not a parent of the step '
                    f"(its parents: {', '.join(facts.dependencies)})",
                    hint="A condition is compared with the outputs of the step's parents, by their slugs.",
                    option=option,
                )
            if known is not Any and not contains(known, value):
                raise FlowDefinitionError(
                    f'{option}= of {facts.where}: {what} has type "{shown(known)}", which never contains '
                    f"{value!r}",
                    hint="Compare it with a value of that type.",
                    option=option,
                )


def _places(pattern: Any, facts: StepFacts, given: GivenTypes) -> Iterator[tuple[str, Any, str, Any]]:
    """What each part of a pattern is compared with: in words, its type (None: nothing), name and value."""
    if not isinstance(pattern, Mapping):
        return
    if not facts.dependencies:
        yield f'the input of flow "{facts.flow_slug}"', given.flow_input, "", pattern
        return
    for name, value in pattern.items():
        if name in facts.dependencies:
            yield f'the output of step "{name}"', given.output(name), name, value
        else:
            yield "", None, name, value


def shown(annotation: Any) -> str:
    """A type as type checkers write it, without modules."""
    if annotation is types.NoneType or annotation is None:
        return "None"
    text = inspect.formatannotation(annotation)
    return text if "'" in text else _MODULES.sub("", text)


def input_of(flow: object) -> Any:
    """The type that a flow says its input has: Flow[Input], or a class of such; Any if it does not."""
    found = [getattr(flow, "__orig_class__", None), *getattr(type(flow), "__orig_bases__", ())]
    for alias in found:
        (wanted, *_) = getattr(alias, "__args__", None) or (None,)
        if wanted is not None and type(wanted).__name__ not in ("TypeVar", "ForwardRef", "str"):
            return wanted
    return Any


def _resolved(annotation: Any, handler: Callable[..., Any]) -> Any:
    if annotation is EMPTY:
        return Any
    try:
        return plain(resolve(annotation, handler))
    except Exception:  # noqa: BLE001 - reported when the flow is loaded
        return Any
