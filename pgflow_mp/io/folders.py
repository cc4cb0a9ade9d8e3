"""Files as items: the paths that a pattern or a folder has, in natural order (``p2`` before ``p10``)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
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
    found = [path for path in _matching(os.path.expanduser(pattern)) if os.path.isfile(path)]
    if not found:
        raise InputError(
            f"No file matches {pattern}", hint="** stands for any number of folders: 'data/**/*.png'."
        )
    return sorted(found, key=natural)


def _matching(pattern: str) -> Iterator[str]:
    """What glob finds. Links to folders are followed as it does, but never into a folder that they are in."""
    begin, stars, rest = f"/{pattern}".partition("/**/")
    if not stars and pattern != "**" and not pattern.endswith("/**"):
        return glob.iglob(pattern)
    if not stars:
        begin, rest = f"/{pattern}".removesuffix("/**"), "*"
    begin = begin[1:] + "/" if begin else ""
    found = {
        path: None
        for top in (glob.iglob(begin) if is_pattern(begin) else [begin])
        for folder in _folders(top)
        for path in _matching(glob.escape(folder) + rest)
    }
    return iter(found)


def _folders(top: str) -> Iterator[str]:
    """It and the folders below, with a slash at the end but for the one that "" stands for."""
    above = frozenset[tuple[int, int]]()
    for parent in (place := Path(os.path.realpath(top or "."))).parents:
        above = _identities(str(parent), above)
    under_way = [(top, _identities(str(place), above))]
    while under_way:
        folder, above = under_way.pop()
        yield folder
        try:
            with os.scandir(folder or ".") as entries:
                names = [entry.name for entry in entries if entry.name[0] != "." and _is_dir(entry)]
        except OSError:
            continue
        for name in names:
            path = f"{folder}{name}/"
            if (known := _identities(path, above)) != above:
                under_way.append((path, known))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identities(folder: str, above: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Those above and this one, by which it is known under whatever name."""
    try:
        found = os.stat(folder or ".")
    except OSError:
        return above
    return above | {(found.st_dev, found.st_ino)}


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
    """All files of a folder and of those in it, however deep; links to folders are not followed."""
    under_way = [iter(_entries(folder))]
    while under_way:
        for entry in under_way[-1]:
            if entry.is_dir(follow_symlinks=False):
                under_way.append(iter(_entries(entry.path)))
                break
            if os.path.isfile(entry.path):  # a link to itself is none
                yield entry.path
        else:
            under_way.pop()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            known = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"Folder {folder} cannot be read: {error.strerror}") from None
    return sorted(known, key=lambda entry: natural(entry.name))
