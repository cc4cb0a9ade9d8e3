"""What a type annotation says about the JSON values that can be converted to it."""

from __future__ import annotations

import collections.abc
import datetime
import decimal
import enum
import types
import typing
import uuid
from typing import Any, Final

_NO_MAPPINGS: Final = (
    int,
    float,
    str,
    bytes,
    bytearray,
    memoryview,
    list,
    tuple,
    set,
    frozenset,
    types.NoneType,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    enum.Enum,
    collections.abc.Sequence,
    collections.abc.Set,
)


_AROUND: Final = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final)


def can_hold_a_mapping(annotation: Any) -> bool:
    """Whether a JSON object may be converted to ``annotation``; in doubt, yes."""
    annotation = plain(annotation)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(map(can_hold_a_mapping, typing.get_args(annotation)))
    if annotation is None or origin is typing.Literal:
        return False
    kind = origin or annotation
    if kind is collections.abc.Collection:  # of which a mapping is one, but JSON's are arrays
        return False
    return not (isinstance(kind, type) and issubclass(kind, _NO_MAPPINGS))


def plain(annotation: Any) -> Any:
    """The type behind Annotated, NewType, Required, Final and the statement ``type``."""
    while True:
        if typing.get_origin(annotation) in _AROUND:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # from Python 3.12 on
            annotation = annotation.__value__
        else:
            return annotation
