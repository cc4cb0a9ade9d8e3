"""The elements of one large JSON array, without ever having all of it in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io.jsonlines import OfFile
from pgflow_mp.io.opening import LONGEST
from pgflow_mp.io.source import ElementBatch, is_storable, joined
from pgflow_mp.values.foundtext import CONVERT
from pgflow_mp.values.inputs import check_line

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_scan: Final[Any] = json.JSONDecoder(parse_int=float).scan_once  # type: ignore[attr-defined]
"""Where a value ends. Integers of thousands of digits are none of Python's: not made, they have no limit."""
_TOKEN: Final = 16


class _Part(NamedTuple):
    texts: list[bytes]
    places: list[tuple[int, int]]
    """Line and column of each."""


class JsonArray(OfFile):
    """One JSON array."""

    def parts(self) -> Iterator[_Part]:  # type: ignore[override]
        decoder = codecs.getincrementaldecoder("utf-8")()
        text, line, column, state, wanted = "", 1, 1, "begin", 0
        pieces: list[str] = []
        length = 0  # of the text and the pieces behind it

        def passed(upto: int) -> None:
            """The text before this position is done with."""
            nonlocal text, line, column
            done, text = text[:upto], text[upto:]
            line, column = _after(done, line, column)

        for data, last in _with_end(self._opened.pieces()):
            try:
                pieces.append(decoder.decode(data, last))
            except UnicodeDecodeError as error:
                passed(len(text))
                before = sum(piece.count("\n") for piece in pieces)
                line += before + error.object.count(b"\n", 0, error.start)
                raise InputError(
                    f"{self.name}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8",
                    hint=f"{CONVERT}: iconv -f latin1 -t utf-8",
                ) from None
            length += len(pieces[-1])
            if length < min(wanted, LONGEST + 1) and not last:
                continue
            text = "".join((text, *pieces))
            pieces.clear()
            at, part, wanted = 0, _Part([], []), 0
            seen, where = 0, (line, column)  # the place of ``seen``, an offset in the text
            while True:
                at = _end(_SPACE, text, at)
                if at >= len(text):
                    break
                if state == "begin" and text[at] == "[":
                    at, state = at + 1, "first"
                elif state == "begin":
                    raise InputError(
                        f"{self.name}, line {_after(text[:at], line, column)[0]}: this is not an array",
                        hint="Only elements of an array are items. To have files as items, name a pattern.",
                    )
                elif state == "end":
                    passed(at)
                    raise InputError(
                        f"{self.name}, line {line}, column {column}: there is more after the array",
                        hint="If it is one value a line, give --format jsonl.",
                    )
                elif state == "next" and text[at] == ",":
                    at, state = at + 1, "value"
                elif state in ("next", "first") and text[at] == "]":
                    at, state = at + 1, "end"
                elif state == "next":
                    passed(at)
                    raise InputError(
                        f"{self.name}, line {line}, column {column}: a comma or a bracket is missing",
                        hint="Correct it there.",
                    )
                else:
                    end = self._element_end(text, at, last, where, seen)
                    if end < 0:
                        wanted = 2 * (len(text) - at)
                        break
                    where, seen = _after(text[seen:at], *where), at
                    part.texts.append(text[at:end].encode())
                    part.places.append(where)
                    at, state = end, "next"
            passed(at)
            length = len(text)
            if length > LONGEST:
                raise InputError(
                    f"{self.name}, line {line}: an element is longer than {LONGEST // 1_000_000} MB",
                    hint="Values as large belong into files, whose paths are the items.",
                )
            if part.texts:
                yield part
        if state != "end":
            raise InputError(
                f"{self.name}, line {line}, column {column}: it ends in the middle of the array",
                hint="It may be cut off: fetch it again.",
            )

    def _element_end(self, text: str, at: int, last: bool, where: tuple[int, int], seen: int) -> int:
        """Where the element ends, -1 if more has to be read first. Raises InputError if it is none."""
        try:
            _, end = _scan(text, at)
            if end < len(text) - _TOKEN or last:  # else a number may go on
                return int(end)
            return -1
        except (StopIteration, ValueError, RecursionError):
            pass
        rest = text[at:].encode()
        try:
            msgspec.json.decode(b"[" + rest, type=msgspec.Raw)
        except msgspec.MsgspecError as error:
            found = re.search(r"\(byte (\d+)\)", str(error))
            if not last and (found is None or int(found[1]) > len(rest) - _TOKEN):
                return -1
        except RecursionError:
            pass
        line, column = _after(text[seen:at], *where)
        check_line(rest, self.name, line, column)
        raise InputError(f"{self.name}, line {line}, column {column}: this is not a JSON value")

    def batch(self, part: _Part) -> ElementBatch:
        def place(i: int) -> str:
            return f"{self.name}, line {part.places[i][0]}, column {part.places[i][1]}"

        try:
            body = joined(part.texts)
            msgspec.json.decode(body, type=msgspec.Raw)
            if is_storable(body):
                return ElementBatch(part.texts, place)
        except (msgspec.MsgspecError, RecursionError):
            pass
        kept = _Part([], [])
        for text, (line, column) in zip(part.texts, part.places, strict=True):
            if self._is_element(text, line, column):
                kept.texts.append(text)
                kept.places.append((line, column))
        part = kept  # which is what place looks at
        return ElementBatch(kept.texts, place)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _after(text: str, line: int, column: int) -> tuple[int, int]:
    """Line and column after ``text``, which begins at that place."""
    newlines = text.count("\n")
    if not newlines:
        return line, column + len(text)
    return line + newlines, len(text) - text.rfind("\n")


def _with_end(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    before: bytes | None = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    yield before or b"", True
