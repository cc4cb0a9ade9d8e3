"""Files, standard input and URLs as streams of bytes, decompressed where their first bytes ask for it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from pgflow_mp.errors import ConfigError, InputError
from pgflow_mp.installed import pip_install
from pgflow_mp.io.source import BATCH_BYTES
from pgflow_mp.values.foundtext import without_mark

COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
LONGEST: Final = 256_000_000
"""Bytes of a line, and characters of an element."""
_GZIP: Final = b"\x1f\x8b"
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
MAGIC: Final = (_GZIP, _BZIP2, _XZ, _ZSTD)
"""How compressed data begins."""
MAGIC_BYTES: Final = max(map(len, MAGIC))
_COMPRESSED: Final = 1024  # bytes of zstd at once: they may become 32,000 times as many
_DAMAGE: Final = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


class Opened:
    """A stream of (decompressed) bytes. ``size`` and ``position`` are those of what is stored."""

    def __init__(self, stored: BinaryIO, name: str, size: int | None) -> None:
        self.name = name
        self.size = size
        self._stored = _Counting(stored)
        buffered = io.BufferedReader(self._stored, 1 << 16)
        self.stream = _decompressed(buffered, name)

    @property
    def position(self) -> int:
        """How many stored bytes were read."""
        return self._stored.count

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end. Raises InputError for damaged data."""
        try:
            return self.stream.read(size)
        except _DAMAGE as error:
            raise InputError(
                f"{self.name} cannot be read any further: {error}",
                hint="It may be damaged, or cut off: fetch it again.",
            ) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("zstandard", "fsspec", "s3fs", "aiohttp"):
                raise
            raise InputError(f"{self.name} cannot be read any further: {error}") from error

    def pieces(self) -> Iterator[bytes]:
        """All of it, in pieces of about BATCH_BYTES; a mark of UTF-8 at the beginning is dropped."""
        data = without_mark(self.read(BATCH_BYTES), self.name)
        while data:
            yield data
            data = self.read(BATCH_BYTES)

    def blocks(self) -> Iterator[tuple[bytes, int]]:
        """(whole lines, number of the first of them). Raises InputError for a line of many megabytes."""
        line, rest, length = 1, [], 0
        for data in self.pieces():
            cut = data.rfind(b"\n") + 1
            if not cut:
                rest.append(data)
                length += len(data)
                if length > LONGEST:
                    raise InputError(
                        f"{self.name}, line {line} is longer than {LONGEST // 1_000_000} MB",
                        hint="If it is of another format, give its --format.",
                    )
                continue
            block = b"".join((*rest, data[:cut]))
            yield block, line
            line += block.count(b"\n")
            rest, length = [data[cut:]], len(data) - cut
        if last := b"".join(rest):
            yield last, line

    def close(self) -> None:
        """Close it, but not standard input."""
        if self.name != "standard input":
            self.stream.close()
            self._stored.close()


class _Counting(io.RawIOBase):
    """Counts what is read."""

    def __init__(self, stored: BinaryIO) -> None:
        super().__init__()
        self._stored = stored
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stored.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stored.close()
        super().close()


class _Frames(io.RawIOBase):
    """What frames of zstd hold. zstandard's own reader takes the end of a file that was cut off for that of
    the data.
    """

    def __init__(self, stored: io.BufferedReader[Any], decompressor: Any) -> None:
        super().__init__()
        self._stored = stored
        self._decompressor = decompressor
        self._frame = decompressor.decompressobj()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = (self._frame.unused_data if self._frame.eof else b"") or self._stored.read(_COMPRESSED)
            if not data:
                if self._frame.eof:
                    return 0
                raise EOFError("it ends before the end of the compressed data")
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._stored.close()
        super().close()


def open_stream(stream: BinaryIO, name: str) -> Opened:
    """Something that is open already, such as standard input."""
    return Opened(stream, name, None)


def open_path(path: str) -> Opened:
    """A file or URL. Raises InputError."""
    if is_url(path):
        return _open_url(path)
    file = Path(path).expanduser()
    try:
        stored = open(file, "rb")  # noqa: SIM115 - whoever has the source closes it
        status = os.fstat(stored.fileno())
    except OSError as error:
        raise InputError(f"File {path} cannot be read: {error.strerror}") from None
    regular = status.st_size if file.is_file() else None
    return Opened(cast(BinaryIO, stored), str(file), regular)


def is_url(text: str) -> bool:
    """Whether it names something elsewhere: ``s3://bucket/name``."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("-", "").isalnum()


def stem_ending(path: str) -> str:
    """The ending that tells the format: ``.csv`` of ``rows.csv.gz``."""
    name = path.rpartition("/")[2].lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _open_url(url: str) -> Opened:
    fsspec = extra("fsspec", "remote", f"{url} is read with fsspec")
    try:
        files, path = fsspec.core.url_to_fs(url)
        size = files.info(path).get("size")
        return Opened(files.open(path, "rb"), url, size)
    except (OSError, ValueError, ImportError) as error:
        raise unopened(url, error) from error


def unopened(path: str, error: Exception) -> InputError:
    """What to say of a file or URL that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"There is no {path}")
    if not is_url(path):
        return InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
    hint = ""
    if isinstance(error, ImportError):
        hint = f"Install with pip what reads {path.partition(':')[0]}:// for fsspec, where pgflow_mp is."
    elif isinstance(error, ValueError):
        hint = "The schemes are those of fsspec: s3, gs, az, http, https, sftp, file, ..."
    return InputError(f"{path} cannot be opened: {error}", hint=hint)


def extra(module: str, name: str, what: str) -> Any:
    """A library that not everybody needs. Raises ConfigError."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{what}, which is not installed", hint=f"Install it: {pip_install(name)}"
        ) from None


def _decompressed(stored: io.BufferedReader[Any], name: str) -> BinaryIO:
    try:
        head = stored.peek(MAGIC_BYTES)[:MAGIC_BYTES]
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from None
    if head.startswith(_GZIP):
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=stored), 1 << 18))
    if head.startswith(_BZIP2):
        return cast(BinaryIO, bz2.BZ2File(stored))
    if head.startswith(_XZ):
        return cast(BinaryIO, lzma.LZMAFile(stored))
    if head.startswith(_ZSTD):
        zstandard = extra("zstandard", "zstd", f"{name} is compressed with zstd and needs zstandard")
        return cast(BinaryIO, io.BufferedReader(_Frames(stored, zstandard.ZstdDecompressor()), 1 << 18))
    return cast(BinaryIO, stored)
