"""Small documents of JSON that people and programs write: read strictly, with the line of each part."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from json import scanner
from json.decoder import JSONObject  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

from pgflow_mp.values.duplicates import first_repeated

Path = Sequence[str | int]
"""The way to a part of a document: keys of objects and positions in arrays."""
_SPACE: Final = " \t\r\n"
_SHOWN: Final = 40


class Document(NamedTuple):
    """A document's value, and ``line_of`` a part of it, from 1 on: None where that is not known."""

    value: Any
    line_of: Callable[[Path], int | None]


class Unreadable(Exception):
    """The text is no such document; ``line`` is from 1 on, None where that is not known."""

    def __init__(self, what: str, line: int | None = None, *, hint: str = "") -> None:
        super().__init__(what)
        self.line = line
        self.hint = hint


def shown(text: str) -> str:
    """A text as an error quotes it, in one short line."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def read_json(text: str) -> Document:
    """The document in a JSON text: no key twice, no NaN, no number that Python cannot hold.

    Raises Unreadable.
    """
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is no JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except _Refused as error:
        raise Unreadable(str(error), _line_of_refused(text, error)) from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError:  # a number of thousands of digits
        raise Unreadable("it has a number of too many digits") from None
    return Document(value, lambda path: _line_of(text, path))


class _Refused(Exception):
    """What Python takes for JSON, that is not wanted: as ``written``, or an object's second ``key``."""

    def __init__(self, what: str, *, written: str = "", key: str | None = None) -> None:
        super().__init__(what)
        self.written = written
        self.key = key
        self.begin: int | None = None
        """Where the object begins, behind its brace, if that is known."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = first_repeated(key for key, _ in pairs) or ""
        raise _Refused(f"an object has the key {shown(key)} twice", key=key)
    return found


def _no_constant(word: str) -> Any:
    raise _Refused(f"{word} is no JSON", written=word)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Refused(f"the number {shown(text)} is too large", written=text)
    return value


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
)
_plain: Final = json.JSONDecoder()


def _line_of_refused(text: str, error: _Refused) -> int | None:
    if error.key is None:
        return _line_at(text, text.find(error.written))
    begin = _begin_of_refused(text)
    if begin is None:
        return None
    at, seen = _skip(text, begin), False
    while True:  # to the second of them
        key, end = _plain.raw_decode(text, at)
        if key == error.key and seen:
            return _line_at(text, at)
        seen = seen or key == error.key
        at = _skip(text, _plain.raw_decode(text, _skip(text, end, ":"))[1], ",")


def _begin_of_refused(text: str) -> int | None:
    """Where the innermost object that is refused begins: read once more, by what is slow and knows where."""

    def parse_object(place: tuple[str, int], *rest: Any) -> Any:
        try:
            return JSONObject(place, *rest)
        except _Refused as error:
            error.begin = place[1] if error.begin is None else error.begin
            raise

    reader: Any = json.JSONDecoder(object_pairs_hook=_object)
    reader.parse_object = parse_object
    reader.scan_once = scanner.py_make_scanner(reader)  # type: ignore[attr-defined]
    try:
        reader.decode(text)
    except _Refused as error:
        return error.begin
    except (ValueError, RecursionError):
        pass
    return None


def _line_at(text: str, at: int) -> int:
    return text.count("\n", 0, max(0, at)) + 1


def _line_of(text: str, path: Path) -> int | None:
    """The line where a part begins, of the member of an object that of its key. ``text`` is valid JSON."""
    at = found = _skip(text, 0)
    for part in path:
        opened = text[at : at + 1]
        if opened != ("[" if isinstance(part, int) else "{"):
            break
        at, position = _skip(text, at + 1), 0
        while text[at : at + 1] not in ("]", "}", ""):
            here, key = at, None
            if opened == "{":
                key, at = _plain.raw_decode(text, at)
                at = _skip(text, at, ":")
            if part in (key, position) and type(part) is (int if key is None else str):
                found = here
                break
            at = _skip(text, _plain.raw_decode(text, at)[1], ",")
            position += 1
        else:
            break
    return _line_at(text, found)


def _skip(text: str, at: int, mark: str = "") -> int:
    while text[at : at + 1] and text[at] in _SPACE + mark:
        at += 1
    return at
