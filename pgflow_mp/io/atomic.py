"""Files that are there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from pgflow_mp.errors import PgflowError

_DESCRIPTORS: Final = ("/dev/fd", "/proc/self/fd")
_STREAMS: Final = {"stdout": 1, "stderr": 2}
_NAME: Final = 25
"""Characters of a name that its temporary one begins with, of up to four bytes each: names may have 255."""


@contextlib.contextmanager
def write_atomically(path: Path, hint: str = "") -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes otherwise.

    A process that is killed leaves what was there before, and a hidden file beside it. Where ``path`` is a
    link, that stays, and the file it leads to is replaced; what a descriptor of this process leads to
    (/dev/stderr, /dev/fd/3) is written to as it comes. Raises PgflowError with ``hint`` for what the system
    refuses.
    """
    given = path
    try:
        if (number := _descriptor(path)) is not None:
            with open(os.dup(number), "wb") as file:
                yield file
            return
        if not is_replaced(path):  # /dev/null, a pipe
            with path.open("wb") as file:
                yield file
            return
        path = Path(os.path.realpath(path))
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:_NAME]}.", dir=path.parent)
        try:
            with open(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(handle)
            os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise PgflowError(f"{given} cannot be written: {error.strerror or error}", hint=hint) from error


def is_replaced(path: Path) -> bool:
    """Whether nobody sees what is written there before it is whole, so that it can be written once more."""
    return _descriptor(path) is None and (path.is_file() or not path.exists())


def _descriptor(path: Path) -> int | None:
    """The number of the descriptor that a path stands for, None if it is another one."""
    folder, name = os.path.split(path)
    if folder == "/dev" and name in _STREAMS:
        return _STREAMS[name]
    return int(name) if folder in _DESCRIPTORS and name.isascii() and name.isdigit() else None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
