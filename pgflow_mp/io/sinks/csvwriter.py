"""CSV: an element a row, the fields of objects as columns.

An element that is no object is a row with the one column ``value``. Columns stand in the order in which
fields were first met. Texts are themselves, null is nothing, numbers have the digits that they had, arrays
and objects are JSON. Records end with CR LF (RFC 4180), so that csv quotes both of them in texts.
"""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from typing import IO, Final

import msgspec

from pgflow_mp.errors import PgflowError

VALUE: Final = "value"
"""The column of what has no fields."""
MOST_COLUMNS: Final = 10_000
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_END: Final = b"\r\n"


def too_many_columns(format: str) -> PgflowError:
    """For objects whose fields are rather values."""
    return PgflowError(
        f"The items have more than {MOST_COLUMNS:,} different fields, too many for the columns of {format}",
        hint="Write lines of JSON: .jsonl.",
    )


class CsvSink:
    """Keeps rows in ``spool``, and writes them when all columns are known."""

    def __init__(self, file: IO[bytes], spool: IO[bytes]) -> None:
        self._file = file
        self._spool = spool
        self._columns: dict[str, int] = {}
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer)
        self._widths: list[tuple[int, int]] = []
        """(Position in the spool, cells of a row from there on), as more columns are met."""
        self._spooled = 0

    def write(self, element: bytes) -> None:
        row = self._cells(element)
        if not self._widths or self._widths[-1][1] != len(self._columns):
            self._spill()
            self._widths.append((self._spooled, len(self._columns)))
        self._writer.writerow(row)
        if self._buffer.tell() > 1 << 16:
            self._spill()

    def finish(self) -> None:
        """Write the heading and the rows, all as wide as it is."""
        self._spill()
        columns = list(self._columns) or [VALUE]
        csv.writer(self._buffer).writerow(columns)
        self._file.write(self._buffer.getvalue().encode())
        self._spool.seek(0)
        bounds = [*self._widths, (self._spooled, 0)]
        for (begin, cells), (end, _) in pairwise(bounds):
            if cells == len(columns):
                _copy(self._spool, self._file, end - begin)
            else:
                self._pad(end - begin, cells, len(columns))
        self._file.flush()

    def _cells(self, element: bytes) -> list[str]:
        if element[:1] == b"{":
            fields = _OBJECT.decode(element)
            columns = self._columns
            for name in fields:
                if name not in columns:
                    columns[name] = len(columns)
            if len(columns) > MOST_COLUMNS:
                raise too_many_columns("CSV")
            row = [""] * len(columns)
            for name, value in fields.items():
                row[columns[name]] = _cell(bytes(value))
            return row
        if element == b"null":
            return [""] * len(self._columns)
        at = self._columns.setdefault(VALUE, len(self._columns))
        row = [""] * len(self._columns)
        row[at] = _cell(element)
        return row

    def _spill(self) -> None:
        data = self._buffer.getvalue().encode()
        self._spool.write(data)
        self._spooled += len(data)
        self._buffer.seek(0)
        self._buffer.truncate()

    def _pad(self, size: int, cells: int, width: int) -> None:
        """A record ends where a line ends outside of quotes; a quote within a text is written twice."""
        lacking = b"," * (width - cells) if cells else b"," * (width - 1) if width > 1 else b'""'
        quotes = 0
        while size:
            line = self._spool.readline()
            size -= len(line)
            quotes += line.count(b'"')
            if quotes % 2 == 0 and line.endswith(_END):
                line = line[: -len(_END)] + lacking + _END
            self._file.write(line)


def _cell(value: bytes) -> str:
    if value[:1] == b'"':
        return _TEXT.decode(value)
    return "" if value == b"null" else value.decode()


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size:
        data = source.read(min(size, 1 << 16))
        size -= len(data)
        target.write(data)
