"""Frames, series and Arrow tables, made of JSON: rows are objects, columns arrays.

A column has the type that its annotation says, ``Annotated[DataFrame, {"day": "datetime64[ns]"}]``, in the
words of the library or of Python; else that of its JSON values: integers, floats, booleans, texts.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from pgflow_mp.values import casting
from pgflow_mp.values.frames import library_of, shape_of

_FORMS: Final = "{'name': type}, a TypedDict, a dataclass or the like, or a schema of Arrow"


class ColumnTypes(NamedTuple):
    """Types of columns by name; of a Series, by ""."""

    types: Mapping[str, Any]


def can_make(kind: Any) -> bool:
    """Whether :func:`make` makes objects of a class."""
    if not shape_of(kind) or kind.__name__ == "Index":
        return False
    own = kind.__name__ in casting.MADE.get(library_of(kind), ())  # subclasses have needs of their own
    return own and library_of(kind) in sys.modules


def make(kind: Any, wanted: ColumnTypes | None, value: Any) -> Any:
    """A frame or a column of JSON. Raises ValueError or TypeError."""
    known = {} if wanted is None else wanted.types
    if not isinstance(value, list):
        raise ValueError(f"Expected `array`, got `{json_name(value)}`")
    caster = casting.caster_of(library_of(kind))
    if shape_of(kind) == "column":
        return caster.series(kind, caster.column("", value, known.get("")))
    columns = {
        name: caster.column(name, values, known.get(name)) for name, values in _columns(value, known).items()
    }
    return caster.frame(kind, columns, len(value))


def _columns(rows: list[Any], known: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Those of the annotation first, then the others as they come; null where a row has none."""
    names = dict.fromkeys(known)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"Expected `object`, got `{json_name(row)}` in row {number}")
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in names}


def json_name(value: Any) -> str:
    """The kind of a decoded JSON value as errors name it."""
    names = {dict: "object", list: "array", type(None): "null"}
    return names.get(type(value), type(value).__name__)


# -- annotations -----------------------------------------------------------------------------------


class _Typed(type):
    """Metaclass of the classes that stand for ``Annotated[DataFrame, types]`` in msgspec's eyes."""

    kind: Any
    wanted: ColumnTypes

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.kind)


def wanted_of(stand_in: Any) -> tuple[Any, ColumnTypes] | None:
    """The class of frames and the columns that a class made by :func:`prepared` stands for."""
    return (stand_in.kind, stand_in.wanted) if isinstance(stand_in, _Typed) else None


def prepared(annotation: Any) -> Any:
    """An annotation with the column types in it as msgspec passes them on, which forgets what Annotated says.

    Raises TypeError for column types that nothing can have.
    """
    if not any(library in sys.modules for library in casting.MADE):
        return annotation
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner, *said = args
        if can_make(inner):
            wanted = _wanted(inner, said)
            name = inner.__name__
            return inner if wanted is None else _Typed(name, (), {"kind": inner, "wanted": wanted})
        changed = prepared(inner)
        return annotation if changed is inner else Annotated[(changed, *said)]
    if not args or origin is None or origin is typing.Literal:
        return annotation
    made = tuple(arg if isinstance(arg, list) else prepared(arg) for arg in args)
    if all(new is old for new, old in zip(made, args, strict=True)):
        return annotation
    if origin in (typing.Union, types.UnionType):
        return typing.Union[made]  # noqa: UP007 - of a tuple
    return annotation.copy_with(made) if hasattr(annotation, "copy_with") else origin[made]


def record_of(annotation: Any) -> Any:
    """The class whose fields are the columns of a frame, by its annotation; None if there is none."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is not Annotated or shape_of(args[0]) != "frame":
        return None
    return next((said for said in args[1:] if _is_record(said)), None)


def said_of_columns(annotation: Any) -> bool:
    """Whether it is a frame with types of its columns, which only annotations of parameters may have."""
    args = typing.get_args(annotation)
    return typing.get_origin(annotation) is Annotated and can_make(args[0]) and bool(_said(*args))


def _said(kind: Any, *said: Any) -> list[Any]:
    """What is no comment."""
    return [each for each in said if shape_of(kind) == "column" or not isinstance(each, str)]


def _wanted(kind: Any, said: list[Any]) -> ColumnTypes | None:
    for each in _said(kind, *said):
        caster = casting.caster_of(library_of(kind))
        if shape_of(kind) == "column":
            return ColumnTypes({"": caster.check(each)})
        found = _by_name(each)
        if found is None:
            raise TypeError(f"{each!r} says nothing of the columns of a {kind.__name__}: give {_FORMS}")
        return ColumnTypes({name: caster.check(dtype) for name, dtype in found.items()})
    return None


def _by_name(said: Any) -> Mapping[str, Any] | None:
    if isinstance(said, Mapping):
        return said
    if _is_record(said):  # whose fields may be more than a column can say: lists, enums
        hints = typing.get_type_hints(said)
        return {name: hint if casting.is_simple(hint) else Any for name, hint in hints.items()}
    if library_of(type(said)) == "pyarrow" and hasattr(said, "names"):
        return dict(zip(said.names, said.types, strict=True))
    return None


def _is_record(said: Any) -> bool:
    return isinstance(said, type) and (
        typing.is_typeddict(said)
        or issubclass(said, msgspec.Struct)
        or dataclasses.is_dataclass(said)
        or hasattr(said, "_fields")
        or hasattr(said, "__attrs_attrs__")
    )
