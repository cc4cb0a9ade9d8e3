"""Which argument of a handler receives what, decided once when the step is defined.

In this order: the Context (by annotation, or by the names ctx and context), the outputs of parents and
the values of on_start functions (by name), the run's input (``flow_input``), and then the step's own
input for the first free parameter: the run's input in a root step, one element in a map, a read-only mapping
{parent: output} in a dependent step that names no parent. ``**row`` alone receives the members of an
object by name. What a decorator seems to give itself is left to it (pgflow_mp.flows.wrappers).
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, get_args

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.annotations import can_hold_a_mapping
from pgflow_mp.flows.context import Context
from pgflow_mp.flows.convertible import unreadable
from pgflow_mp.flows.resolving import resolve
from pgflow_mp.flows.validation import describe
from pgflow_mp.flows.wrappers import Calling, calling_of

EMPTY: Final = inspect.Parameter.empty
NOTHING: Final[Mapping[str, Any]] = types.MappingProxyType({})
_CONTEXT_NAMES: Final = ("ctx", "context")
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Source(Enum):
    """Where an argument comes from."""

    INPUT = "input"  # the element of a map, the run's input of a root step
    MEMBERS = "members"  # the same, as keywords: **row
    PARENTS = "parents"  # the mapping {parent: output}
    PARENT = "parent"  # the output of one parent
    OTHER_PARENTS = "other parents"  # **kwargs: parents that no parameter names
    FLOW_INPUT = "flow_input"
    CONTEXT = "context"
    VALUE = "value"  # of an on_start function, as it is


@dataclass(frozen=True, slots=True)
class Argument:
    """One bound parameter. ``annotation`` may still be a string; ``default`` is EMPTY if there is none.

    ``asked_of``: the parent or on_start function that its default names; else it is the parameter that does.
    """

    name: str
    source: Source
    annotation: object = EMPTY
    default: object = EMPTY
    positional: bool = True
    asked_of: str = ""

    @property
    def of(self) -> str:
        """The parent, or the on_start function, that it receives something of."""
        return self.asked_of or self.name


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What binding needs to know about a step. ``batch``: its handler is given a list of items at once.

    ``values`` are the names of its flow's on_start functions, ``tolerant`` the parents whose outputs may hold
    the null of a failed item.
    """

    flow_slug: str
    step_slug: str
    is_map: bool
    dependencies: tuple[str, ...]
    batch: bool = False
    values: tuple[str, ...] = ()
    tolerant: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f'step "{self.step_slug}" of flow "{self.flow_slug}"'


def bind(
    handler: Callable[..., Any],
    facts: StepFacts,
    names: Mapping[str, Any] | None = None,
    asked: Mapping[str, tuple[Source, str]] = NOTHING,
) -> tuple[Argument, ...]:
    """The arguments that ``handler`` will be called with, in call order.

    ``asked`` are the parameters that say by their default what they receive.
    Annotations are resolved as far as that is possible now, with ``names`` in sight besides the
    handler's globals; the others stay strings until the flow is loaded.
    Raises FlowDefinitionError for a parameter without a default that can never be supplied, and for one that
    would receive a mapping, which its annotation cannot hold.
    """
    try:
        calling = calling_of(handler)
    except (TypeError, ValueError):  # some builtins, e.g. int, do not tell: they take the input
        return (Argument("input", _own_source(facts)),)
    parents = () if facts.is_map else facts.dependencies
    parameters = [
        parameter.replace(annotation=_resolve_early(parameter.annotation, handler, names))
        for parameter in calling.parameters
    ]
    kinds = [parameter.kind for parameter in parameters]
    own_is_free = not any(parameter.name in parents for parameter in parameters)
    own_is_free = own_is_free and not any(source is Source.PARENT for source, _ in asked.values())
    given = _given(calling, parameters, parents, facts, own_is_free=own_is_free)
    arguments: list[Argument] = []
    gap = False  # a parameter before this one keeps its default, so this one must be passed by name
    for parameter in parameters:
        kind = parameter.kind
        if parameter.name in given:
            gap = True
            continue
        source, of = asked.get(parameter.name) or (_named_source(parameter, parents, facts), "")
        if of:
            parameter = parameter.replace(default=EMPTY)  # noqa: PLW2901
        if kind is inspect.Parameter.VAR_KEYWORD:
            taken = any(argument.source is Source.PARENTS for argument in arguments)
            source = Source.OTHER_PARENTS if parents and not taken else None
            if own_is_free and _own_source(facts) is Source.INPUT:
                source = Source.MEMBERS
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            leave = bool(parents) and inspect.Parameter.VAR_KEYWORD in kinds
            source = _own_source(facts) if own_is_free and not leave and not gap else None
        elif source is None and own_is_free and (kind in _POSITIONAL or parameter.default is EMPTY):
            source = _own_source(facts)
        if source is None:
            if parameter.default is EMPTY and kind not in _VARIADIC:
                raise _cannot_supply(handler, parameter.name, facts, arguments)
            gap = gap or kind in _POSITIONAL
            continue
        if gap and kind is inspect.Parameter.POSITIONAL_ONLY:
            raise _cannot_supply(handler, parameter.name, facts, arguments)
        if source is Source.CONTEXT:
            _check_context(handler, parameter, facts)
        if source is Source.PARENTS:
            _check_mapping(handler, parameter, facts)
        own_is_free = own_is_free and source not in (Source.INPUT, Source.MEMBERS, Source.PARENTS)
        first = kind in _POSITIONAL and calling.by_position and not (gap and calling.by_name)
        positional = first or kind is inspect.Parameter.VAR_POSITIONAL
        arguments.append(
            Argument(parameter.name, source, parameter.annotation, parameter.default, positional, of)
        )
    _check_values(handler, arguments, facts, own_is_free=own_is_free)
    return tuple(arguments)


def wants_flow_input(arguments: Sequence[Argument], facts: StepFacts) -> bool:
    """Whether the handler's arguments need the run's input."""
    is_root = not facts.dependencies and not facts.is_map
    return any(
        argument.source is Source.FLOW_INPUT
        or (is_root and argument.source in (Source.INPUT, Source.MEMBERS))
        for argument in arguments
    )


def _resolve_early(annotation: Any, handler: Callable[..., Any], names: Mapping[str, Any] | None) -> Any:
    try:
        return annotation if annotation is EMPTY else resolve(annotation, handler, names)
    except Exception:  # noqa: BLE001 - reported with its name when the flow is loaded
        return annotation


def _given(
    calling: Calling,
    parameters: Sequence[inspect.Parameter],
    parents: Sequence[str],
    facts: StepFacts,
    *,
    own_is_free: bool,
) -> set[str]:
    """The parameters that are left to a decorator: as many as nothing else can supply.

    First those that its code mentions by name, then those whose type JSON cannot become, then the last
    ones, or the first if it puts something in front of what it was given.
    """
    if not calling.may_give:
        return set()
    needed = [
        parameter
        for parameter in parameters
        if parameter.default is EMPTY
        and parameter.kind not in _VARIADIC
        and _named_source(parameter, parents, facts) is None
    ]
    foreign = {parameter.name for parameter in needed if _is_foreign(parameter.annotation)}
    if len(needed) == 1 and own_is_free and not facts.is_map:  # def load(session), or def load(folder)
        (only,) = needed
        is_plain = only.annotation is EMPTY and only.name in calling.given
        return {only.name} if only.name in foreign or is_plain else set()
    surplus = max(0, len(needed) - own_is_free)
    needed = needed if calling.in_front else needed[::-1]
    ranked = sorted(needed, key=lambda each: (each.name not in calling.given, each.name not in foreign))
    return {parameter.name for parameter in ranked[:surplus]}


def _is_foreign(annotation: Any) -> bool:
    """Whether an annotation says that no JSON is expected."""
    if annotation is EMPTY or isinstance(annotation, str):
        return False
    return unreadable(annotation) is not None


def _own_source(facts: StepFacts) -> Source:
    return Source.PARENTS if facts.dependencies and not facts.is_map else Source.INPUT


def _named_source(parameter: inspect.Parameter, parents: Sequence[str], facts: StepFacts) -> Source | None:
    if _is_context(parameter.annotation):
        return Source.CONTEXT
    if parameter.name in parents:
        return Source.PARENT
    if parameter.name in facts.values and parameter.kind not in _VARIADIC:
        return Source.VALUE
    if parameter.name in _CONTEXT_NAMES:
        return Source.CONTEXT
    return Source.FLOW_INPUT if parameter.name == "flow_input" else None


def _is_context(annotation: Any) -> bool:
    if isinstance(annotation, str):
        words = annotation.replace(" ", "").strip("'\"").removeprefix("Optional[").removesuffix("]")
        return words.removesuffix("|None").rpartition(".")[2] == "Context"
    if isinstance(annotation, type):
        return issubclass(annotation, Context)
    return Context in get_args(annotation)


def _check_context(handler: Any, parameter: inspect.Parameter, facts: StepFacts) -> None:
    annotation = parameter.annotation
    if annotation in (EMPTY, Any, object) or isinstance(annotation, str) or _is_context(annotation):
        return
    raise FlowDefinitionError(
        f'Handler {describe(handler)} of {facts.where}: parameter "{parameter.name}" receives the Context, '
        f"yet it is annotated {inspect.formatannotation(annotation)}",
        hint="Rename the parameter, or annotate it with pgflow_mp.Context.",
    )


def _check_values(
    handler: Any, arguments: Sequence[Argument], facts: StepFacts, *, own_is_free: bool
) -> None:
    """Refuse what receives a value by its name where something else was meant."""
    hint = "Give the function or the parameter another name."
    for argument in arguments:
        if argument.source is Source.CONTEXT and argument.name in facts.values:
            raise FlowDefinitionError(
                f'Handler {describe(handler)} of {facts.where}: parameter "{argument.name}" has the name of '
                "an on_start function, yet receives the Context by its annotation",
                hint=hint,
            )
    value = next((argument.name for argument in arguments if argument.source is Source.VALUE), None)
    if value is not None and facts.is_map and own_is_free:
        raise FlowDefinitionError(
            f'Handler {describe(handler)} of {facts.where}: nothing receives the element, since "{value}" '
            "receives the value of the on_start function of this name",
            hint=f"Add a parameter for the element. {hint}",
        )


def _check_mapping(handler: Any, parameter: inspect.Parameter, facts: StepFacts) -> None:
    """Refuse what receives the outputs of all parents, but cannot: a parent's name that is misspelt."""
    annotation = parameter.annotation
    if annotation is EMPTY or isinstance(annotation, str) or can_hold_a_mapping(annotation):
        return
    import difflib

    close = difflib.get_close_matches(parameter.name, facts.dependencies, 1, cutoff=0.4)
    meant = close or (facts.dependencies if len(facts.dependencies) == 1 else ())
    raise FlowDefinitionError(
        f"Handler {describe(handler)} of {facts.where}: {parameter.name} is not a parent of "
        f"{facts.step_slug} (its parents: {', '.join(facts.dependencies)})"
        + (f"; did you mean {meant[0]}?" if meant else ""),
        hint="A parameter that names no parent receives the outputs of all of them as one mapping, "
        f"which cannot be converted to {inspect.formatannotation(annotation)}.",
    )


def _cannot_supply(handler: Any, name: str, facts: StepFacts, bound: list[Argument]) -> FlowDefinitionError:
    if facts.is_map:
        own = f"the {'list of elements' if facts.batch else 'element'} (first free parameter)"
    elif facts.dependencies:
        parents = ", ".join(facts.dependencies)
        own = f"the outputs of its parents by name ({parents}), or all of them as one mapping"
    else:
        own = "the flow's input (first free parameter)"
    values = "".join(f"{value}, " for value in facts.values)
    taken = next((a.name for a in bound if a.source in (Source.INPUT, Source.PARENTS)), None)
    hint = f'"{taken}" already takes the step\'s input. ' if taken else ""
    return FlowDefinitionError(
        f'Handler {describe(handler)} of {facts.where}: parameter "{name}" can never be supplied; '
        f"available are {own}, {values}flow_input, and ctx",
        hint=f"{hint}Rename it, give it a default, or remove it.",
    )
