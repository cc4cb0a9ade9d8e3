"""Looking at JSON text of any length, in pieces: linear in time, with a constant amount of extra memory.

No regular expressions here: Python's remember a way back for every character that a repeated group has
passed, which takes a hundred bytes for each byte of a payload. All functions take valid JSON.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final

JSONL_ENDINGS: Final = (".jsonl", ".ndjson", ".jsonlines")
_PIECE: Final = 1 << 18
_LONGEST_ESCAPE: Final = 6  # \u0000
_NUL: Final = b"\\u0000"
_CONTINUATION: Final = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that begin no character
_DIGITS_ONLY: Final = bytes(byte if chr(byte).isdigit() else 32 for byte in range(128)) + b" " * 128


def pieces(text: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, piece) of all of it; none begins or ends in the midst of an escape sequence."""
    start, size = 0, len(text)
    while start < size:
        piece = text[start : start + _PIECE]
        if start + len(piece) < size:
            last = piece.rfind(b"\\", 1 - _LONGEST_ESCAPE)
            if last > 0 and backslashes_before(piece, last) % 2 == 0:
                piece = piece[:last]
        yield start, piece
        start += len(piece)


def backslashes_before(text: bytes, offset: int) -> int:
    """How many backslashes stand right before ``offset``; an even number of them escapes nothing."""
    return offset - len(text[:offset].rstrip(b"\\"))


def find_nul(text: bytes) -> int:
    r"""The offset of the first escape of the NUL character, -1 if there is none; ``\\u0000`` is none."""
    if _NUL in text:
        for offset, piece in pieces(text):
            if _NUL in piece and (at := piece.replace(b"\\\\", b"  ").find(_NUL)) >= 0:
                return offset + at
    return -1


def outside_strings(text: bytes) -> Iterator[bytes]:
    """The text in pieces, with the letter s in place of each string."""
    inside = 0
    for _, piece in pieces(text):
        plain = piece.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in piece else piece
        parts = plain.split(b'"')
        outside = b"s".join(parts[inside::2])
        yield b"s" + outside if inside and len(parts) > 1 else outside
        inside ^= (len(parts) - 1) & 1


def members(text: bytes) -> int:
    """How many members all objects in it have, those that are written twice included."""
    return sum(piece.count(b":") for piece in outside_strings(text)) if b":" in text else 0


def has_longer_number(text: bytes, limit: int) -> bool:
    """Whether more than ``limit`` digits stand in a row outside of strings."""
    before = b""
    for piece in outside_strings(text):
        digits = (before + piece.translate(_DIGITS_ONLY)).split(b" ")
        if max(map(len, digits)) > limit:
            return True
        before = digits[-1]
    return False


def jsonb_size(text: bytes) -> int:
    """About how many bytes compact JSON takes as jsonb: within 10 %, or more where numbers are long."""
    commas = colons = containers = empty = strings = true = false = null = rest = 0
    for piece in outside_strings(text):  # ,:[]{} s true false null, numbers
        commas += piece.count(b",")
        colons += piece.count(b":")
        containers += piece.count(b"[") + piece.count(b"{")
        empty += piece.count(b"[]") + piece.count(b"{}")
        false_here = piece.count(b"f")
        strings += piece.count(b"s") - false_here
        true += piece.count(b"t")
        false += false_here
        null += piece.count(b"n")
        rest += len(piece)
    entries = 1 + commas + colons + containers - empty
    numbers = entries - strings - containers - true - false - null
    digits = rest - strings - commas - colons - 2 * containers - 4 * (true + null) - 5 * false
    return len(text) - rest - strings + 4 * entries + 8 * numbers + digits // 2 + 4 * containers


def invalid_utf8(text: bytes) -> int:
    """The offset of the first byte that is not UTF-8, -1 if all is well."""
    if text.isascii():
        return -1
    start, size = 0, len(text)
    while start < size:
        piece = text[start : start + _PIECE]
        try:
            start += codecs.utf_8_decode(piece, "strict", start + len(piece) == size)[1]
        except UnicodeDecodeError as error:
            return start + error.start
    return -1


def characters(text: bytes, start: int, end: int) -> int:
    """How many characters stand between two offsets of valid UTF-8."""
    steps = range(start, end, _PIECE)
    return sum(len(text[at : min(at + _PIECE, end)].translate(None, _CONTINUATION)) for at in steps)
