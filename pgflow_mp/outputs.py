"""Encoding of a handler's result, and the checks that PostgreSQL's jsonb and plain JSON ask for.

msgspec decides how a value looks in JSON: tuples and sets become arrays, dates, UUIDs and Decimals
strings, integers of any size numbers, integer and float keys strings. Besides what msgspec takes,
numpy scalars and arrays, other mappings and sequences, subclasses of str, int and float, and paths
are encoded. Refused, because they would be stored as something else or not at all: NaN and
Infinity, bytes, NUL characters, lone surrogates, cycles, values nested too deeply, and too much.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from typing import Any, Final
from uuid import UUID

import msgspec

from pgflow_mp.errors import PgflowError

MAX_OUTPUT_BYTES: Final = 200 * 1024 * 1024
MAX_DEPTH: Final = 500
_JSONB_LIMIT: Final = 0x0FFFFFFF  # bytes of one jsonb container, in PostgreSQL's binary form
_MAX_DIGITS: Final = 131_072  # of PostgreSQL's numeric, before the decimal point
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_PLAIN: Final = frozenset({int, str, bool, type(None)})
_SCALARS: Final = _PLAIN | {float}
_JUST_STR: Final = frozenset({str})
_GROUPS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((bytes, bytearray, memoryview), "bytes"),
    ((float,), "float"),
    ((dict,), "dict"),
    ((list, tuple, set, frozenset), "list"),
    ((msgspec.Raw,), "raw"),
    ((str, int, type(None), date, time, timedelta, Decimal, UUID, Enum, msgspec.UnsetType), "leaf"),
)


class OutputError(PgflowError):
    """A handler returned something that cannot be stored as JSON."""


class _Unsupported(TypeError):
    """What the hook raises for a type without a JSON form."""


def encode_output(value: Any, limit: int = MAX_OUTPUT_BYTES) -> bytes:
    """``value`` as JSON that jsonb stores unchanged, at most ``limit`` bytes of it.

    Raises OutputError with the path to the trouble, or MemoryError.
    """
    try:
        body = _encode(value)
    except (OutputError, MemoryError):
        raise
    except Exception as error:
        raise _unencodable(value, error) from error
    kind = type(value)
    if kind in _SCALARS:
        if kind is not str:
            if kind is float and body == b"null":
                raise _not_finite(value)
            if len(body) <= min(limit, _MAX_DIGITS):
                return body
    elif not (kind is dict and value.keys() and _is_flat(value, body)):
        body = _check_inside(value, body)
    if b"\\u0000" in body and _NUL.search(body):
        path = _find(value, lambda item: isinstance(item, str) and "\0" in item)
        raise OutputError(f"PostgreSQL stores no string with a NUL character{path}")
    if len(body) > min(limit, _MAX_DIGITS):
        _check_size(body, limit)
    return body


def as_list(value: Any) -> Any:
    """``value`` as a list, for array steps. Raises OutputError if it is nothing like one."""
    if isinstance(value, list | tuple | AbstractSet):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return list(value)
    if _is_numpy(value) and isinstance(converted := value.tolist(), list):
        return converted
    raise OutputError(
        f"An array step must return a list, not {_type_name(value)}", hint="Or yield its elements."
    )


def _hook(value: Any) -> Any:
    """What msgspec does not know by itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise _is_bytes(value)
    if _is_numpy(value):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet | Sequence) and not isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise _Unsupported(f"Objects of type {_type_name(value)} are not JSON")


_encode: Final = msgspec.json.Encoder(enc_hook=_hook).encode


def _is_numpy(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("numpy", "pandas") and hasattr(value, "tolist")


def _is_flat(value: dict[Any, Any], body: bytes) -> bool:
    """A dict of scalars under str keys, the most common result, needs no further look."""
    allowed = _PLAIN if b"null" in body else _SCALARS
    return allowed.issuperset(map(type, value.values())) and _JUST_STR.issuperset(map(type, value))


def _check_inside(value: Any, body: bytes) -> bytes:
    """Look for what msgspec encodes silently as something else; return the body to store.

    Level by level, with the loops over elements in C: a few times cheaper than encoding was.
    """
    may_be_nan = b"null" in body  # how msgspec writes NaN and Infinity
    has_raw = False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        kinds = set(map(type, level))
        below: list[Iterable[Any]] = []
        for kind in kinds:
            group = _group(kind)
            if group == "leaf" or (kind is float and not may_be_nan):
                continue
            same: list[Any] = level if len(kinds) == 1 else [item for item in level if type(item) is kind]
            if group == "list":
                below += same
            elif group == "dict":
                below += map(dict.values, same)
                if not _JUST_STR.issuperset(map(type, chain.from_iterable(same))):
                    _check_keys(value, chain.from_iterable(same))
            elif group == "float":
                if not all(map(math.isfinite, same)):
                    raise _not_finite(value)
            elif group == "bytes":
                raise _is_bytes(value)
            elif group == "raw":
                has_raw = True
            else:
                below += ([child for _, child in _children(item)] for item in same)
        if not below:
            return _check_raw(body) if has_raw else body
        level = list(chain.from_iterable(below))
    raise OutputError(f"It is nested more than {MAX_DEPTH} levels deep")


_groups: Final[dict[type, str]] = {}


def _group(kind: type) -> str:
    """How _check_inside treats values of a type."""
    known = _groups.get(kind)
    if known is None:
        known = _groups[kind] = next((name for types, name in _GROUPS if issubclass(kind, types)), "object")
    return known


def _children(item: Any) -> Iterator[tuple[str, Any]]:
    """The members of a container, each with the step of a path that leads to it."""
    kind = type(item)
    if isinstance(item, dict):
        for key, child in item.items():
            yield (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"), child
    elif _group(kind) == "list":
        for index, child in enumerate(item):
            yield f"[{index}]", child
    elif isinstance(item, msgspec.Struct):
        for name in item.__struct_fields__:
            yield f".{name}", getattr(item, name, None)
    elif dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(item):
            yield f".{field.name}", getattr(item, field.name, None)
    elif hasattr(kind, "__attrs_attrs__"):
        for attribute in kind.__attrs_attrs__:
            yield f".{attribute.name}", getattr(item, attribute.name, None)
    elif _group(kind) == "object":
        yield "", _hook(item)


def _find(value: Any, is_trouble: Callable[[Any], bool]) -> str:
    """`` (at $.path)`` of the first trouble inside ``value``; empty if that is ``value`` itself."""
    return _search(value, is_trouble) or ""


def _search(value: Any, is_trouble: Callable[[Any], bool]) -> str | None:
    waiting: list[tuple[Any, tuple[Any, ...], int]] = [(value, (), 0)]
    while waiting:
        item, link, depth = waiting.pop()
        keys = item if isinstance(item, dict) else ()
        if is_trouble(item) or any(map(is_trouble, keys)):
            steps: list[str] = []
            while link:
                link, step = link
                steps.append(step)
            return f" (at ${''.join(reversed(steps))[:500]})" if steps else ""
        if depth < MAX_DEPTH and _group(type(item)) not in ("leaf", "float", "bytes", "raw"):
            try:
                members = [(child, (link, step), depth + 1) for step, child in _children(item)]
            except _Unsupported:
                continue
            waiting += reversed(members)
    return None


def _check_keys(value: Any, keys: Iterable[Any]) -> None:
    if any(_group(kind) == "bytes" for kind in set(map(type, keys))):
        raise _is_bytes(value)


def _check_raw(body: bytes) -> bytes:
    """The body of a result with msgspec.Raw inside: decoding proves that it is JSON; encoded anew."""
    try:
        return encode_output(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise OutputError(f"A msgspec.Raw value is not valid JSON: {error}") from None


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise _too_large(f"It has {len(body):,} bytes of JSON; at most {limit:,} can be stored")
    if sys.get_int_max_str_digits() not in range(1, _MAX_DIGITS) and re.search(
        rb"\d{%d}" % (_MAX_DIGITS + 1), _STRING.sub(b"", body)
    ):
        raise OutputError(f"PostgreSQL stores no number of more than {_MAX_DIGITS:,} digits")
    if len(body) > _JSONB_LIMIT // 8:  # small numbers take up to eight times their text
        outside, strings = _STRING.subn(b"", body)
        values = sum(map(outside.count, (b",", b":", b"[", b"{"))) + 1
        numbers = max(values - strings, 0)
        size = len(body) - len(outside) + 4 * values + 12 * numbers
        if size > _JSONB_LIMIT:
            raise _too_large(
                f"It takes about {size:,} bytes in PostgreSQL's jsonb; at most {_JSONB_LIMIT:,} can be stored"
            )


def _too_large(message: str) -> OutputError:
    return OutputError(message, hint="Return less, or write it to a file and return its path.")


def _not_finite(value: Any) -> OutputError:
    path = _find(value, lambda item: isinstance(item, float) and not math.isfinite(item))
    return OutputError(
        f"NaN and Infinity are not JSON{path}", hint="Return None, a string or a number in their place."
    )


def _is_bytes(value: Any) -> OutputError:
    path = _find(value, lambda item: isinstance(item, bytes | bytearray | memoryview))
    return OutputError(
        f"bytes are not JSON{path}", hint="Decode them to str, or encode them as base64 or hex yourself."
    )


def _unencodable(value: Any, error: Exception) -> OutputError:
    if isinstance(error, RecursionError):
        return OutputError("It contains itself, or is nested too deeply")
    if isinstance(error, UnicodeEncodeError):
        path = _find(value, lambda item: isinstance(item, str) and not _is_utf8(item))
        return OutputError(f"A string with a lone surrogate is not UTF-8{path}")
    if isinstance(error, TypeError):
        place = _search(value, lambda item: isinstance(item, dict) and not all(map(_is_key, item)))
        if place is not None:
            return OutputError(f"A key of a dict is no string or number{place}")
        return OutputError(
            f"{error}{_find(value, _is_unsupported)}",
            hint="Return JSON values, dataclasses, msgspec.Structs, dates, UUIDs or Decimals.",
        )
    return OutputError(f"It cannot be encoded as JSON: {type(error).__name__}: {error}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_key(key: Any) -> bool:
    try:
        _encode({key: None})
    except TypeError:
        return False
    return True


def _is_unsupported(item: Any) -> bool:
    if _group(type(item)) != "object":
        return False
    try:
        next(_children(item), None)
    except _Unsupported:
        return True
    return False


def _type_name(value: Any) -> str:
    return type(value).__qualname__
