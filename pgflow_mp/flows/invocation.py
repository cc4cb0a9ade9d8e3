"""How a handler is called with what a task has: its arguments decoded, each by its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pgflow_mp.errors import OnStartFailed, PgflowError
from pgflow_mp.flows import paged
from pgflow_mp.flows.binding import EMPTY, Argument, Source
from pgflow_mp.flows.checks import reader
from pgflow_mp.flows.context import Context

if TYPE_CHECKING:
    from pgflow_mp.flows.steps import StepDefinition

Invocation = Callable[[Any, "bytes | None", Context], Any]
"""A handler's call with an item's input, the flow's input where it is wanted, and the context."""
_Get = Callable[[bytes, "bytes | None", Context, "dict[str, msgspec.Raw]"], Any]
_GetOthers = Callable[[Context, "dict[str, msgspec.Raw]"], "dict[str, Any]"]
_decode_parents: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class InputMismatch(PgflowError):
    """The input of a task does not fit what its handler's annotations ask for."""


def noting(call: Invocation, raised: list[BaseException]) -> Invocation:
    """The same call, which adds what it raises to a list; what it yields is drawn within."""

    def noted(*arguments: Any) -> Any:
        try:
            result = call(*arguments)
            return list(result) if isinstance(result, Iterator) else result
        except BaseException as error:
            raised.append(error)
            raise

    return noted


def takes_item_alone(step: StepDefinition) -> bool:
    """Whether the handler receives the item and nothing else."""
    return [(argument.source, argument.positional) for argument in step.arguments] == [(Source.INPUT, True)]


def values_after_item(step: StepDefinition, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a handler that receives the item and then values; nothing if it is another one."""
    first, *others = step.arguments or (None,)
    if first is None or (first.source, first.positional) != (Source.INPUT, True):
        return ()
    if not all(other.source is Source.VALUE and other.positional and other.of in values for other in others):
        return ()
    return tuple(values[other.of] for other in others)


def compiled(step: StepDefinition, values: Mapping[str, Any]) -> Invocation:
    """A function that gets the arguments and calls the handler, specialised for the common signatures.

    ``values`` are what on_start functions have returned in this process.
    """
    handler = step.handler
    is_root = not step.dependencies and step.step_type == "single"
    sources = [argument.source for argument in step.arguments]
    by_position = all(argument.positional for argument in step.arguments)
    if not sources:
        return lambda input, flow_input, ctx: handler()
    if by_position and sources in ([Source.INPUT], [Source.INPUT, Source.CONTEXT]) and not is_root:
        decode = checked_decoder(step, step.arguments[0])
        if len(sources) == 1:
            return lambda input, flow_input, ctx: handler(decode(input))
        return lambda input, flow_input, ctx: handler(decode(input), ctx)
    if not is_root and (more := values_after_item(step, values)):
        decode = checked_decoder(step, step.arguments[0])
        return lambda input, flow_input, ctx: handler(decode(input), *more)
    return _general(step, is_root, values)


def _general(step: StepDefinition, is_root: bool, values: Mapping[str, Any]) -> Invocation:
    handler = step.handler
    by_position: list[_Get] = []
    by_name: list[tuple[str, _Get]] = []
    others: _GetOthers | None = None
    members: _Get | None = None
    needs_parents = False
    for argument in step.arguments:
        needs_parents = needs_parents or argument.source in (Source.PARENT, Source.OTHER_PARENTS)
        if argument.source is Source.OTHER_PARENTS:
            others = _other_parents(step, argument)
        elif argument.source is Source.MEMBERS:
            members = _members(step, argument, is_root, values)
        elif argument.positional:
            by_position.append(_getter(step, argument, is_root, values))
        else:
            by_name.append((argument.name, _getter(step, argument, is_root, values)))

    def call(input: bytes, flow_input: bytes | None, ctx: Context) -> Any:
        parents: dict[str, msgspec.Raw] = _parents(step, input) if needs_parents else {}
        arguments = [get(input, flow_input, ctx, parents) for get in by_position]
        if not by_name and others is None and members is None:
            return handler(*arguments)
        named = {name: get(input, flow_input, ctx, parents) for name, get in by_name}
        if others is not None:
            named.update(others(ctx, parents))
        if members is not None:
            named.update(members(input, flow_input, ctx, parents))
        return handler(*arguments, **named)

    return call


def _getter(step: StepDefinition, argument: Argument, is_root: bool, values: Mapping[str, Any]) -> _Get:
    """How one argument is made of a task."""
    source, name = argument.source, argument.of
    if source is Source.VALUE:
        return lambda input, flow_input, ctx, parents: _made(values, name)
    if source is Source.CONTEXT:
        return lambda input, flow_input, ctx, parents: ctx
    wanted, decode, mismatch = _decoding(step, argument)
    if source is Source.FLOW_INPUT:
        return lambda input, flow_input, ctx, parents: ctx.runtime.flow_input(ctx.run_id, flow_input, decode)
    if source is Source.PARENT:
        default = None if argument.default is EMPTY else argument.default
        read = paged.reader(wanted, decode, mismatch)

        def parent(input: bytes, flow_input: bytes | None, ctx: Context, parents: dict[str, Any]) -> Any:
            raw = parents.get(name)
            if raw is not None:
                return decode(raw)
            return read(ctx, name) if ctx.paged is not None and name in ctx.paged else default

        return parent
    if source is Source.PARENTS:
        read_all = paged.mapping_reader(wanted, decode, mismatch)
        return lambda input, flow_input, ctx, parents: (
            decode(input) if ctx.paged is None else read_all(ctx, input)
        )
    if is_root:
        return lambda input, flow_input, ctx, parents: (
            ctx.runtime.flow_input(ctx.run_id, None, decode) if flow_input is None else decode(flow_input)
        )
    return lambda input, flow_input, ctx, parents: decode(input)


def _members(step: StepDefinition, argument: Argument, is_root: bool, values: Mapping[str, Any]) -> _Get:
    """The members of the input by name, none of which may be that of another parameter."""
    get = _getter(step, argument, is_root, values)
    taken = {other.name for other in step.arguments if other is not argument}

    def members(input: bytes, flow_input: bytes | None, ctx: Context, parents: dict[str, Any]) -> Any:
        found = get(input, flow_input, ctx, parents)
        if twice := taken.intersection(found):
            raise InputMismatch(
                f'Input of step "{step.slug}" does not fit parameter "{argument.name}": it has a member '
                f'"{min(twice)}", which is another parameter of the handler'
            )
        return found

    return members


def _other_parents(step: StepDefinition, argument: Argument) -> _GetOthers:
    wanted, decode, mismatch = _decoding(step, argument)
    read = paged.reader(wanted, decode, mismatch)
    named = {other.of for other in step.arguments if other.source is Source.PARENT}

    def others(ctx: Context, parents: dict[str, msgspec.Raw]) -> dict[str, Any]:
        found = {slug: decode(raw) for slug, raw in parents.items() if slug not in named}
        return found | {slug: read(ctx, slug) for slug in ctx.paged or () if slug not in named}

    return others


def _parents(step: StepDefinition, input: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_parents(input)
    except msgspec.DecodeError as error:
        raise InputMismatch(
            f'Input of step "{step.slug}" is not an object of parent outputs: {error}'
        ) from None


def checked_decoder(step: StepDefinition, argument: Argument) -> Callable[[Any], Any]:
    """A decoder for the argument's type that raises InputMismatch, with msgspec's path."""
    return _decoding(step, argument)[1]


def _decoding(
    step: StepDefinition, argument: Argument
) -> tuple[Any, Callable[[Any], Any], Callable[[str], InputMismatch]]:
    """The argument's type, a decoder for it, and the error for what does not fit."""
    wanted, decode = reader(step.handler, argument, step.facts)
    freeze = argument.source is Source.PARENTS and wanted is Any

    def mismatch(text: str) -> InputMismatch:
        return InputMismatch(f'Input of step "{step.slug}" does not fit parameter "{argument.name}": {text}')

    def decode_checked(raw: Any) -> Any:
        try:
            return decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise mismatch(str(error)) from None

    if freeze:
        return wanted, lambda raw: MappingProxyType(decode_checked(raw)), mismatch
    return wanted, decode_checked, mismatch


def _made(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise OnStartFailed(f'on_start function "{name}" has not been called in this process')
    return values[name]
