"""An item's input in one line: short, whole characters, nothing that commands a terminal, no password."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Final

import msgspec

from pgflow_mp.redaction import MASK, redact

MOST: Final = 400
"""Characters of a value that are read to be shown."""
COLUMNS: Final = 60
"""Of a terminal that a line has for an input by itself."""

_START_BYTES: Final = 4 * MOST + 4  # bytes that hold MOST characters
_LARGE: Final = 4096  # bytes of a value of which the beginnings of members are shown
_LARGEST: Final = 16 << 20  # bytes of a value that is not looked at
_MEMBER, _MEMBERS, _START = (
    256,
    64,
    24,
)  # bytes of a member that is shown whole, members, characters of a text
_ENCODED: Final = msgspec.json.Encoder().encode
_UNIT: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL
)
_PATH: Final = re.compile(r'"(?:/[^"\\]*|[^"\\\s]*)/[^"\\\s/]+"')
_SECRET_CUT_OFF: Final = re.compile(r"(://[^:@/\s\"]*):[^@\s\"]*$")


def one_line(text: str, columns: int = COLUMNS, *, whole: bool = True) -> str:
    """``text``, JSON of which the end is missing if not ``whole``, in at most so many columns of a terminal.

    What is no printable character becomes an escape of JSON, and is not cut in two, no more than others are.
    Of a path the end is kept, which tells it from its neighbours.
    """
    text = redact(text)
    if not whole:
        text = _SECRET_CUT_OFF.sub(rf"\1:{MASK}", text)
    if whole and len(text) <= columns and text.isascii() and text.isprintable():
        return text
    if whole and _PATH.fullmatch(text) and text.isprintable() and (last := _end_of_path(text, columns)):
        return last
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    width, end, kept = 0, 0, 0
    for unit in _UNIT.finditer(text):
        if not unicodedata.combining(unit[0][0]) and width <= columns - 3:
            kept = end  # up to here there is room for the dots
        width += _width(unit[0])
        end = unit.end()
        if width > columns:
            return text[:kept] + "..."
    if whole:
        return text
    return text + "..." if width <= columns - 3 else text[:kept] + "..."


def _end_of_path(text: str, columns: int) -> str | None:
    """As many of its last names as there is room for; None: it is short enough, or not one has room."""
    starts = [0, *(at for at, letter in enumerate(text) if letter == "/" and at > 1)]
    dots = '"...'
    for start in starts:
        if sum(map(_width, text[start:])) + (len(dots) if start else 0) <= columns:
            return dots + text[start:] if start else None
    return None


def _width(unit: str) -> int:
    if len(unit) > 1 or unit.isascii():
        return len(unit)
    return 0 if unicodedata.combining(unit) else 2 if unicodedata.east_asian_width(unit) in "WF" else 1


def named(step: str, index: int, raw: bytes | memoryview) -> str:
    """Which item it is, by what it was given, in the words of errors."""
    text, whole = of_raw(raw)
    return f'step "{step}" task {index}' + (f" ({one_line(text, whole=whole)})" if text else "")


def of_raw(raw: bytes | memoryview) -> tuple[str, bool]:
    """A value in raw JSON as pgflow._glimpse has it: at most MOST characters, and if that is all of it."""
    size = len(raw)
    if size > _LARGEST:
        return "", False
    text = _decoded(raw[:_START_BYTES]) if size <= _LARGE else _of_large(raw)
    return text[:MOST], len(text) < MOST


def _of_large(raw: bytes | memoryview) -> str:
    try:
        value = msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | list[msgspec.Raw] | str)
    except (msgspec.MsgspecError, RecursionError):
        return _decoded(raw[:_START_BYTES])
    if isinstance(value, str):
        return _decoded(_ENCODED(value[:MOST]))
    more = ", ..." if len(value) > _MEMBERS else ""
    if isinstance(value, list):
        return f"[{', '.join(map(_member, value[:_MEMBERS]))}{more}]"
    members = list(value.items())[:_MEMBERS]
    return (
        f"{{{', '.join(f'{_decoded(_ENCODED(key))}: {_member(member)}' for key, member in members)}{more}}}"
    )


def _member(raw: msgspec.Raw) -> str:
    member = bytes(raw)
    if len(member) <= _MEMBER:
        return _decoded(member)
    if member[:1] == b'"':
        return _decoded(_ENCODED(msgspec.json.decode(member)[:_START] + "..."))
    return {b"[": "[...]", b"{": "{...}"}.get(member[:1], "...")


def _decoded(raw: bytes | memoryview) -> str:
    """UTF-8 of which the end may have been cut off within a character."""
    return bytes(raw).decode("utf-8", "ignore")
