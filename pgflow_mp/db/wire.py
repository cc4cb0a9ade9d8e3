"""How values travel between psycopg and PostgreSQL: raw JSON stays bytes in both directions.

The worker never decodes a payload, so ``jsonb`` is loaded as its text in bytes and a list of such
texts is sent as one binary ``jsonb[]``, without parsing or escaping. Lists of integers are packed as one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

_JSONB_OID = 3802
_JSONB_ARRAY_OID = 3807
_ARRAY_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)


class RawJson(bytes):
    """JSON text to be sent as one ``jsonb`` value."""

    __slots__ = ()


class RawJsonArray:
    """JSON texts to be sent as one ``jsonb[]``; None is an SQL NULL."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[bytes | None]) -> None:
        self.items = items


class Int4Array:
    """Integers of at most 32 bits to be sent as one ``int[]``, packed at once."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[int]) -> None:
        self.items = items


class Int8Array:
    """Integers to be sent as one ``bigint[]``, packed at once."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[int]) -> None:
        self.items = items


@lru_cache(maxsize=256)
def _packed(count: int, code: str) -> struct.Struct:
    """Array elements, each with its length before it."""
    return struct.Struct("!" + f"i{code}" * count)


@lru_cache(maxsize=1024)
def _before_json(size: int) -> bytes:
    """What comes before ``size`` bytes of JSON as an element of an array: its length, and jsonb's version."""
    return _LENGTH.pack(size + 1) + b"\x01"


class _IntArrayDumper(Dumper):
    format = Format.BINARY
    element_oid: int
    code: str

    def dump(self, obj: Any) -> Buffer:
        items: Sequence[int] = obj.items
        count = len(items)
        size = 8 if self.code == "q" else 4
        flat = [size] * (2 * count)
        flat[1::2] = items
        return _ARRAY_HEADER.pack(1, 0, self.element_oid, count, 1) + _packed(count, self.code).pack(*flat)


class _Int4ArrayDumper(_IntArrayDumper):
    oid = 1007
    element_oid = 23
    code = "i"


class _Int8ArrayDumper(_IntArrayDumper):
    oid = 1016
    element_oid = 20
    code = "q"


class _RawJsonDumper(Dumper):
    format = Format.BINARY
    oid = _JSONB_OID

    def dump(self, obj: Any) -> Buffer:
        return b"\x01" + bytes(obj)


class _RawJsonArrayDumper(Dumper):
    format = Format.BINARY
    oid = _JSONB_ARRAY_OID

    def dump(self, obj: Any) -> Buffer:
        items: Sequence[bytes | None] = obj.items
        has_nulls = None in items
        header = _ARRAY_HEADER.pack(1, int(has_nulls), _JSONB_OID, len(items), 1)
        parts: list[Any] = [header] * (2 * len(items) + 1)
        if has_nulls:
            parts[1::2] = [_NULL if item is None else _before_json(len(item)) for item in items]
            parts[2::2] = [item or b"" for item in items]
        else:
            parts[1::2] = map(_before_json, map(len, cast("Sequence[bytes]", items)))
            parts[2::2] = items
        return b"".join(parts)


class _RawJsonLoader(Loader):
    format = Format.TEXT

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _RawJsonBinaryLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(memoryview(data)[1:])


@lru_cache(maxsize=4096)
def uuid_text(raw: bytes) -> str:
    """The id that the server sends as these 16 bytes."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


class _UuidTextLoader(Loader):
    format = Format.TEXT

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("ascii")


class _UuidTextBinaryLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        return uuid_text(bytes(data))


def adapt(conn: psycopg.Connection[Any]) -> None:
    """Make this connection load ``jsonb`` as bytes and ``uuid`` as str, and send raw JSON."""
    adapters = conn.adapters
    adapters.register_dumper(RawJson, _RawJsonDumper)
    adapters.register_dumper(RawJsonArray, _RawJsonArrayDumper)
    adapters.register_dumper(Int4Array, _Int4ArrayDumper)
    adapters.register_dumper(Int8Array, _Int8ArrayDumper)
    adapters.register_loader("jsonb", _RawJsonLoader)
    adapters.register_loader("jsonb", _RawJsonBinaryLoader)
    adapters.register_loader("uuid", _UuidTextLoader)
    adapters.register_loader("uuid", _UuidTextBinaryLoader)
