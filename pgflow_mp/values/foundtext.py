"""What files begin with that are no UTF-8 text, told by what they are and how their contents get in."""

from __future__ import annotations

from typing import Final

from pgflow_mp.errors import InputError

CONVERT: Final = "Convert it first"
"""How the hints about encodings begin."""
_PATHS: Final = "To have paths of files as items, name their folder or a pattern: 'data/*.png'."
_ITS_FORMAT: Final = "Give --format {}."
_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32, not UTF-8 text", f"{CONVERT}: iconv -f utf-32 -t utf-8"),
    (b"\xff\xfe", "UTF-16, not UTF-8 text", f"{CONVERT}: iconv -f utf-16 -t utf-8"),
    (b"\xfe\xff", "UTF-16, not UTF-8 text", f"{CONVERT}: iconv -f utf-16 -t utf-8"),
    (b"\x1f\x8b", "gzip data, not text", "Unpack it first."),
    (b"PK\x03\x04", "a zip archive, or a workbook, not text", "Unpack it, or save its sheet as CSV."),
    (b"\xd0\xcf\x11\xe0", "an Office document, not text", "Save its sheet as CSV."),
    (b"PAR1\x15", "a Parquet file, not text", _ITS_FORMAT.format("parquet")),
    (b"ARROW1\x00\x00", "an Arrow file, not text", _ITS_FORMAT.format("arrow")),
    (b"SQLite format 3\x00", "an SQLite database, not text", "Export a table as CSV."),
    (b"\x89PNG", "a PNG image, not text", _PATHS),
    (b"\xff\xd8\xff", "a JPEG image, not text", _PATHS),
    (b"GIF89a", "a GIF image, not text", _PATHS),
    (b"%PDF-", "a PDF document, not text", _PATHS),
    (b"\x7fELF", "a program, not text", _PATHS),
)
_BOM: Final = b"\xef\xbb\xbf"
_LOOKED_AT: Final = 64


def without_mark(data: bytes, source: str) -> bytes:
    """The text without a byte order mark of UTF-8. Raises InputError for what begins as something else."""
    for mark, name, hint in _MARKS:
        if data.startswith(mark):
            raise InputError(f"{source} is {name}", hint=hint)
    if order := _utf_16(data[:_LOOKED_AT]):
        hint = f"{CONVERT}: iconv -f utf-16{order} -t utf-8"
        raise InputError(f"{source} is UTF-16 without a mark, not UTF-8 text", hint=hint)
    return data.removeprefix(_BOM)


def _utf_16(data: bytes) -> str:
    """The order of its bytes if it is that, as text in Latin letters is: each second byte is 0."""
    if len(data) < 4:
        return ""
    for order, letters, zeros in (("le", data[::2], data[1::2]), ("be", data[1::2], data[::2])):
        if not any(zeros) and all(letters):
            return order
    return ""
