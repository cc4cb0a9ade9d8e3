"""Whether what one step gives can be what another one takes: the types as JSON values have them.

Only what is plain to see counts: numbers are no texts, and an object lacks a field. Types that JSON is
converted to by a reader of ours or of a library take anything, and so does what nothing is known of.
"""

from __future__ import annotations

import collections.abc
import enum
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import inspect as info

from pgflow_mp.flows.annotations import plain
from pgflow_mp.values import reading

_TEXTS: Final = (
    info.StrType,
    info.BytesType,
    info.ByteArrayType,
    info.MemoryViewType,
    info.DateTimeType,
    info.DateType,
    info.TimeType,
    info.TimeDeltaType,
    info.UUIDType,
)
_ITEMS: Final = (info.ListType, info.SetType, info.FrozenSetType, info.VarTupleType, info.CollectionType)
_RECORDS: Final = (info.StructType, info.DataclassType, info.TypedDictType)
_NUMBERS: Final = ("integer", "number")
_LAZY: Final = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)
_BUILTINS: Final = ((str, "text"), (int, "integer"), (float, "number"), (list, "array"), (tuple, "array"))


def assignable(given: Any, wanted: Any) -> bool:
    """Whether values of an annotation, stored as JSON, can all be read as another; in doubt, yes."""
    if given == wanted:
        return True
    ours, theirs = _known(given), _known(wanted)
    return ours is None or theirs is None or _fits(ours, theirs, frozenset())


def contains(given: Any, pattern: Any) -> bool:
    """Whether a value of an annotation can contain a JSON pattern, as ``when=`` asks; in doubt, yes."""
    known = _known(given)
    return known is None or _may_contain(known, pattern)


def element_of(annotation: Any) -> Any:
    """The type of the elements of what is written as an array; Any if nothing says it, None if it is none."""
    known = _known(annotation)
    arms = [arm for arm in _arms(known) if not isinstance(arm, info.NoneType)] if known else []
    if arms and not any(_kind(arm) in ("array", "") for arm in arms):
        return None
    annotation = plain(annotation)
    origin = typing.get_origin(annotation)
    if not isinstance(origin, type) or not issubclass(origin, collections.abc.Iterable):
        return Any
    args = [types.NoneType if arg is None else arg for arg in typing.get_args(annotation)]
    if origin in _LAZY:  # a generator's are what it yields, takes and returns
        return args[0]
    args = [arg for arg in args if arg is not Ellipsis]
    is_of_one = len(args) == 1 and not issubclass(origin, collections.abc.Mapping)
    return args[0] if is_of_one else Any  # more are a tuple's, a mapping's, or shape and type of an array


def _known(annotation: Any) -> info.Type | None:
    annotation = plain(annotation)
    if annotation is None:
        return info.NoneType()
    if typing.get_origin(annotation) in _LAZY:
        annotation = list.__class_getitem__(typing.get_args(annotation)[0])
    try:
        found = info.type_info(annotation)
    except Exception:  # noqa: BLE001 - whatever msgspec does not take
        return None
    return found


def _fits(given: info.Type, wanted: info.Type, above: frozenset[tuple[int, int]]) -> bool:
    pair = (id(given), id(wanted))
    if pair in above:
        return True
    above |= {pair}
    return all(any(_arm_fits(arm, other, above) for other in _arms(wanted)) for arm in _arms(given))


def _arm_fits(given: info.Type, wanted: info.Type, above: frozenset[tuple[int, int]]) -> bool:
    ours, theirs = _kind(given), _kind(wanted)
    if not ours or not theirs:
        return True
    if isinstance(given, info.LiteralType) or isinstance(wanted, info.LiteralType | info.EnumType):
        return _values_fit(given, wanted)
    if isinstance(given, info.EnumType):
        return all(_becomes(_kind_of(member.value), theirs) for member in given.cls)
    if isinstance(wanted, info.DecimalType):
        return ours in ("text", *_NUMBERS)
    if ours != theirs:
        return _becomes(ours, theirs)
    if ours == "array":
        return _arrays_fit(given, wanted, above)
    if ours == "object":
        return _objects_fit(given, wanted, above)
    return True


def _arms(known: info.Type) -> Iterable[info.Type]:
    while isinstance(known, info.Metadata):
        known = known.type
    return known.types if isinstance(known, info.UnionType) else (known,)


def _kind(known: info.Type) -> str:
    """What JSON calls it; nothing if it may be several, or is not known."""
    if isinstance(known, info.Metadata):
        return _kind(known.type)
    if isinstance(known, info.NoneType):
        return "null"
    if isinstance(known, info.BoolType):
        return "boolean"
    if isinstance(known, info.IntType):
        return "integer"
    if isinstance(known, info.FloatType):
        return "number"
    if isinstance(known, (*_TEXTS, info.DecimalType)):
        return "text"
    if isinstance(known, (*_ITEMS, info.TupleType, info.NamedTupleType)):
        return "array"
    if isinstance(known, info.StructType):
        return "array" if known.array_like else "object"
    if isinstance(known, info.DictType | info.TypedDictType | info.DataclassType):
        return "object"
    if isinstance(known, info.EnumType | info.LiteralType):
        values = known.values if isinstance(known, info.LiteralType) else [each.value for each in known.cls]
        kinds = {_kind_of(value) for value in values}
        return kinds.pop() if len(kinds) == 1 else "several"
    if isinstance(known, info.CustomType) and isinstance(known.cls, type):
        if reading.is_text(known.cls) or issubclass(known.cls, os.PathLike):
            return "text"
        return next((kind for builtin, kind in _BUILTINS if issubclass(known.cls, builtin)), "")
    return ""


def _kind_of(value: Any) -> str:
    kinds = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "text"}
    for kind in type(value).__mro__:
        if kind in kinds:
            return kinds[kind]
    return ""


def _becomes(kind: str, other: str) -> bool:
    return kind in (other, "") or (kind, other) == ("integer", "number")


def _values_fit(given: info.Type, wanted: info.Type) -> bool:
    """Of Literals and enums; every text may be the one that is meant."""
    taken = _values(wanted)
    if taken is None:
        return all(_becomes(_kind_of(value), _kind(wanted)) for value in _values(given) or ())
    have = _values(given)
    if have is not None:
        return have <= taken
    return any(_kind_of(value) == _kind(given) for value in taken)


def _values(known: info.Type) -> set[Any] | None:
    if isinstance(known, info.LiteralType):
        return {value.value if isinstance(value, enum.Enum) else value for value in known.values}
    return {each.value for each in known.cls} if isinstance(known, info.EnumType) else None


def _arrays_fit(given: info.Type, wanted: info.Type, above: frozenset[tuple[int, int]]) -> bool:
    ours, theirs = _positions(given), _positions(wanted)
    if ours is not None and theirs is not None:
        needed = sum(required for _, required in theirs)
        if not needed <= len(ours) <= len(theirs):
            return False
        return all(_fits(one, other, above) for (one, _), (other, _) in zip(ours, theirs, strict=False))
    one, other = _item(given), _item(wanted)
    if theirs is not None and one is not None:
        return all(_fits(one, each, above) for each, _ in theirs)
    if ours is not None and other is not None:
        return all(_fits(each, other, above) for each, _ in ours)
    return one is None or other is None or _fits(one, other, above)


def _positions(known: info.Type) -> list[tuple[info.Type, bool]] | None:
    """The types by position of what has a certain length, each with whether it has to be there."""
    if isinstance(known, info.TupleType):
        return [(each, True) for each in known.item_types]
    if isinstance(known, info.NamedTupleType):
        return [(field.type, field.required) for field in known.fields]
    if isinstance(known, info.StructType):
        return [(field.type, field.required) for field in known.fields]
    return None


def _item(known: info.Type) -> info.Type | None:
    return known.item_type if isinstance(known, _ITEMS) else None


def _objects_fit(given: info.Type, wanted: info.Type, above: frozenset[tuple[int, int]]) -> bool:
    ours, theirs = _fields(given), _fields(wanted)
    if ours is None and theirs is None:
        one, other = _value(given), _value(wanted)
        return one is None or other is None or _fits(one, other, above)
    if theirs is None:
        other = _value(wanted)
        return other is None or all(_fits(field.type, other, above) for field in (ours or {}).values())
    if ours is None:
        one = _value(given)
        needed = [field.type for field in theirs.values() if field.required]
        return one is None or all(any(_fits(arm, each, above) for arm in _arms(one)) for each in needed)
    return all(
        _fits(ours[name].type, field.type, above) if name in ours else not field.required
        for name, field in theirs.items()
    )


def _fields(known: info.Type) -> Mapping[str, info.Field] | None:
    if isinstance(known, _RECORDS):
        return {field.encode_name: field for field in known.fields}
    return None


def _value(known: info.Type) -> info.Type | None:
    return known.value_type if isinstance(known, info.DictType) else None


def _may_contain(known: info.Type, pattern: Any) -> bool:
    return any(_arm_contains(arm, pattern) for arm in _arms(known))


def _arm_contains(known: info.Type, pattern: Any) -> bool:
    kind = _kind(known)
    if not kind or kind == "several":
        return True
    if isinstance(pattern, Mapping):
        if kind != "object":
            return False
        fields, value = _fields(known), _value(known)
        if fields is None:
            return value is None or all(_may_contain(value, each) for each in pattern.values())
        return all(name in fields and _may_contain(fields[name].type, each) for name, each in pattern.items())
    if isinstance(pattern, list | tuple):
        item = _item(known)
        return kind == "array" and (item is None or all(_may_contain(item, each) for each in pattern))
    if (values := _values(known)) is not None:
        return pattern in values
    found = _kind_of(pattern)
    return not found or found == kind or {found, kind} == set(_NUMBERS)
