"""Parquet and Arrow files, with pyarrow: each row is an object by the names of the columns.

Times become ISO 8601, decimals strings, bytes base64; NaN and the infinities, which JSON has not, null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, Final, NamedTuple, cast

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io.opening import extra, is_url, unopened
from pgflow_mp.io.source import NUL, ElementBatch, ItemSource, Raw
from pgflow_mp.values.duplicates import first_repeated

_ROWS: Final = 1024
_BUFFER: Final = 1 << 16
"""Bytes of a column that are read at once, of row groups however large."""
_NO_VALUE: Final = (ValueError, OverflowError, TypeError, LookupError, NotImplementedError)
"""What pyarrow and msgspec raise for what Python has no value for, or JSON: a year 40000, broken UTF-8."""
_CAST: Final = "Convert it where it is made, times to microseconds; or --on-bad-line skip."
_encode: Final = msgspec.json.Encoder().encode


class _Part(NamedTuple):
    rows: Any
    """A table of Arrow's."""
    first: int


class Columnar(ItemSource):
    """A Parquet file, or one of Arrow's: ``kind`` is parquet or arrow."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(path)
        extra("pyarrow", "parquet", f"{path} is read with pyarrow")
        self._kind = kind
        self._rows = 0
        self._total = 0
        self._stored = self._open(path)
        try:
            self.size = self._stored.seek(0, 2)
            self._stored.seek(0)
        except OSError:
            self.close()
            raise InputError(
                f"{path} cannot be read as {kind}: that needs a file, not a pipe",
                hint="Save it to one first.",
            ) from None

    @property
    def position(self) -> int:
        return int((self.size or 0) * self._rows / self._total) if self._total else 0

    def close(self) -> None:
        self._stored.close()

    def parts(self) -> Iterator[_Part]:
        import pyarrow as pa

        try:
            for table in self._batches():
                for at in range(0, table.num_rows, _ROWS):
                    rows = table.slice(at, _ROWS)
                    yield _Part(rows, self._rows)
                    self._rows += rows.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self.name} cannot be read as {self._kind}: {error}".splitlines()[0],
                hint="It may be damaged, or be something else: give its --format.",
            ) from None

    def batch(self, part: _Part) -> ElementBatch:
        elements: list[Raw] = []
        kept: list[int] = []
        for number, row in enumerate(self._of(part), part.first + 1):
            try:
                body = _encode(row() if callable(row) else row)
            except _NO_VALUE as error:
                self.bad(f"{self.name}, row {number}", _reason(error), "", _CAST)
                continue
            if b"\\u0000" in body:
                self.bad(f"{self.name}, row {number}", NUL, body.decode())
                continue
            elements.append(body)
            kept.append(number)
        return ElementBatch(elements, lambda i: f"{self.name}, row {kept[i]}")

    def _of(self, part: _Part) -> Sequence[Any]:
        """Its rows as objects; where not all of them can be any, functions that make them, one by one."""
        try:
            return cast(Sequence[Any], _without_nanoseconds(part.rows).to_pylist())
        except _NO_VALUE:
            return [partial(_row, part.rows, i) for i in range(part.rows.num_rows)]

    def _batches(self) -> Iterator[Any]:
        if self._kind == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pa.set_memory_pool(pa.system_memory_pool())  # others keep what was given back
            parquet = pq.ParquetFile(self._stored, buffer_size=_BUFFER, pre_buffer=False)
            self._total = parquet.metadata.num_rows
            self._refuse_twice(parquet.schema_arrow.names)
            yield from parquet.iter_batches(batch_size=_ROWS, use_threads=False)  # a fork is to come
            return
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(self._stored)
        except pa.ArrowInvalid:
            self._stored.seek(0)
            stream = pa.ipc.open_stream(self._stored)
            self._refuse_twice(stream.schema.names)
            yield from stream
            return
        self._refuse_twice(reader.schema.names)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    def _refuse_twice(self, names: list[str]) -> None:
        if (twice := first_repeated(names)) is not None:
            raise InputError(f'{self.name}: column "{twice}" occurs twice', hint="Rename one of them.")

    def _open(self, path: str) -> BinaryIO:
        try:
            if is_url(path):
                fsspec = extra("fsspec", "remote", f"{path} is read with fsspec")
                return cast(BinaryIO, fsspec.open(path, "rb").open())
            return open(path, "rb")
        except (OSError, ValueError, ImportError) as error:
            raise unopened(path, error) from None


def _row(table: Any, index: int) -> Any:
    return _without_nanoseconds(table.slice(index, 1)).to_pylist()[0]


def _without_nanoseconds(rows: Any) -> Any:
    """The same with times in microseconds, as Python's are; raises a ValueError where that loses anything.

    pyarrow would import pandas, where that is installed, and make its times of them.
    """
    import pyarrow as pa

    to = {"timestamp[ns": pa.timestamp, "duration[ns": pa.duration, "time64[ns": pa.time64}
    for index, field in enumerate(rows.schema):
        kind = next((kind for start, kind in to.items() if str(field.type).startswith(start)), None)
        if kind is not None:
            zone = [field.type.tz] if kind is pa.timestamp else []
            rows = rows.set_column(index, field.name, rows.column(index).cast(kind("us", *zone)))
    return rows


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0].partition(". Install")[0]
    return f"no value of JSON: {text or type(error).__name__}"
