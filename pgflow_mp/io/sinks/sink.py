"""A sink for each format, on a file or on a stream."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from pgflow_mp.io.atomic import write_atomically
from pgflow_mp.io.sinks.compression import compressed
from pgflow_mp.io.sinks.jsonwriters import ArraySink, LinesSink


class Sink(Protocol):
    """Takes elements, raw JSON, in the order of the file. ``finish`` comes last, and once."""

    def write(self, element: bytes) -> None: ...

    def finish(self) -> None: ...


@contextlib.contextmanager
def open_sink(target: Path | IO[bytes], format: str, hint: str = "") -> Iterator[Sink]:
    """A sink of one of FORMATS; what it has taken is in the file once the block has ended well.

    A path gets all of it, compressed if its ending says so, or stays as it was; a stream, that need not be
    one that can seek, gets it as it comes where the format allows. Raises PgflowError,
    with ``hint``, where the file cannot be written.
    """
    if isinstance(target, Path):
        name = "" if format == "parquet" else target.name
        with (
            write_atomically(target, hint) as file,
            compressed(file, name) as packed,
            _sink(packed, format, target.parent) as sink,
        ):
            yield sink
    else:
        with _sink(target, format, None) as sink:
            yield sink


@contextlib.contextmanager
def _sink(file: IO[bytes], format: str, folder: Path | None) -> Iterator[Sink]:
    """``folder``: where there is room for as much again; None: where temporary files are."""
    with contextlib.ExitStack() as stack:
        sink: Sink
        if format in ("json", "jsonl"):
            sink = (ArraySink if format == "json" else LinesSink)(file)
        else:
            folder = folder if folder is not None and os.access(folder, os.W_OK) else None
            spool = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            if format == "csv":
                from pgflow_mp.io.sinks.csvwriter import CsvSink

                sink = CsvSink(file, spool)
            else:
                from pgflow_mp.io.sinks.parquet import ParquetSink

                whole = None if _is_regular(file) else stack.enter_context(tempfile.TemporaryFile())
                sink = ParquetSink(file, spool, whole)
        yield sink
        sink.finish()


def _is_regular(file: IO[bytes]) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # it is none of the system's
        return False
