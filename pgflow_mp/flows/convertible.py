"""Annotations that no JSON value can satisfy, and results that cannot be written whatever they hold.

Both are found when a step is defined, with the path to them inside the annotation, instead of by every
item after the work before it is done. What cannot be told (a protocol, a forward reference) passes.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import os
import re
import sys
import types
import typing
import uuid
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from pgflow_mp.flows.annotations import plain
from pgflow_mp.values import columns, foreign, frames, reading

KNOWN: Final = (
    "Use builtin types, msgspec.Struct, dataclasses, TypedDict, dates, paths, numpy arrays, or no annotation."
)
PRIVATE: Final = "Attributes of attrs classes that start with an underscore are not written: rename them."
_COLUMNS: Final = "Types of columns are for annotations of parameters: here, leave them to the library."
_KEYS: Final = (str, int, float, enum.Enum, datetime.date, datetime.time, datetime.timedelta)
_MORE_KEYS: Final = (decimal.Decimal, uuid.UUID, os.PathLike, bytes)
_WRITTEN: Final = (
    *(*_KEYS, *_MORE_KEYS, types.NoneType, msgspec.Raw, msgspec.UnsetType, bytearray, memoryview),
    *(collections.abc.Mapping, collections.abc.Set, collections.abc.Sequence, collections.abc.Iterator),
)
_NEVER: Final = (complex, slice, type, types.FunctionType, types.ModuleType, types.GeneratorType, re.Pattern)


class Trouble(NamedTuple):
    """What is wrong at ``path`` (``.field``, ``[key]``) inside an annotation, and what to do."""

    path: str
    annotation: Any
    hint: str

    @property
    def place(self) -> str:
        """Where it is, for a message; empty if that is the annotation itself."""
        return f" (at {self.path.removeprefix('.')})" if self.path else ""

    @property
    def shown(self) -> str:
        """The type in question, as it is written in Python."""
        return inspect.formatannotation(self.annotation)


def unreadable(annotation: Any) -> Trouble | None:
    """The first part of a parameter's annotation that JSON can never be converted to."""
    return next(_unreadable(annotation, "", ()), None)


def unwritable(annotation: Any) -> Trouble | None:
    """The first part of a return annotation whose values can never be stored."""
    annotation = plain(annotation)
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    streams = (collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)
    if origin in streams and args:  # what is yielded becomes an array
        return next(_unwritable(args[0], "[...]", ()), None)
    return next(_unwritable(annotation, "", ()), None)


def _unreadable(annotation: Any, path: str, above: tuple[Any, ...]) -> Iterator[Trouble]:
    annotation = plain(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for arg in args:
            yield from _unreadable(arg, path, above)
        return
    kind = origin or annotation
    if not isinstance(kind, type) or origin is typing.Literal or kind in above or kind is msgspec.UnsetType:
        return
    if fields := _fields(kind):
        for name, inner in fields.items():
            if columns.said_of_columns(inner):
                yield Trouble(f"{path}.{name}", inner, _COLUMNS)
            yield from _unreadable(inner, f"{path}.{name}", (*above, kind))
        return
    if _is_custom(annotation):
        if reading.reader_of(kind) is None:
            yield Trouble(path, annotation, _instead(kind))
            return
        if not foreign.reads_elements(kind, args):
            yield Trouble(path, annotation, KNOWN)
            return
    for key, inner in _inside(kind, args):
        if key and not _is_key(inner):
            yield Trouble(path, annotation, _key_hint(inner))
        else:
            yield from _unreadable(inner, f"{path}{'' if key else '[...]'}", (*above, *_own(kind)))


def _unwritable(annotation: Any, path: str, above: tuple[Any, ...]) -> Iterator[Trouble]:
    annotation = plain(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        found = [next(_unwritable(arg, path, above), None) for arg in args if arg is not types.NoneType]
        if found and all(found) and found[0]:  # else it may be the other one that is returned
            yield found[0]
        return
    kind = origin or annotation
    if kind is collections.abc.Callable:
        yield Trouble(path, annotation, "Return what it would be called with.")
        return
    if not isinstance(kind, type) or origin is typing.Literal or kind in above:
        return
    if hidden := foreign.unwritten(kind):
        yield Trouble(f"{path}.{hidden}", annotation, PRIVATE)
        return
    if fields := _fields(kind):
        for name, inner in fields.items():
            yield from _unwritable(inner, f"{path}.{name}", (*above, kind))
        return
    if not _can_be_written(kind) or not foreign.reads_elements(kind, args):
        yield Trouble(path, annotation, _instead(kind))
        return
    for key, inner in _inside(kind, args):
        if key and not _is_key(inner):
            yield Trouble(path, annotation, _key_hint(inner))
        else:
            yield from _unwritable(inner, f"{path}{'' if key else '[...]'}", above)


def _own(kind: type) -> tuple[type, ...]:
    return () if kind.__module__ in ("builtins", "collections", "collections.abc", "types") else (kind,)


def _inside(kind: type, args: tuple[Any, ...]) -> Iterator[tuple[bool, Any]]:
    """The types inside a container, each with whether it is the type of keys."""
    if frames.library_of(kind) == "numpy":
        return
    is_mapping = issubclass(kind, collections.abc.Mapping)
    is_counter = issubclass(kind, collections.Counter)
    for index, arg in enumerate(args):
        if arg is not Ellipsis and not isinstance(arg, list):
            yield (is_mapping or is_counter) and index == 0, arg


def _is_custom(annotation: Any) -> bool:
    """Whether msgspec leaves the type to a hook."""
    try:
        return isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
    except Exception:  # noqa: BLE001 - what is wrong is said by whoever makes a decoder of it
        return False


def _fields(kind: type) -> dict[str, Any]:
    """The fields of Structs, dataclasses, TypedDicts, named tuples and attrs classes, with their types."""
    is_record = (
        issubclass(kind, msgspec.Struct)
        or dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or hasattr(kind, "__attrs_attrs__")
    )
    if not is_record:
        return {}
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - a forward reference: seen when the flow is loaded
        return {}
    if dataclasses.is_dataclass(kind):
        names = {field.name for field in dataclasses.fields(kind)}
        return {name: hint for name, hint in hints.items() if name in names}
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _is_key(annotation: Any) -> bool:
    annotation = plain(annotation)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(map(_is_key, typing.get_args(annotation)))
    if origin is typing.Literal:
        return all(isinstance(value, str | int) for value in typing.get_args(annotation))
    kind = origin or annotation
    if not isinstance(kind, type) or kind in (object, Any):
        return True
    if issubclass(kind, bool) or kind.__name__ == "bool":
        return False
    return issubclass(kind, (*_KEYS, *_MORE_KEYS)) or reading.is_text(kind) or foreign.can_read(kind)


def _key_hint(annotation: Any) -> str:
    name = inspect.formatannotation(plain(annotation))
    return f"JSON has strings for keys, and {name} is not read from one: use str, int, or a list of pairs."


def _can_be_written(kind: type) -> bool:
    """False for what is sure to be refused; in doubt True."""
    if kind in _NEVER or frames.is_lazy(kind):
        return False
    if frames.shape_of(kind):
        return True
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.complexfloating):
        return False
    if issubclass(kind, _WRITTEN) or reading.is_text(kind) or foreign.is_model(kind):
        return True
    if frames.library_of(kind) in ("numpy", "pandas"):
        return True
    may_be_more = inspect.isabstract(kind) or getattr(kind, "_is_protocol", False) or kind.__subclasses__()
    return bool(may_be_more) or kind.__module__ in ("builtins", "typing", "abc", "collections.abc", "numbers")


def _instead(kind: type) -> str:
    if frames.is_lazy(kind):
        return "Use DataFrame, of what collect() returns."
    if frames.library_of(kind) in ("pandas", "polars", "pyarrow"):
        return "Use DataFrame or Series, Table or RecordBatch, or pass its values as a list."
    if issubclass(kind, complex) or "complex" in kind.__name__:
        return "JSON has no complex numbers: use a pair of floats."
    if kind is range:
        return "Use list[int], or the two ends of it."
    if kind in (collections.abc.Generator, types.GeneratorType):
        return "Use Iterator or list."
    if kind.__name__ == "Callable":
        return "Functions do not travel: pass the name of one."
    return KNOWN
