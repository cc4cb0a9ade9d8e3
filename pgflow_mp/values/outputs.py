"""Encoding of a handler's result or a run's input, and the checks that jsonb and plain JSON ask for.

msgspec decides how a value looks in JSON: tuples and sets become arrays, dates, UUIDs and Decimals
strings, bytes base64, integers of any size numbers, integer and float keys strings. Besides what msgspec
takes, numpy scalars and arrays, frames, other mappings and sequences, subclasses of str, int and float, and
paths are encoded. Refused, because they would be stored as something else or not at all: NaN and Infinity
(unless they are to be null), NUL characters, lone surrogates, cycles, values nested too deeply, and too much.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, Final
from uuid import UUID

import msgspec

from pgflow_mp.values.duplicates import find_duplicate
from pgflow_mp.values.encoding import (
    MAX_DEPTH,
    Hook,
    OutputError,
    children,
    encode,
    encode_with_nulls,
    find,
    group_of,
    hook,
    hook_with_nulls,
    is_unsupported,
    search,
    shown,
    type_name,
)
from pgflow_mp.values.foreign import elements, unwritten
from pgflow_mp.values.frames import Unsupported
from pgflow_mp.values.jsontext import find_nul, has_longer_number, jsonb_size
from pgflow_mp.values.keys import is_key, lost_key, same_in_json

MAX_OUTPUT_BYTES: Final = 200 * 1024 * 1024
_SHORT_NUMBER: Final = 100  # digits
_MINUTE: Final = timedelta(minutes=1)
_JSONB_LIMIT: Final = 0x0FFFFFFF  # bytes of one jsonb container, in PostgreSQL's binary form
_MAX_DIGITS: Final = 131_072  # of PostgreSQL's numeric, before the decimal point
_PLAIN: Final[frozenset[type]] = frozenset({int, str, bool, type(None)})
_SCALARS: Final = _PLAIN | {float}
_STRINGS: Final[frozenset[type]] = frozenset({str})
_INTEGERS: Final[frozenset[type]] = frozenset({int})
_LEAVES: Final[frozenset[type]] = _PLAIN | {date, timedelta, Decimal, UUID}
_TIMES: Final = (datetime, time)
_KEY_HINT: Final = "Use str or int, or return a list of pairs."
_LEAVES_AND_FLOAT: Final = _LEAVES | {float}


def encode_output(value: Any, limit: int = MAX_OUTPUT_BYTES, nulls: bool = False) -> bytes:
    """``value`` as JSON that jsonb stores unchanged, at most ``limit`` bytes of it.

    ``nulls``: NaN, Infinity, NaT and NA are null. Raises OutputError with the path to the trouble, or
    MemoryError.
    """
    try:
        body = encode_with_nulls(value) if nulls else encode(value)
    except (OutputError, MemoryError):
        raise
    except Exception as error:
        raise _unencodable(value, error, hook_with_nulls if nulls else hook) from error
    kind = type(value)
    if kind is int and len(body) < _SHORT_NUMBER <= limit:
        return body
    if kind in _SCALARS:
        if kind is not str:
            if kind is float and body == b"null" and not nulls:
                raise _not_finite(value)
            if len(body) <= min(limit, _MAX_DIGITS):
                return body
    elif not _is_clean(value, _LEAVES if b"null" in body and not nulls else _LEAVES_AND_FLOAT):
        body = _check_inside(value, body, nulls)
    if b"\\u0000" in body and find_nul(body) >= 0:
        to_plain = hook_with_nulls if nulls else hook
        path = find(value, lambda item: isinstance(item, str) and "\0" in item, to_plain)
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
    try:
        listed = elements(value)
    except Unsupported as error:
        raise OutputError(str(error), hint=error.hint) from None
    if listed is not None:
        return listed
    raise OutputError(
        f"An array step must return a list, not {type_name(value)}", hint="Or yield its elements."
    )


def _is_clean(value: Any, leaves: frozenset[type], depth: int = 50) -> bool:
    """Whether ``value`` is built of plain containers and leaves that need no further look.

    The quick way for nearly all results; whatever makes it doubt is decided by _check_inside.
    """
    kind = type(value)
    if kind is dict:
        if not _STRINGS.issuperset(map(type, value)) and not _INTEGERS.issuperset(map(type, value)):
            return False
        members: Iterable[Any] = value.values()
    elif kind is list or kind is tuple:
        members = value
    else:
        return kind in leaves
    if leaves.issuperset(map(type, members)):
        return True
    for member in members:
        kind = type(member)
        if kind is float:
            if not math.isfinite(member):
                return False
        elif kind not in leaves and (depth == 0 or not _is_clean(member, leaves, depth - 1)):
            return False
    return True


def _check_inside(value: Any, body: bytes, nulls: bool) -> bytes:
    """Look for what msgspec encodes silently as something else; return the body to store.

    Level by level, so that neither cycles of unusual types nor deep nesting can break it.
    """
    may_be_nan = b"null" in body and not nulls  # how msgspec writes NaN and Infinity
    to_plain = hook_with_nulls if nulls else hook
    has_raw = False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        kinds = set(map(type, level))
        below: list[Iterable[Any]] = []
        for kind in kinds:
            group = group_of(kind)
            is_time = issubclass(kind, _TIMES)
            if (group == "leaf" and not is_time) or (group == "float" and not may_be_nan):
                continue
            same: list[Any] = level if len(kinds) == 1 else [item for item in level if type(item) is kind]
            if is_time:
                if not all(map(_has_whole_minutes, same)):
                    raise _odd_offset(value)
            elif group == "list":
                below += same
            elif group == "dict":
                below += map(dict.values, same)
                if not _STRINGS.issuperset(map(type, chain.from_iterable(same))):
                    for item in same:
                        _check_keys(value, item)
            elif group == "float":
                if not all(map(math.isfinite, same)):
                    raise _not_finite(value)
            elif group == "raw":
                has_raw = True
            elif hidden := unwritten(kind):
                raise _unwritten(value, kind, hidden)
            else:
                below += ([child for _, child in children(item, to_plain)] for item in same)
        if not below:
            return _check_raw(body) if has_raw else body
        level = list(chain.from_iterable(below))
    raise OutputError(f"It is nested more than {MAX_DEPTH} levels deep")


def _check_keys(value: Any, item: dict[Any, Any]) -> None:
    if two := same_in_json(item):
        raise lost_key(*two, find(value, lambda other: same_in_json(other) is not None))


def _check_raw(body: bytes) -> bytes:
    """The body of a result with msgspec.Raw inside: decoding proves that it is JSON; encoded anew."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OutputError(f"A msgspec.Raw value is not valid JSON: {error}") from None
    if twice := find_duplicate(body):
        raise OutputError(f"A msgspec.Raw value has an object with the key {shown(twice.key)} more than once")
    return encode_output(value)


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise _too_large(f"It has {len(body):,} bytes of JSON; at most {limit:,} can be stored")
    may_be_long = sys.get_int_max_str_digits() not in range(1, _MAX_DIGITS)
    if may_be_long and has_longer_number(body, _MAX_DIGITS):
        raise OutputError(f"PostgreSQL stores no number of more than {_MAX_DIGITS:,} digits")
    if len(body) > _JSONB_LIMIT // 8:  # small values take up to eight times their text
        size = jsonb_size(body)
        if size > _JSONB_LIMIT:
            raise _too_large(
                f"It takes about {size:,} bytes in PostgreSQL's jsonb; at most {_JSONB_LIMIT:,} can be stored"
            )


def _too_large(message: str) -> OutputError:
    return OutputError(message, hint="Let it be less, or write it to a file and pass on its path.")


def _not_finite(value: Any) -> OutputError:
    path = find(value, lambda item: isinstance(item, float) and not math.isfinite(item))
    return OutputError(
        f"NaN and Infinity are not JSON{path}",
        hint='Put None, a string or a number in their place, or let the step have nan="null".',
    )


def _has_whole_minutes(item: Any) -> bool:
    """False for a time whose zone is off by seconds, as zones were before 1900: ISO 8601 drops them.

    So it does with the zone of a time of day that has no offset without a date.
    """
    if not isinstance(item, _TIMES) or item.tzinfo is None:
        return True
    offset = item.utcoffset()
    return offset is not None and not offset % _MINUTE


def _odd_offset(value: Any) -> OutputError:
    if zoneless := search(value, lambda item: isinstance(item, _TIMES) and _is_zoneless(item)):
        return _zoneless(zoneless)
    if isinstance(value, _TIMES) and _is_zoneless(value):
        return _zoneless("")
    path = find(value, lambda item: not _has_whole_minutes(item))
    return OutputError(
        f"A time zone's offset of seconds would be cut to minutes{path}",
        hint="Convert it with .astimezone(datetime.timezone.utc).",
    )


def _is_zoneless(item: datetime | time) -> bool:
    return item.tzinfo is not None and item.utcoffset() is None


def _zoneless(path: str) -> OutputError:
    return OutputError(
        f"A time of day in a zone whose offset depends on the day would lose the zone{path}",
        hint="Return a datetime, or the time and the zone's name apart.",
    )


def _unwritten(value: Any, kind: type, name: str) -> OutputError:
    path = find(value, lambda item: type(item) is kind)
    return OutputError(
        f"The attribute {name} of {kind.__qualname__} would not be written{path}",
        hint="Of attrs classes those without an underscore at the start are written: rename it.",
    )


def _unencodable(value: Any, error: Exception, to_plain: Hook) -> OutputError:
    if isinstance(error, RecursionError):
        return OutputError("It contains itself, or is nested too deeply")
    if isinstance(error, UnicodeEncodeError):
        path = find(value, lambda item: isinstance(item, str) and not _is_utf8(item), to_plain)
        return OutputError(f"A string with a lone surrogate is not UTF-8{path}")
    if isinstance(error, TypeError):
        place = search(value, lambda item: isinstance(item, dict) and not all(map(is_key, item)), to_plain)
        if place is not None:
            return OutputError(f"A key of a dict is no string or number{place}", hint=_KEY_HINT)
        hint = error.hint if isinstance(error, Unsupported) else ""
        return OutputError(
            f"{error}{find(value, lambda item: is_unsupported(item, to_plain), to_plain)}",
            hint=hint or "Use JSON values, dataclasses, msgspec.Structs, dates, UUIDs or Decimals.",
        )
    return OutputError(f"It cannot be encoded as JSON: {type(error).__name__}: {error}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
