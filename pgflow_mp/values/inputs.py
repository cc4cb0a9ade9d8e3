"""The input of a run: a file, standard input, JSON text given on the command line, or a Python value.

What is read becomes raw JSON in bytes, checked but never decoded: what was written is what the database gets.
JSON must be strict (no NaN, no trailing commas) and UTF-8; a byte order mark is dropped. JSONL becomes
an array of its lines. Everything that PostgreSQL's jsonb would refuse later is refused here, with its
line and column. A value is encoded by the rules of outputs, and refused with the place in it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.values.duplicates import find_duplicate
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.foundtext import CONVERT, without_mark
from pgflow_mp.values.jsontext import JSONL_ENDINGS, characters, find_nul, invalid_utf8
from pgflow_mp.values.outputs import encode_output

__all__ = [
    "LIMIT",
    "RunInput",
    "check_line",
    "encode_input",
    "parse_json",
    "parse_jsonl",
    "read_input",
]

_BOM: Final = b"\xef\xbb\xbf"
_ORIGIN: Final = (1, 1)  # line and column at which the data begins
LIMIT: Final = 1_000_000_000  # a parameter of a statement cannot be longer than 1 GB
_KINDS: Final = {ord("{"): "an object", ord("["): "an array", ord('"'): "a string", ord("n"): "null"}
_BOOLEANS: Final = (ord("t"), ord("f"))
_HALF: Final = "half of a surrogate pair is not a character"
_HALF_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u)")
_UNQUOTED: Final = re.compile(
    r"[{\[]\s*(?!NaN|Infinity|None|True|False|true|false|null)[A-Za-z_]\w*\s*[:,\]}]"
)
_BYTE: Final = re.compile(r" ?\(byte (\d+)\)")
_EXCERPT: Final = 60
_FORMS: Final = (
    "Give a file (.json, .jsonl, .csv, .parquet, ...), a folder or pattern ('data/*.png'), "
    """JSON text ('{"n": 1}'), or - for standard input."""
)


@dataclass(frozen=True, slots=True)
class RunInput:
    """The input of a run as raw JSON, and where it came from, for messages.

    ``items`` is the number of lines that became elements, known for JSONL only.
    """

    json: bytes
    source: str
    items: int | None = None

    @property
    def kind(self) -> str:
        """What it is in words: an array, an object, a string, a number, a boolean or null."""
        first = self.json[0] if self.json else 0
        return "a boolean" if first in _BOOLEANS else _KINDS.get(first, "a number")

    @property
    def is_array(self) -> bool:
        """Whether a map can run over it."""
        return self.json[:1] == b"["


def read_input(text: str, *, jsonl: bool | None = None, stdin: BinaryIO | None = None) -> RunInput:
    """Read what ``--input`` names: ``-`` (standard input), JSON text, or the path of a file.

    ``jsonl`` says whether it is one JSON value a line; None: by the file's ending, and for standard
    input by trying. Raises InputError.
    """
    if not text.strip():
        raise InputError("--input is empty", hint=_FORMS)
    if text == "-":
        if stdin is None and sys.stdin is None:
            raise InputError("--input - reads standard input, which is closed", hint=_FORMS)
        return _read_stdin(stdin or sys.stdin.buffer, jsonl)
    if text[:1] in ("{", "[", '"') or _is_json(text):
        return _read_argument(text, jsonl)
    path = Path(text).expanduser()
    data = _read_file(path, text)
    lines = path.suffix.lower() in JSONL_ENDINGS if jsonl is None else jsonl
    try:
        return parse_jsonl(data, str(path)) if lines else parse_json(data, str(path))
    except InputError as error:
        if not lines and jsonl is None and _is_jsonl(data):
            error.hint = "Every line of it is JSON by itself: add --jsonl, or give it the ending .jsonl."
        elif lines and not error.hint.startswith(CONVERT) and _is_json(data.removeprefix(_BOM)):
            error.hint = "As a whole it is one JSON document: give it the ending .json, or --no-jsonl."
        raise


def encode_input(value: Any, *, nulls: bool = False) -> bytes:
    """``value`` as JSON, by the rules that hold for what a handler returns. Raises InputError.

    An iterator becomes an array; NaN (unless it is to be null: ``nulls``) and NUL characters are refused
    instead of stored as something else.
    """
    try:
        return encode_output(list(value) if isinstance(value, Iterator) else value, LIMIT, nulls=nulls)
    except OutputError as error:
        raise InputError(f"The input cannot be stored as JSON: {error}", hint=error.hint) from None


def parse_json(data: bytes, source: str) -> RunInput:
    """Check one JSON document. Raises InputError with line and column."""
    data = without_mark(data, source).strip(b" \t\r\n")
    if not data:
        raise InputError(f"{source} is empty", hint="An empty array is [], an empty object {}.")
    _check(data, data, 0, source)
    _check_text(data, data, source)
    return RunInput(data, source)


def parse_jsonl(data: bytes, source: str) -> RunInput:
    """Check JSON values, one a line, and join them to an array; empty lines are skipped.

    Raises InputError with line and column.
    """
    data = without_mark(data, source)
    array, count = bytearray(b"["), 0
    for start, line in _lines(data):
        _check(data, line, start, source)
        array += b",\n" if count else b""
        array += line
        count += 1
    array += b"]"
    joined = bytes(array)
    del array
    _check_text(joined, data, source)
    return RunInput(joined, source, count)


def _read_stdin(stdin: BinaryIO, jsonl: bool | None) -> RunInput:
    source = "standard input"
    data = stdin.read()
    if not data.strip():
        raise InputError(f"{source} is empty", hint="Pipe JSON or JSONL into it, or give --input FILE.")
    if jsonl:
        return parse_jsonl(data, source)
    try:
        return parse_json(data, source)
    except InputError:
        if jsonl is None and _begins_with_lines(data):
            return parse_jsonl(data, source)
        raise


def _read_argument(text: str, jsonl: bool | None) -> RunInput:
    data = text.encode("utf-8", "surrogateescape")
    try:
        return parse_jsonl(data, "--input") if jsonl else parse_json(data, "--input")
    except InputError as error:
        if _UNQUOTED.match(text):
            error.hint = """The shell may have eaten the quotes; put single quotes around: '{"n": 1}'."""
        elif "'" in text:
            error.hint = """JSON has double quotes: '{"name": "x"}'."""
        raise


def _read_file(path: Path, text: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise InputError(
                f"{path} has {size / 1e9:.1f} GB; the input of a run can have at most 1 GB",
                hint="Let the input name the files or ranges to work on, and read the data in the steps.",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"There is no file {path}" if _looks_like_path(text) else f"{text!r} is neither a file nor JSON",
            hint=_similar(path),
        ) from None
    except IsADirectoryError:
        raise InputError(
            f"{path} is a directory", hint="Name a file in it: .json, .jsonl or .ndjson."
        ) from None
    except PermissionError:
        raise InputError(f"File {path} cannot be read: permission denied") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"File {str(path)[:200]!r} cannot be read: {reason}") from None


def _looks_like_path(text: str) -> bool:
    return os.sep in text or Path(text).suffix != ""


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no directory {path.parent} either."
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, 1)
    return f"Did you mean {path.parent / close[0]}?" if close else _FORMS


def _is_json(text: str | bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _is_jsonl(data: bytes) -> bool:
    try:
        return (parse_jsonl(data, "").items or 0) > 1
    except InputError:
        return False


def _begins_with_lines(data: bytes) -> bool:
    """Whether the first line is a JSON value by itself, and there is more behind it."""
    lines = _lines(data.removeprefix(_BOM))
    first, more = next(lines, None), next(lines, None)
    return first is not None and more is not None and _is_json(first[1])


def check_line(line: bytes, source: str, number: int, column: int = 1) -> None:
    """Check one JSON value, which stands in that line from that column on. Raises InputError."""
    text = line.strip(b" \t\r")
    at = (number, column)
    _check(line, text, line.find(text), source, at)
    _check_text(text, line, source, at)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, line without white space around) of all lines that are not empty."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end]
        if stripped := line.strip(b" \t\r"):
            yield start + len(line) - len(line.lstrip(b" \t\r")), stripped
        start = end + 1


def _check(data: bytes, value: bytes, start: int, source: str, origin: tuple[int, int] = _ORIGIN) -> None:
    """Refuse a ``value`` at ``start`` of ``data`` that is not strict JSON."""
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except RecursionError:
        raise InputError(f"{source} is nested too deeply", hint="Flatten it.") from None
    except msgspec.MsgspecError as error:
        message = str(error)
        if byte := _BYTE.search(message):
            offset = int(byte[1])
            reason = _BYTE.sub("", message).removeprefix("JSON is malformed: ")
            offset -= reason == "trailing characters"  # it counts the first of them
            if "hex escape" in reason and (half := _HALF_PAIR.search(value, max(0, offset - 12), offset)):
                offset, reason = half.start(), _HALF
        else:
            offset, reason = len(value), "it ends in the middle of a value"
            if half := _HALF_PAIR.search(value, max(0, offset - 12)):
                offset, reason = half.start(), _HALF
        _refuse(data, start, offset, source, _in_words(reason, value, offset), len(value), origin)


def _check_text(value: bytes, data: bytes, source: str, origin: tuple[int, int] = _ORIGIN) -> None:
    """Refuse what jsonb cannot hold in ``value``, all of the JSON in ``data``.

    Of a key that an object has twice it keeps the last value, and the others would be lost.
    """
    if (at := invalid_utf8(data)) >= 0:
        reason = f"byte 0x{data[at]:02x} is not UTF-8"
        _refuse(data, 0, at, source, reason, len(data), origin, f"{CONVERT}: iconv -f latin1 -t utf-8.")
    if (at := find_nul(data)) >= 0:
        _refuse(data, 0, at, source, "PostgreSQL cannot store the character \\u0000", len(data), origin)
    if twice := find_duplicate(value):
        reason = f'the key "{twice.key[:_EXCERPT]}" is there more than once in this object'
        _refuse(data, 0, data.find(twice.text), source, reason, len(data), origin)


def _in_words(reason: str, value: bytes, offset: int) -> str:
    for word in (b"NaN", b"Infinity", b"None", b"True", b"False", b"undefined"):
        if value[offset : offset + len(word)] == word or value[max(0, offset - 1) :].startswith(b"-" + word):
            return f"{word.decode()} is not JSON"
    if value[offset : offset + 1] == b"'":
        return "strings need double quotes"
    if reason == "trailing characters":
        return "there is more after the end of the value"
    return reason


def _refuse(
    data: bytes,
    start: int,
    offset: int,
    source: str,
    reason: str,
    length: int,
    origin: tuple[int, int],
    hint: str = "",
) -> NoReturn:
    at = start + min(offset, length)
    line = data.count(b"\n", 0, at) + origin[0]
    begin = data.rfind(b"\n", 0, at) + 1
    end = data.find(b"\n", at)
    column = characters(data, begin, at) + (1 if begin else origin[1])
    of_lines = "Correct it there; every line must be one JSON value."
    raise InputError(
        f"{source}, line {line}, column {column}: {reason}\n{_pointer(data, begin, at, end)}",
        hint=hint or (of_lines if source.lower().endswith(JSONL_ENDINGS) else ""),
    )


def _pointer(data: bytes, begin: int, at: int, end: int) -> str:
    """The part of the line around ``at``, and a mark under the place."""
    end = len(data) if end < 0 else end
    before = data[max(begin, at - _EXCERPT // 2) : at].decode("utf-8", "replace")
    after = data[at : min(end, at + _EXCERPT // 2)].rstrip(b"\r").decode("utf-8", "replace")
    before, after = (re.sub(r"[\x00-\x1f\x7f]", " ", part) for part in (before, after))
    return f"    {before}{after}\n    {' ' * len(before)}^"
