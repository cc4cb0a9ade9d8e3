"""Files that are compressed as they are written, as their names end: x.jsonl.gz."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

COMPRESSIONS: Final = (".gz", ".bz2", ".xz", ".zst")
_LEVEL: Final = 6
"""Of gzip: as of the program; 9 takes three times as long for a hundredth less."""
_BUFFER: Final = 1 << 16


def compression_of(name: str) -> str | None:
    """The ending of a file's name that says how it is compressed."""
    ending = Path(name).suffix.lower()
    return ending if ending in COMPRESSIONS else None


def is_missing(ending: str) -> bool:
    """Whether a package is needed for this compression that is not there."""
    return ending == ".zst" and importlib.util.find_spec("zstandard") is None


@contextlib.contextmanager
def compressed(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """``file``, or what compresses into it, if ``name`` asks for that; complete once the block has ended."""
    ending = compression_of(name)
    if ending is None:
        yield file
        return
    with _compressor(file, ending) as stream, io.BufferedWriter(stream, _BUFFER) as buffered:
        yield buffered


def _compressor(file: IO[bytes], ending: str) -> Any:
    if ending == ".gz":
        import gzip

        # No name and no time in it: the same results make the same file.
        return gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)
    if ending == ".bz2":
        import bz2

        return bz2.BZ2File(file, "wb")
    if ending == ".xz":
        import lzma

        return lzma.LZMAFile(file, "wb")
    import zstandard

    return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
