"""How values that handlers return look in JSON, and where inside a value something is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from pgflow_mp.errors import PgflowError

MAX_DEPTH: Final = 500
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


class Unsupported(TypeError):
    """What the hook raises for a type without a JSON form."""


def hook(value: Any) -> Any:
    """What msgspec does not know by itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise bytes_error(value)
    if is_numpy(value):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet | Sequence) and not isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise Unsupported(f"Objects of type {type_name(value)} are not JSON")


encode: Final = msgspec.json.Encoder(enc_hook=hook).encode


def is_numpy(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("numpy", "pandas") and hasattr(value, "tolist")


_groups: Final[dict[type, str]] = {}


def group_of(kind: type) -> str:
    """How _check_inside treats values of a type."""
    known = _groups.get(kind)
    if known is None:
        known = _groups[kind] = next((name for types, name in _GROUPS if issubclass(kind, types)), "object")
    return known


def children(item: Any) -> Iterator[tuple[str, Any]]:
    """The members of a container, each with the step of a path that leads to it."""
    kind = type(item)
    if isinstance(item, dict):
        for key, child in item.items():
            yield (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"), child
    elif group_of(kind) == "list":
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
    elif group_of(kind) == "object":
        yield "", hook(item)


def find(value: Any, is_trouble: Callable[[Any], bool]) -> str:
    """`` (at $.path)`` of the first trouble inside ``value``; empty if that is ``value`` itself."""
    return search(value, is_trouble) or ""


def search(value: Any, is_trouble: Callable[[Any], bool]) -> str | None:
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
        if depth < MAX_DEPTH and group_of(type(item)) not in ("leaf", "float", "bytes", "raw"):
            try:
                members = [(child, (link, step), depth + 1) for step, child in children(item)]
            except Unsupported:
                continue
            waiting += reversed(members)
    return None


def bytes_error(value: Any) -> OutputError:
    path = find(value, lambda item: isinstance(item, bytes | bytearray | memoryview))
    return OutputError(
        f"bytes are not JSON{path}", hint="Decode them to str, or encode them as base64 or hex yourself."
    )


def type_name(value: Any) -> str:
    return type(value).__qualname__
