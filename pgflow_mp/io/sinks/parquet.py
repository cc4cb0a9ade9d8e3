"""Parquet, with pyarrow: an element a row, the fields of objects as columns.

An element that is no object has the one column ``value``. The type of a column is what all of its values
fit: integers, floats, booleans, texts, lists and structures of them. A column of several kinds is text, in
which what was no text is JSON.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

import msgspec

from pgflow_mp.io.sinks.csvwriter import MOST_COLUMNS, VALUE, too_many_columns

_ROWS: Final = 2000
_BYTES: Final = 1 << 20
"""Of JSON that is there as Python's objects at once, beyond which these are fewer rows."""
_GROUP_ROWS: Final = 100_000
_GROUP_BYTES: Final = 4 << 20
"""Of JSON in a row group."""
_PAGE_BYTES: Final = 64 << 10
"""Of a column's page, and of its dictionary, beyond which it has none: pyarrow holds several of each."""


class ParquetSink:
    """Keeps elements in ``spool``, and writes them when the types of all columns are known.

    ``whole`` is where the file is made if ``file`` is a stream, of which nothing can be taken back.
    """

    def __init__(self, file: IO[bytes], spool: IO[bytes], whole: IO[bytes] | None = None) -> None:
        _give_back()
        pa = _types()
        self._file = file if whole is None else whole
        self._stream = None if whole is None else file
        self._spool = spool
        self._types: dict[str, Any] = {}
        self._batch: list[dict[str, Any]] = []
        self._bytes = 0
        self._batches: list[tuple[int, int]] = []
        """(rows, bytes of JSON) of what is looked at and converted at once."""
        self._errors = (pa.ArrowException, OverflowError, TypeError, ValueError)

    def write(self, element: bytes) -> None:
        self._spool.write(element + b"\n")
        self._batch.append(_row(element))
        self._bytes += len(element)
        if len(self._batch) >= _ROWS or self._bytes >= _BYTES:
            self._learn()

    def finish(self) -> None:
        """Write all rows by the types that were found."""
        if self._batch:
            self._learn()
        if not self._types:
            self._types[VALUE] = _types().null()
        while (lost := self._written()) is not None:
            self._types[lost] = _types().string()
        if self._stream is not None:
            self._file.seek(0)
            shutil.copyfileobj(self._file, self._stream)
            self._stream.flush()

    def _learn(self) -> None:
        """See what types the columns have with these rows, too."""
        for name in {name: None for row in self._batch for name in row}:
            known = self._types.get(name)
            if known is None and len(self._types) == MOST_COLUMNS:
                raise too_many_columns("Parquet")
            found = self._type([row.get(name) for row in self._batch])
            self._types[name] = found if known is None else self._common(known, found)
        self._batches.append((len(self._batch), self._bytes))
        self._batch, self._bytes = [], 0

    def _type(self, values: list[Any]) -> Any:
        """The type of a column of these values."""
        pa = _types()
        integers = all(value is None or type(value) is int for value in values)
        for wanted in (
            (None, pa.uint64()) if integers else (None,)
        ):  # floats would lose what is behind the dot
            try:
                found = pa.array(values, wanted).type
            except self._errors:
                continue
            return pa.string() if _has_no_column(found) else found
        return pa.string()

    def _common(self, one: Any, other: Any) -> Any:
        """The type that values of both may have. Whether they do is seen when they are written."""
        pa = _types()
        if one == other:
            return one
        if pa.uint64() in (one, other) and pa.types.is_integer(one) and pa.types.is_integer(other):
            return pa.uint64()
        try:
            both = [pa.schema([pa.field("", type)]) for type in (one, other)]
            return pa.unify_schemas(both, promote_options="permissive").field(0).type
        except self._errors:
            return pa.string()

    def _written(self) -> str | None:
        """Write the file; the column that does not fit its type after all, if there is one."""
        import pyarrow.parquet as pq

        pa = _types()
        self._file.seek(0)
        self._file.truncate()
        schema = pa.schema(list(self._types.items()))
        with pq.ParquetWriter(
            self._file, schema, data_page_size=_PAGE_BYTES, dictionary_pagesize_limit=_PAGE_BYTES
        ) as writer:
            group: list[Any] = []
            rows_of_group = bytes_of_group = 0
            for rows, size in self._read():
                columns = []
                for name, type in self._types.items():
                    values = [row.get(name) for row in rows]
                    try:
                        columns.append(pa.array(map(_text, values) if type == pa.string() else values, type))
                    except self._errors:
                        return name
                group.append(pa.RecordBatch.from_arrays(columns, schema=schema))
                rows_of_group += len(rows)
                bytes_of_group += size
                if rows_of_group >= _GROUP_ROWS or bytes_of_group >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group))
                    group, rows_of_group, bytes_of_group = [], 0, 0
            if group:
                writer.write_table(pa.Table.from_batches(group))
        self._file.flush()
        return None

    def _read(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        self._spool.seek(0)
        for rows, size in self._batches:
            yield [_row(self._spool.readline()) for _ in range(rows)], size


def _give_back() -> None:
    """Let the system have what was used and is free: pyarrow needs 50 MB, and has an allocator of its own."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):  # it is one of glibc
        ctypes.CDLL(None).malloc_trim(0)


def _types() -> Any:
    """pyarrow, which would import pandas (60 MB) to see whether our values are its."""
    global _is_imported
    import pyarrow

    if not _is_imported and "pandas" not in sys.modules:
        finder = _NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pyarrow.array([None])
        finally:
            sys.meta_path.remove(finder)
    _is_imported = True
    return pyarrow


_is_imported = False


class _NoPandas:
    """Finds no pandas. What is found or not the first time is so for pyarrow in this process: a command's."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)


def _row(element: bytes) -> dict[str, Any]:
    value = msgspec.json.decode(element)
    return value if isinstance(value, dict) else {} if value is None else {VALUE: value}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _has_no_column(type: Any) -> bool:
    """Whether a structure without members is in it, which Parquet has not."""
    pa = _types()
    if pa.types.is_struct(type):
        return type.num_fields == 0 or any(map(_has_no_column, [field.type for field in type]))
    return pa.types.is_list(type) and _has_no_column(type.value_type)
