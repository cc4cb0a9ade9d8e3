"""Files as items: the paths that a pattern or a folder has, in natural order (``p2`` before ``p10``)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io.source import ElementBatch, ItemSource, Raw

_AT_ONCE: Final = 500
_encode: Final = msgspec.json.Encoder().encode
_NUMBER: Final = re.compile(r"(\d+)")


def natural(path: str) -> list[Any]:
    """A key by which numbers in names are ordered as numbers, and folders one after the other."""
    return [
        [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]
        for name in path.split(os.sep)
    ]


def is_pattern(text: str) -> bool:
    """Whether it is one for names of files."""
    return glob.has_magic(text)


def matching(pattern: str) -> list[str]:
    """The files that a pattern names, in natural order. Raises InputError if there are none."""
    found = [path for path in glob.iglob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(path)]
    if not found:
        raise InputError(
            f"No file matches {pattern}", hint="** stands for any number of folders: 'data/**/*.png'."
        )
    return sorted(found, key=natural)


class Paths(ItemSource):
    """One path an item, or with ``stat`` an object of path, size (bytes) and mtime (seconds since 1970).

    ``spec`` is a folder, all of whose files count but hidden ones, or a pattern.
    """

    def __init__(self, spec: str, stat: bool = False) -> None:
        super().__init__(spec)
        self._stat = stat
        folder = os.path.expanduser(spec)
        self.paths = _below(folder) if os.path.isdir(folder) else iter(matching(spec))

    def parts(self) -> Iterator[list[str]]:
        empty = True
        while part := [*islice(self.paths, _AT_ONCE)]:
            yield part
            empty = False
        if empty:
            raise InputError(f"There are no files in {self.name}", hint="Hidden files do not count.")

    def batch(self, part: list[str]) -> ElementBatch:
        elements: list[Raw] = []
        for path in part:
            try:
                elements.append(_encode(self._item(path)))
            except UnicodeEncodeError:
                self.bad(repr(path), "its name is not UTF-8", repr(path), "Rename it, or --on-bad-line skip.")
            except OSError as error:
                self.bad(path, error.strerror or str(error), path)
        return ElementBatch(elements, lambda i: bytes(elements[i]).decode())

    def _item(self, path: str) -> Any:
        path.encode()
        if not self._stat:
            return path
        found = os.stat(path)
        return {"path": path, "size": found.st_size, "mtime": found.st_mtime}


def _below(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            known = sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda e: natural(e.name)
            )
    except OSError as error:
        raise InputError(f"Folder {folder} cannot be read: {error.strerror}") from None
    for entry in known:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path)
        elif entry.is_file():
            yield entry.path
