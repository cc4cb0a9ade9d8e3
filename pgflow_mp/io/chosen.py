"""Which source an input is: by its format where one is given, else by its ending and its first bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io.columnar import Columnar
from pgflow_mp.io.folders import Paths, is_pattern, matching
from pgflow_mp.io.jsonarray import JsonArray
from pgflow_mp.io.jsonlines import JsonLines, TextLines
from pgflow_mp.io.opening import MAGIC, MAGIC_BYTES, Opened, is_url, open_path, open_stream, stem_ending
from pgflow_mp.io.source import SMALL, ElementBatch, ItemSource
from pgflow_mp.io.tables import DelimitedTable
from pgflow_mp.values.inputs import LIMIT, RunInput, parse_json, parse_jsonl, read_input
from pgflow_mp.values.jsontext import JSONL_ENDINGS, invalid_utf8

FORMATS: Final = ("json", "jsonl", "csv", "tsv", "parquet", "arrow", "lines", "paths")
_ENDINGS: Final = {
    **dict.fromkeys(JSONL_ENDINGS, "jsonl"),
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How an input is to be read: ``format`` is one of FORMATS, or None to find it out.

    ``lenient``: bad lines of JSONL are to be skipped, so that it is read by lines however short it is.
    """

    format: str | None = None
    stat: bool = False
    stdin: BinaryIO | None = None
    lenient: bool = False


def choose(spec: str, wanted: Wanted) -> ItemSource | RunInput:
    """What ``--input`` names: elements to be loaded, or one JSON value. Raises InputError, ConfigError."""
    kind = wanted.format
    jsonl = {"json": False, "jsonl": True}.get(kind or "")
    if spec == "-" and (kind == "paths" or wanted.stat):
        raise InputError(
            "--input - reads lines of a pipe, not a folder",
            hint="To have each line as an item, a text, give --each-line.",
        )
    if wanted.lenient and (kind or _ENDINGS.get(stem_ending(spec))) == "jsonl":
        if spec == "-" and wanted.stdin is not None:
            return JsonLines(open_stream(wanted.stdin, "standard input"))
        if is_url(spec) or os.path.isfile(os.path.expanduser(spec)):
            return JsonLines(open_path(spec))
    if spec == "-" and wanted.stdin is not None:
        return _of_stream(open_stream(wanted.stdin, "standard input"), kind, jsonl)
    path = os.path.expanduser(spec)
    exists = _exists(path)
    if kind == "paths" or (exists and os.path.isdir(path)) or wanted.stat:
        if not exists and not is_pattern(spec):
            raise InputError(
                f"There is no folder {spec}", hint="Name a folder, or a pattern: 'data/**/*.png'."
            )
        if kind not in (None, "paths"):
            return Several([*Paths(spec).paths], kind, spec)
        return Paths(spec, wanted.stat)
    if is_url(spec):
        kind = kind or _ENDINGS.get(stem_ending(spec), "json")
        if kind in ("parquet", "arrow"):
            return Columnar(spec, kind)
        return _of_stream(open_path(spec), kind, jsonl)
    if not exists:
        if is_pattern(spec) and spec[:1] not in '[{"':
            if kind is None:
                return Paths(spec)
            return Several(matching(spec), kind, spec)
        return read_input(spec, jsonl=jsonl)
    kind = kind or _ENDINGS.get(stem_ending(path))
    if kind in ("parquet", "arrow"):
        return Columnar(path, kind)
    with_head = kind not in ("csv", "tsv", "lines")
    if with_head and _is_small_text(path):
        return _with_lines_hint(spec, jsonl)
    return _of_stream(open_path(path), kind, jsonl)


def _of_file(path: str, kind: str) -> ItemSource:
    if kind in ("parquet", "arrow"):
        return Columnar(path, kind)
    opened = open_path(path)
    return _lines_or_table(opened, kind) or JsonArray(opened)


def _lines_or_table(opened: Opened, kind: str | None) -> ItemSource | None:
    if kind in ("csv", "tsv"):
        return DelimitedTable(opened, "," if kind == "csv" else "\t")
    if kind == "lines":
        return TextLines(opened)
    if kind == "jsonl":
        return JsonLines(opened)
    return None


def _of_stream(opened: Opened, kind: str | None, jsonl: bool | None) -> ItemSource | RunInput:
    """Elements out of a stream, or if it is short or no array the JSON value that it is."""
    if kind in ("parquet", "arrow"):
        raise InputError(
            f"{opened.name} cannot be read as {kind}: that needs a file, not a pipe",
            hint="Save it to one first.",
        )
    if kind in ("csv", "tsv", "lines"):
        source = _lines_or_table(opened, kind)
        assert source is not None  # noqa: S101 - it knows these
        return source
    head = opened.read(SMALL)
    if len(head) < SMALL:
        opened.close()
        return _small(head, opened.name, jsonl if jsonl is not None else kind == "jsonl" or None)
    again = Joined(head, opened)
    if kind == "jsonl" or (kind is None and _has_lines(head)):
        return JsonLines(again)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        return JsonArray(again)
    pieces, size = [], 0
    for piece in again.pieces():
        pieces.append(piece)
        size += len(piece)
        if size > LIMIT:
            opened.close()
            raise InputError(
                f"{opened.name} is not an array and has more than 1 GB, the most that a run's input can have",
                hint="If it is not JSON, give its --format.",
            )
    opened.close()
    return _whole(b"".join(pieces), opened.name, kind)


def _whole(data: bytes, name: str, kind: str | None) -> RunInput:
    try:
        return parse_json(data, name)
    except InputError:
        if kind is None and _has_lines(data):  # the first is longer than what was looked at
            return parse_jsonl(data, name)
        raise


def _small(data: bytes, name: str, jsonl: bool | None) -> RunInput:
    if name == "standard input":
        try:
            return read_input("-", jsonl=jsonl, stdin=io.BytesIO(data))
        except InputError as error:
            raise _or_lines(error, data) from None
    return parse_jsonl(data, name) if jsonl else parse_json(data, name)


def _with_lines_hint(spec: str, jsonl: bool | None) -> RunInput:
    try:
        return read_input(spec, jsonl=jsonl)
    except InputError as error:
        path = Path(spec).expanduser()
        raise (_or_lines(error, path.read_bytes()) if path.is_file() else error) from None


def _or_lines(error: InputError, data: bytes) -> InputError:
    """Where what was read looks like texts, one a line, say how they are read; or that it is no text."""
    first = data[:200].lstrip()[:1]
    if first and first not in b'{["' and not error.hint:
        if b"\0" in data[:SMALL] or invalid_utf8(data[:SMALL]) >= 0:
            error.hint = (
                "This is no text. To have paths of files as items, name a folder or pattern: 'data/*'."
            )
        elif b"\n" in data:
            error.hint = "To have each line as an item, a text, give --each-line; for a table --format csv."
    return error


def _has_lines(head: bytes) -> bool:
    """Whether the first line is a JSON value by itself and there is more behind it: no JSON goes on so."""
    first, _, rest = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")
    if not rest.strip():
        return False
    try:
        msgspec.json.decode(first, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except (OSError, ValueError):
        return False


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # opening it will tell
        return 0


def _is_small_text(path: str) -> bool:
    """Whether it is a file that is short as it is, not compressed."""
    try:
        if os.path.getsize(path) >= SMALL or not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return not file.read(MAGIC_BYTES).startswith(MAGIC)
    except OSError:
        return True  # reading it will tell


class Joined(Opened):
    """What was read ahead, and the rest."""

    def __init__(self, head: bytes, rest: Opened) -> None:
        self.name = rest.name
        self.size = rest.size
        self._rest = rest
        self._head = io.BytesIO(head)

    @property
    def position(self) -> int:
        return self._rest.position

    def read(self, size: int) -> bytes:
        return self._head.read(size) or self._rest.read(size)

    def close(self) -> None:
        self._rest.close()


class Several(ItemSource):
    """Files of one format, one after the other."""

    def __init__(self, paths: list[str], kind: str, name: str) -> None:
        if not paths:
            raise InputError(f"There are no files in {name}", hint="Hidden files do not count.")
        super().__init__(name, sum(map(_size, paths)))
        self._paths = paths
        self._kind = kind
        self._passed = 0
        self._current: ItemSource | None = None
        self.wants_types = kind in ("csv", "tsv")

    @property
    def position(self) -> int:
        return self._passed + (self._current.position if self._current else 0)

    def parts(self) -> Iterator[tuple[ItemSource, Any]]:
        for path in self._paths:
            self._current = source = _of_file(path, self._kind)
            source.on_bad = self.on_bad
            for part in source.parts():
                yield source, part
            self.close()
            self._passed += source.size or 0

    def batch(self, part: tuple[ItemSource, Any]) -> ElementBatch:
        source, inner = part
        source.on_bad, source.row_types = self.on_bad, self.row_types
        return source.batch(inner)

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None
