"""How values that handlers return look in JSON, and where inside a value something is."""

from __future__ import annotations

import dataclasses
import os
from collections import UserString, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from pgflow_mp.errors import PgflowError
from pgflow_mp.values import foreign, frames, reading
from pgflow_mp.values.frames import Unsupported

MAX_DEPTH: Final = 500
_LONGEST_PATH: Final = 500
LONGEST_KEY: Final = 80
_GROUPS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((float,), "float"),
    ((dict,), "dict"),
    ((list, tuple, set, frozenset), "list"),
    ((msgspec.Raw,), "raw"),
    ((str, int, type(None), date, time, timedelta, Decimal, UUID, Enum, msgspec.UnsetType), "leaf"),
    ((bytes, bytearray, memoryview), "leaf"),
)


_EXACT: Final = (datetime, date, time, timedelta, Decimal, UUID)
_NATIVE: Final = frozenset({*_EXACT, str, int, float, bool, type(None)})


class OutputError(PgflowError):
    """A handler returned something that cannot be stored as JSON."""


def hook(value: Any, *, nulls: bool = False) -> Any:
    """What msgspec does not know by itself. Raises Unsupported for what has no JSON form.

    ``nulls``: what is missing (NaT, NA) is null.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__index__(value) if type(value) is not bool else str(value).lower()  # a key, that is
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    kind = type(value)
    if frames.library_of(kind) not in frames.LIBRARIES:
        for base in _EXACT:  # msgspec takes these, but no subclasses of them
            if isinstance(value, base):
                return _exact(value, base)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, UserString):
            return str(value)
        if isinstance(value, Mapping):
            return _as_dict(value)
        is_list = isinstance(value, list | tuple | set | frozenset)
        if isinstance(value, AbstractSet | Sequence | deque) and not is_list:
            return list(value)
        if reading.is_text(kind):
            return str(value)
    return foreign.to_plain(value, nulls=nulls)


def hook_with_nulls(value: Any) -> Any:
    """The same where NaN is null, which msgspec makes of it anyway."""
    return hook(value, nulls=True)


def _exact(value: Any, base: type) -> Any:
    if base is datetime:
        return datetime.combine(value.date(), value.time(), value.tzinfo)
    if base is date:
        return date(value.year, value.month, value.day)
    if base is time:
        return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
    if base is timedelta:
        return timedelta(value.days, value.seconds, value.microseconds)
    return Decimal(value) if base is Decimal else UUID(int=value.int)


encode: Final = msgspec.json.Encoder(enc_hook=hook).encode
encode_with_nulls: Final = msgspec.json.Encoder(enc_hook=hook_with_nulls).encode
Hook = Callable[[Any], Any]


def _as_dict(value: Mapping[Any, Any]) -> dict[Any, Any]:
    plain = dict(value)
    if len(plain) != len(value):
        raise OutputError(
            f"A {type_name(value)} holds a key more than once, of which JSON keeps one",
            hint="Return a dict with a list of values for each key.",
        )
    return plain


_groups: Final[dict[type, str]] = {}


def group_of(kind: type) -> str:
    """How _check_inside treats values of a type."""
    known = _groups.get(kind)
    if known is None:
        known = _groups[kind] = next((name for types, name in _GROUPS if issubclass(kind, types)), "object")
    return known


PathStep = int | str | tuple[Any] | None
"""How a container leads to a member: index, attribute, (key,), or None for what it is converted to."""


def children(item: Any, to_plain: Hook = hook) -> Iterator[tuple[PathStep, Any]]:
    """The members of a container, each with the step of a path that leads to it."""
    kind = type(item)
    if isinstance(item, dict):
        for key, child in item.items():
            yield (key,), child
    elif group_of(kind) == "list":
        yield from enumerate(item)
    elif isinstance(item, msgspec.Struct):
        for name in item.__struct_fields__:
            yield name, getattr(item, name, None)
    elif dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(item):
            yield field.name, getattr(item, field.name, None)
    elif hasattr(kind, "__attrs_attrs__"):
        for attribute in kind.__attrs_attrs__:
            yield attribute.name, getattr(item, attribute.name, None)
    elif group_of(kind) == "object":
        yield None, to_plain(item)


def find(value: Any, is_trouble: Callable[[Any], bool], to_plain: Hook = hook) -> str:
    """`` (at $.path)`` of the first trouble inside ``value``; empty if that is ``value`` itself."""
    return search(value, is_trouble, to_plain) or ""


def search(value: Any, is_trouble: Callable[[Any], bool], to_plain: Hook = hook) -> str | None:
    """Like :func:`find`, but None if there is no trouble. Needs memory for the depth, not for the width."""
    steps: list[PathStep] = []
    waiting: list[Iterator[tuple[PathStep, Any]]] = [iter([(None, value)])]
    while waiting:
        try:
            step, item = next(waiting[-1])
        except (StopIteration, Unsupported):
            waiting.pop()
            if steps:
                steps.pop()
            continue
        keys = item if isinstance(item, dict) else ()
        if is_trouble(item) or any(map(is_trouble, keys)):
            path = "".join(map(_in_path, [*steps[1:], step])) if steps else ""
            return f" (at ${path[:_LONGEST_PATH]})" if path else ""
        if len(steps) < MAX_DEPTH and group_of(type(item)) not in ("leaf", "float", "raw"):
            steps.append(step)
            waiting.append(children(item, to_plain))
    return None


def _in_path(step: PathStep) -> str:
    if step is None:
        return ""
    if isinstance(step, int):
        return f"[{step}]"
    if isinstance(step, str):
        return f".{step}"
    (key,) = step
    is_name = isinstance(key, str) and len(key) <= LONGEST_KEY and key.isidentifier()
    return f".{key}" if is_name else f"[{shown(key)}]"


def shown(key: Any) -> str:
    """A key as an error shows it, however long it is."""
    if isinstance(key, str) and len(key) > LONGEST_KEY:
        return f"{key[:LONGEST_KEY]!r}..."
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 - whatever a user's class does when it is printed
        text = f"a {type_name(key)}"
    return text if len(text) <= 2 * LONGEST_KEY else f"{text[: 2 * LONGEST_KEY]}..."


def is_unsupported(item: Any, to_plain: Hook = hook) -> bool:
    """Whether the hook refuses a value itself, and not only what is in it."""
    kind = type(item)
    if group_of(kind) not in ("object", "leaf") or kind in _NATIVE or isinstance(item, Enum):
        return False
    if group_of(kind) == "leaf" and not isinstance(item, _EXACT):
        return False
    try:
        next(children(item, to_plain) if group_of(kind) == "object" else iter([to_plain(item)]), None)
    except Unsupported:
        return True
    return False


def type_name(value: Any) -> str:
    return type(value).__qualname__
