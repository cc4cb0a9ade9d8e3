"""Whether a handler can be given the null of a failed item that a map tolerates.

AskedDefault of the decoder that will be used, so that what it makes of null is what counts; in doubt it can.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Final

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.annotations import plain
from pgflow_mp.flows.binding import Argument, Source, StepFacts
from pgflow_mp.flows.paged import Decode
from pgflow_mp.values import reading

_MODULES: Final = re.compile(r"\b(?:typing|collections\.abc|builtins)\.")


def check_null(argument: Argument, wanted: Any, decode: Decode, facts: StepFacts, where: str) -> None:
    """Refuse an argument that cannot hold null where an item of its parent may be one.

    ``wanted`` is the type that ``decode`` makes, ``where`` names the handler. Raises FlowDefinitionError.
    """
    found = _found(argument, wanted, decode, facts)
    if found is None:
        return
    parent, shown, better = found
    raise FlowDefinitionError(
        f'{where}: parameter "{argument.name}" is annotated {shown}, which cannot hold null, yet step '
        f'"{parent}" tolerates failed items, and each of them is null',
        hint=f'Annotate it {better}, or remove tolerate= of step "{parent}".',
    )


def _found(argument: Argument, wanted: Any, decode: Decode, facts: StepFacts) -> tuple[str, str, str] | None:
    """A parent whose nulls do not fit, how the argument is annotated, and how it should be."""
    source, shown = argument.source, _shown(wanted)
    if facts.is_map:
        if not facts.tolerant:
            return None
        (parent,) = facts.tolerant
        if source is Source.MEMBERS and not _takes(decode, b"null"):
            member = "Any" if wanted is Any else _shown(typing.get_args(wanted)[-1])
            return parent, f"**{argument.name}: {member}", "item: dict[str, Any] | None, without **"
        if source is not Source.INPUT:
            return None
        if facts.batch:
            return (parent, shown, _with_null(wanted)) if _refuses(decode, b"[", b"]") else None
        return None if _takes(decode, b"null") else (parent, shown, f"{shown} | None")
    if source is Source.PARENT and argument.of in facts.tolerant:
        return (argument.of, shown, _with_null(wanted)) if _refuses(decode, b"[", b"]") else None
    if source is Source.OTHER_PARENTS and facts.tolerant:
        return (facts.tolerant[0], shown, _with_null(wanted)) if _refuses(decode, b"[", b"]") else None
    return _in_mapping(wanted, facts.tolerant) if source is Source.PARENTS else None


def _in_mapping(wanted: Any, tolerant: Sequence[str]) -> tuple[str, str, str] | None:
    """The same of the mapping of all parents' outputs."""
    kind = typing.get_origin(plain(wanted)) or plain(wanted)
    args = typing.get_args(plain(wanted))
    for parent in tolerant:
        if isinstance(kind, type) and issubclass(kind, collections.abc.Mapping) and len(args) == 2:
            value = args[1]
        else:
            value = _members(kind).get(parent, Any)
        if _refuses(_decoder(value), b"[", b"]"):
            better = _with_null(value)
            if args:
                return parent, _shown(wanted), _shown(wanted).replace(_shown(value), better)
            return parent, f"{_shown(wanted)} (its {parent}: {_shown(value)})", f"{parent}: {better} there"
    return None


def _decoder(wanted: Any) -> Decode:
    """That of a type, or, of what cannot be read, which others refuse, of anything."""
    try:
        return reading.decoder(wanted)
    except Exception:  # noqa: BLE001
        return reading.decoder(Any)


def _members(kind: Any) -> dict[str, Any]:
    """The types of a record's members by name; none of what is no record."""
    try:
        return typing.get_type_hints(kind, include_extras=True) if isinstance(kind, type) else {}
    except Exception:  # noqa: BLE001 - a forward reference
        return {}


def _refuses(decode: Decode, before: bytes, after: bytes) -> bool:
    """Whether an array is taken, but not one that holds null."""
    return _takes(decode, before + after) and not _takes(decode, before + b"null" + after)


def _takes(decode: Decode, text: bytes) -> bool:
    try:
        decode(text)
    except Exception:  # noqa: BLE001 - whatever it is, it is no value
        return False
    return True


def _with_null(wanted: Any) -> str:
    """The annotation of a list, as it should be for its elements to be null, too."""
    wanted = plain(wanted)
    args = typing.get_args(wanted)
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return " | ".join("None" if arg is types.NoneType else _with_null(arg) for arg in args)
    if not args or not isinstance(typing.get_origin(wanted), type):
        return _shown(wanted) if isinstance(wanted, type) and not _holds(wanted) else "list[... | None]"
    name = typing.get_origin(wanted).__name__
    rest = ", ..." if len(args) == 2 and args[1] is Ellipsis else ""
    return f"{name}[{_shown(args[0])} | None{rest}]"


def _holds(kind: type) -> bool:
    return issubclass(kind, collections.abc.Iterable) and not issubclass(kind, str | bytes)


def _shown(annotation: Any) -> str:
    if annotation is types.NoneType:
        return "None"
    return _MODULES.sub("", inspect.formatannotation(annotation))
