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

_PACKAGES: Final = {sysconfig.get_path(name) for name in ("purelib", "platlib")}


def extend(directories: Iterable[str]) -> None:
    """Put directories on sys.path, in this order; those that are there already stay where they are."""
    for directory in reversed([path for path in directories if path not in sys.path]):
        sys.path.insert(_place(directory), directory)


def demote(position: int) -> None:
    """Move an entry of sys.path behind Python's library if its files would hide modules of it."""
    directory = sys.path[position]
    if hidden_by(directory):
        del sys.path[position]
        sys.path.insert(_behind_library(), directory)


def hidden_by(directory: str) -> list[str]:
    """Modules of Python's library that files or packages of this directory would hide."""
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return []
    found = {name.removesuffix(".py") for name in names if name.endswith(".py")}
    found |= {name for name in names if os.path.isfile(os.path.join(directory, name, "__init__.py"))}
    return sorted(found & sys.stdlib_module_names)


def _place(directory: str) -> int:
    return _behind_library() if hidden_by(directory) else 0


def _behind_library() -> int:
    """Behind the library, before installed packages."""
    for position, path in enumerate(sys.path):
        if path in _PACKAGES:
            return position
    return len(sys.path)
