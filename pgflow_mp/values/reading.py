"""JSON as what an annotation asks for.

msgspec knows builtin types, dates, Structs, dataclasses and more. Here are the types that it leaves to
others and that have one obvious form in JSON: paths and other texts, deques, counters and other mappings,
iterables, subclasses of builtin types, and those of pgflow_mp.values.foreign.
"""

from __future__ import annotations

import collections
import collections.abc
import os
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pgflow_mp.values import columns, foreign, frames

_TEXTS: Final = ("fractions", "ipaddress")
"""Modules whose classes are made of what str() makes of them."""
_BUILTINS: Final = (str, int, float, list, dict, tuple, set, frozenset)
_SAMPLES: Final[tuple[Any, ...]] = ("a", 1, 1.5, True, [], {})
_FACTORIES: Final = (int, float, str, bool, list, dict, set)

Reader = Callable[[Any, type, Any], Any]
"""(annotation, its class, decoded JSON) to the object; raises ValueError or TypeError."""


def decoder(annotation: Any) -> Callable[[Any], Any]:
    """A function from JSON text to what ``annotation`` asks for, which raises msgspec.DecodeError.

    Raises TypeError for an annotation that JSON can never be converted to.
    """
    return msgspec.json.Decoder(columns.prepared(annotation), dec_hook=read).decode


def read(annotation: Any, value: Any) -> Any:
    """msgspec's hook for types that it does not know."""
    origin = typing.get_origin(annotation) or annotation
    reader = reader_of(origin)
    if reader is None:
        raise ValueError(f"Expected `{_name(annotation)}`, which JSON cannot be converted to")
    try:
        return reader(annotation, origin, value)
    except (ArithmeticError, LookupError) as error:  # of a class that is made of the value
        raise ValueError(str(error)) from error


def reader_of(kind: Any) -> Reader | None:
    """How objects of a class are made of JSON, which msgspec does not know by itself; None if they cannot."""
    if kind in _READERS:
        return _READERS[kind]
    if not isinstance(kind, type):
        return None
    if foreign.can_read(kind):
        return foreign.from_plain
    if columns.wanted_of(kind) is not None:
        return _typed_columns
    if issubclass(kind, pathlib.PurePath) or is_text(kind):
        return _text
    base = builtin_of(kind)
    if base is not None:
        return _subclass
    return _as_it_is if any(_is_instance(sample, kind) for sample in _SAMPLES) else None


def is_text(kind: type) -> bool:
    """Whether objects of a class are written by str() and made of that by the class."""
    return any(base.__module__ in _TEXTS for base in kind.__mro__)


def builtin_of(kind: type) -> type | None:
    """The builtin type of which this is a subclass that is made in the same way."""
    base = next((base for base in _BUILTINS if issubclass(kind, base)), None)
    if base is None or kind is base or frames.library_of(kind) in frames.LIBRARIES:
        return None
    is_plain = all(getattr(kind, name) == getattr(base, name) for name in ("__new__", "__init__"))
    return base if is_plain else None


def _to(kind: Any, value: Any) -> Any:
    return msgspec.convert(value, kind, dec_hook=read, str_keys=True)


def _args(annotation: Any, *defaults: Any) -> tuple[Any, ...]:
    args = typing.get_args(annotation)
    return args + defaults[len(args) :]


def _text(annotation: Any, kind: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"Expected `{_name(annotation)}`, got `{columns.json_name(value)}`")
    return kind(value)


def _path(annotation: Any, kind: type, value: Any) -> Any:
    return _text(annotation, pathlib.Path, value)


def _list(annotation: Any, kind: type, value: Any) -> Any:
    (element,) = _args(annotation, Any)[:1]
    if isinstance(value, dict) and element in (Any, str, object):  # the mapping of all parents' outputs
        return value
    return _to(list.__class_getitem__(element), value)


def _sequence(annotation: Any, kind: type, value: Any) -> Any:
    (element,) = _args(annotation, Any)[:1]
    made = _to(list.__class_getitem__(element), value)
    return iter(made) if kind is collections.abc.Iterator else kind(made)


def _mapping(annotation: Any, kind: type, value: Any) -> Any:
    key, item = _args(annotation, str, Any)[:2]
    return kind(_to(dict.__class_getitem__((key, item)), value))


def _counter(annotation: Any, kind: type, value: Any) -> Any:
    (key,) = _args(annotation, str)[:1]
    return kind(_to(dict.__class_getitem__((key, int)), value))


def _defaultdict(annotation: Any, kind: type, value: Any) -> Any:
    key, item = _args(annotation, str, Any)[:2]
    factory = typing.get_origin(item) or item
    made = _to(dict.__class_getitem__((key, item)), value)
    return collections.defaultdict(factory if factory in _FACTORIES else None, made)


def _subclass(annotation: Any, kind: type, value: Any) -> Any:
    base: Any = builtin_of(kind)
    generic = next(
        (each for each in getattr(kind, "__orig_bases__", ()) if typing.get_origin(each) is base), base
    )
    return kind(_to(generic, value))


def _typed_columns(annotation: Any, kind: type, value: Any) -> Any:
    frame, wanted = columns.wanted_of(kind) or (kind, None)
    return columns.make(frame, wanted, value)


def _as_it_is(annotation: Any, kind: type, value: Any) -> Any:
    if not _is_instance(value, kind):
        raise ValueError(f"Expected `{_name(annotation)}`, got `{columns.json_name(value)}`")
    return value


def _is_instance(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that says nothing at run time
        return False


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


_READERS: Final[dict[Any, Reader]] = {
    os.PathLike: _path,
    collections.deque: _sequence,
    collections.UserList: _sequence,
    collections.UserString: _text,
    collections.Counter: _counter,
    collections.defaultdict: _defaultdict,
    collections.OrderedDict: _mapping,
    collections.ChainMap: _mapping,
    collections.UserDict: _mapping,
    types.MappingProxyType: _mapping,
    collections.abc.Iterator: _sequence,
    collections.abc.Iterable: _list,
    collections.abc.Reversible: _list,
    collections.abc.Container: _list,
    collections.abc.Sized: _list,
}
