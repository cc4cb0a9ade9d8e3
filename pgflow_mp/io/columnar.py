"""Parquet and Arrow files, with pyarrow: each row is an object by the names of the columns.

Times become ISO 8601, decimals strings, bytes base64; NaN and the infinities, which JSON has not, null.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple, cast

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io.opening import extra, is_url
from pgflow_mp.io.source import NUL, ElementBatch, ItemSource, Raw

_ROWS: Final = 1024
_encode: Final = msgspec.json.Encoder().encode


class _Part(NamedTuple):
    rows: list[dict[str, Any]]
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
        self.size = self._stored.seek(0, 2)
        self._stored.seek(0)

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
                    rows = table.slice(at, _ROWS).to_pylist()
                    yield _Part(rows, self._rows)
                    self._rows += len(rows)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self.name} cannot be read as {self._kind}: {error}".splitlines()[0],
                hint="It may be damaged, or be something else: --format.",
            ) from None

    def batch(self, part: _Part) -> ElementBatch:
        elements: list[Raw] = []
        kept: list[int] = []
        for number, row in enumerate(part.rows, part.first + 1):
            body = _encode(row)
            if b"\\u0000" in body:
                self.bad(f"{self.name}, row {number}", NUL, body.decode())
                continue
            elements.append(body)
            kept.append(number)
        return ElementBatch(elements, lambda i: f"{self.name}, row {kept[i]}")

    def _batches(self) -> Iterator[Any]:
        if self._kind == "parquet":
            import pyarrow.parquet as pq

            parquet = pq.ParquetFile(self._stored)
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
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise InputError(f'{self.name}: column "{twice}" is there twice', hint="Rename one of them.")

    def _open(self, path: str) -> BinaryIO:
        try:
            if is_url(path):
                fsspec = extra("fsspec", "remote", f"{path} is read with fsspec")
                return cast(BinaryIO, fsspec.open(path, "rb").open())
            return open(path, "rb")
        except (OSError, ValueError, ImportError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be read: {reason}") from None
