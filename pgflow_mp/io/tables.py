"""CSV and TSV with a header: each row is an object by the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io import texts
from pgflow_mp.io.jsonlines import OfFile
from pgflow_mp.io.opening import Opened
from pgflow_mp.io.source import BATCH_BYTES, NUL, ElementBatch, Raw
from pgflow_mp.values.duplicates import first_repeated

_LARGEST_FIELD: Final = 16_000_000
_ROWS: Final = 2000
_CONVERT: Final = "Convert it first: iconv -f latin1 -t utf-8"
_NO_NUL: Final = "Give --on-bad-line skip, or remove it first: tr -d '\\000' < FILE"
_LONE_CR: Final = "Where lines end in CR alone, convert it first: tr '\\r' '\\n' < FILE"
_encode: Final = msgspec.json.Encoder().encode
_split: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Rows(NamedTuple):
    rows: list[list[str]]
    lines: list[int]
    """In which line each begins."""


class DelimitedTable(OfFile):
    """Rows of texts; ``row_types`` say what they become."""

    wants_types = True

    def __init__(self, opened: Opened, delimiter: str) -> None:
        super().__init__(opened)
        self._delimiter = delimiter
        self._header: list[str] = []
        self._first: list[str] = []
        self._row: type[Any] = dict
        self._passed = 0  # characters
        csv.field_size_limit(max(_LARGEST_FIELD, csv.field_size_limit()))

    def parts(self) -> Iterator[_Rows]:  # type: ignore[override]
        lines = self._lines()
        first = next(lines, "")
        self._delimiter = _delimiter_of(first, self._delimiter)
        reader = csv.reader(chain((first,), lines), delimiter=self._delimiter, strict=True)
        part, begun, line = _Rows([], []), 0, 1
        while True:
            try:
                for row in reader:
                    if not self._header:
                        if row:
                            self._header, self._first = self._checked(row, line), row
                            self._row = _row_type(self._header)
                    elif row:
                        part.rows.append(row)
                        part.lines.append(line)
                        if self._passed - begun > BATCH_BYTES or len(part.rows) == _ROWS:
                            yield part
                            part, begun = _Rows([], []), self._passed
                    line = reader.line_num + 1
                break
            except csv.Error as error:
                self._no_row(error, line, reader.line_num)
                line = reader.line_num + 1
        if part.rows:
            yield part
        if not self._header:
            raise InputError(f"{self.name} is empty", hint="Its first line has the names of the columns.")

    def batch(self, part: _Rows) -> ElementBatch:
        fields = [texts.field_of(self.row_types, name) for name in self._header]
        width = len(self._header)
        if not self._has_header(part.rows) and {width} == {*map(len, part.rows)}:
            try:
                columns: list[Any] = []
                for field, column in zip(fields, zip(*part.rows, strict=True), strict=True):
                    whole, single = texts.columnwise(field), texts.converter(field)
                    if whole is not None:
                        columns.append(whole(column))
                    else:
                        columns.append(column if single is None else [*map(single, column)])
                together = _encode([*map(self._row, *columns)])  # leaves out what is MISSING
                if b"\\u0000" not in together:
                    return ElementBatch(_split(together), lambda i: f"{self.name}, line {part.lines[i]}")
            except (ValueError, texts.Misfit):
                pass
        return self._row_by_row(part)

    def _row_by_row(self, part: _Rows) -> ElementBatch:
        names, elements, lines = self._header, list[Raw](), list[int]()
        fields = [texts.field_of(self.row_types, name) for name in names]
        converters = [texts.converter(field) for field in fields]
        for row, line in zip(part.rows, part.lines, strict=True):
            place, text = f"{self.name}, line {line}", self._delimiter.join(row)
            if self._has_header([row]):
                self.bad(place, "this is the header once more", text)
                continue
            if len(row) != len(names):
                self.bad(place, f"it has {len(row)} fields, and the header has {len(names)}", text)
                continue
            found: dict[str, Any] = {}
            for name, field, convert, value in zip(names, fields, converters, row, strict=True):
                where = f'{place}, column "{name}"'
                try:
                    converted = value if convert is None else convert(value)
                except texts.Misfit as error:
                    self.bad(where, f"expected {field.expected}, {error}", text)
                    break
                if "\0" in value or _lost(value) >= 0:
                    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                    has_nul = "\0" in value
                    reason, hint = (NUL, _NO_NUL) if has_nul else (_not_utf8(value), _CONVERT)
                    self.bad(where, reason, shown, hint)
                    break
                if converted is not texts.MISSING:
                    found[name] = converted
            else:
                elements.append(_encode(found))
                lines.append(line)
        return ElementBatch(elements, lambda i: f"{self.name}, line {lines[i]}")

    def _has_header(self, rows: list[list[str]]) -> bool:
        """Whether the header is among them, as where files were put together. One word may be a value."""
        return len(self._first) > 1 and self._first in rows

    def _no_row(self, error: csv.Error, line: int, last: int) -> None:
        """Raises InputError, or skips it, unless it is the header: the next row must not be taken for one."""
        place = f"{self.name}, line {line}" + (f" (to line {last})" if last > line else "")
        hint = _LONE_CR if "new-line" in str(error) else 'A quote inside of quotes is written twice: "".'
        if "field limit" in str(error):
            hint = "Is a quote missing? Values as large belong into files, whose paths are the items."
        if not self._header:
            raise InputError(f"{place}: this is not a row: {error}", hint=hint)
        self.bad(place, f"this is not a row: {error}", "", hint)

    def _checked(self, header: list[str], line: int) -> list[str]:
        names = [name.strip() for name in header]
        twice = first_repeated(names)
        if twice is not None or "" in names:
            what = f'column "{twice}" occurs twice' if twice else "a column has no name"
            raise InputError(
                f"{self.name}, line {line}: {what}",
                hint="The first line names the columns, each by a name of its own.",
            )
        if (odd := next((name for name in names if "\0" in name or _lost(name) >= 0), None)) is not None:
            what, hint = (NUL, _NO_NUL) if "\0" in odd else (_not_utf8(odd), _CONVERT)
            raise InputError(f"{self.name}, line {line}: the name of a column: {what}", hint=hint)
        return names

    def _lines(self) -> Iterator[str]:
        for block, first in self._opened.blocks():
            try:
                text = block.decode()
            except UnicodeDecodeError as error:
                if self.on_bad is not None:  # its row is skipped
                    text = block.decode("utf-8", "surrogateescape")
                    self._passed += len(text)
                    yield from io.StringIO(text, newline="\n")
                    continue
                line = first + block.count(b"\n", 0, error.start)
                begin = block.rfind(b"\n", 0, error.start) + 1
                column = len(block[begin : error.start].decode("utf-8", "replace")) + 1
                place = f"{self.name}, line {line}, character {column}"
                raise InputError(
                    f"{place}: byte 0x{block[error.start]:02x} is not UTF-8",
                    hint=_CONVERT,
                ) from None
            self._passed += len(text)
            yield from io.StringIO(text, newline="\n")


def _row_type(names: list[str]) -> type[Any]:
    """A row with these columns: of all objects the quickest to be made and encoded."""
    fields = [f"f{i}" for i in range(len(names))]
    rename = dict(zip(fields, names, strict=True))
    return msgspec.defstruct("Row", [(field, Any) for field in fields], rename=rename, gc=False)


def _delimiter_of(header: str, delimiter: str) -> str:
    """Of .csv: what separates the names, which in some countries is a semicolon."""
    if delimiter != "," or "," in header or '"' in header:
        return delimiter
    return next((other for other in ";\t" if other in header), delimiter)


def _lost(text: str) -> int:
    """Where the first byte is that was not UTF-8, -1 without any."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return -1


def _not_utf8(text: str) -> str:
    return f"byte 0x{ord(text[_lost(text)]) - 0xDC00:02x} is not UTF-8"
