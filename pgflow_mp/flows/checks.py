"""What is checked of a handler's annotations, when its step is defined and again when its flow is loaded."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.annotations import plain
from pgflow_mp.flows.batch_types import check_answered, check_received, item_of, refuse_members
from pgflow_mp.flows.binding import EMPTY, Argument, Source, StepFacts
from pgflow_mp.flows.convertible import KNOWN, unreadable, unwritable
from pgflow_mp.flows.resolving import resolve
from pgflow_mp.flows.tolerated import check_null
from pgflow_mp.flows.validation import describe
from pgflow_mp.values import reading

if TYPE_CHECKING:
    from pgflow_mp.flows.steps import StepDefinition

Handler = Callable[..., Any]


def check_annotations(
    handler: Handler, arguments: Sequence[Argument], facts: StepFacts, names: Mapping[str, Any]
) -> None:
    """Refuse what no item can satisfy, as far as annotations can be resolved while the module is run.

    Raises FlowDefinitionError with the parameter, or for a result that cannot be stored.
    """
    for argument in arguments:
        if facts.batch and argument.source is Source.MEMBERS:
            raise refuse_members(argument.name, _handler(handler, facts))
        converted = argument.source not in (Source.CONTEXT, Source.VALUE)
        if converted and not isinstance(argument.annotation, str):
            try:
                reader(handler, argument, facts)
            except _Unresolved:
                continue
    _check_result(handler, facts, names)


def reader(handler: Handler, argument: Argument, facts: StepFacts) -> tuple[Any, Callable[[Any], Any]]:
    """The type that an argument is converted to, and the decoder that does it.

    Raises FlowDefinitionError for an annotation that cannot be resolved, or that JSON cannot become.
    """
    where = f'{_handler(handler, facts)}: parameter "{argument.name}"'
    annotation = argument.annotation
    try:
        wanted = json_type(resolve(annotation, handler), argument.source)
        if facts.batch and argument.source is Source.INPUT:
            check_received(wanted, argument.name, _handler(handler, facts))
        trouble = unreadable(wanted)
        if trouble is None:
            decode = reading.decoder(wanted)
            if facts.tolerant:
                check_null(argument, wanted, decode, facts, _handler(handler, facts))
            return wanted, decode
        what, hint = f"{trouble.shown}{trouble.place}", trouble.hint
    except FlowDefinitionError:
        raise
    except TypeError as error:
        what, hint = str(error), KNOWN
    except Exception as error:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        raise _Unresolved(
            f"{where} has the annotation {text!r}, which cannot be resolved: {error}",
            hint="Define or import the type in the handler's module, outside of 'if TYPE_CHECKING:'.",
        ) from error
    raise FlowDefinitionError(
        f"{where} has an annotation that JSON cannot be converted to: {what}", hint=hint
    )


def json_type(wanted: Any, source: Source = Source.INPUT) -> Any:
    """The annotation as a decoder takes it: ``object`` and mappings of all parents are left as they are."""
    if source is Source.MEMBERS:
        (members,) = typing.get_args(wanted) if typing.get_origin(wanted) is typing.Unpack else (None,)
        return dict.__class_getitem__((str, wanted)) if members is None else members
    if wanted is typing.LiteralString:
        return str
    anything: tuple[Any, ...] = (object,)
    if source is Source.PARENTS:
        anything += (Mapping, Mapping[str, Any], Mapping[str, object])
    return Any if wanted in anything else wanted


def return_type(handler: Any, names: Mapping[str, Any] | None = None) -> Any:
    """What a handler says that it returns; EMPTY if nothing, or nothing that can be resolved."""
    annotation = getattr(handler, "__annotations__", {}).get("return")
    if annotation is None:
        return EMPTY
    try:
        return resolve(annotation, handler, names)
    except Exception:  # noqa: BLE001 - an annotation that only a type checker understands
        return EMPTY


def result_type(handler: Any, *, batch: bool = False, names: Mapping[str, Any] | None = None) -> Any:
    """The type that a result has once it is read again: what was yielded is a list then.

    Of a handler of batches it is the type of one item's. ``names`` are in sight besides the handler's own.
    """
    wanted = return_type(handler, names)
    if wanted is EMPTY:
        return Any
    if batch:
        return item_of(wanted)
    element = typing.get_args(wanted)[:1]
    streams = (collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)
    if typing.get_origin(wanted) in streams and element:
        return list.__class_getitem__(element[0])
    return wanted


def check_nulls(
    handler: Handler, arguments: Sequence[Argument], facts: StepFacts, parents: Sequence[StepDefinition]
) -> None:
    """Refuse floats of which NaN is made null by a parent, where nothing but a float can be read."""
    for parent in parents:
        returned = result_type(parent.handler, batch=parent.batch > 0) if parent.nan == "null" else Any
        if returned is Any or not _floats(returned):
            continue
        for argument in arguments:
            over = facts.is_map and argument.source is Source.INPUT
            if not over and (argument.source is not Source.PARENT or argument.of != parent.slug):
                continue
            wanted = _resolved(argument.annotation, handler)
            if _floats(wanted):
                shown = inspect.formatannotation(wanted)
                raise FlowDefinitionError(
                    f'{_handler(handler, facts)}: parameter "{argument.name}" is annotated {shown}, '
                    f'yet NaN is null in what step "{parent.slug}" returns (nan="null")',
                    hint=f'Annotate {shown.replace("float", "float | None")}, or let "{parent.slug}" have '
                    'nan="error".',
                )


def _resolved(annotation: Any, handler: Handler) -> Any:
    try:
        return resolve(annotation, handler)
    except Exception:  # noqa: BLE001 - reported when the flow is loaded
        return Any


def _floats(annotation: Any) -> bool:
    """Whether it is a float, or holds nothing but such."""
    annotation = plain(annotation)
    args = [arg for arg in typing.get_args(annotation) if arg is not Ellipsis]
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type) or not args:
        return annotation is float
    if issubclass(kind, collections.abc.Mapping):
        return _floats(args[-1])
    return issubclass(kind, collections.abc.Iterable) and all(map(_floats, args))


def _check_result(handler: Any, facts: StepFacts, names: Mapping[str, Any]) -> None:
    if hasattr(handler, "__wrapped__"):  # the decorator may return something else
        return
    wanted = return_type(handler, names)
    if facts.batch:
        nothing = getattr(handler, "__annotations__", {}).get("return", EMPTY) is None
        if nothing or wanted is not EMPTY:
            check_answered(None if nothing else wanted, _handler(handler, facts))
    trouble = None if wanted is EMPTY else unwritable(wanted)
    if trouble is not None:
        raise FlowDefinitionError(
            f"{_handler(handler, facts)} returns what cannot be stored as JSON, by its "
            f"annotation: {trouble.shown}{trouble.place}",
            hint=trouble.hint,
        )


def _handler(handler: Any, facts: StepFacts) -> str:
    return f"Handler {describe(handler)} of {facts.where}"


class _Unresolved(FlowDefinitionError):
    """It may be resolved once the module has been run to its end."""
