"""Letting other users into the folders of a test."""

from __future__ import annotations

from pathlib import Path

_ENTER_AND_READ = 0o055


def open_to_others(folder: Path) -> None:
    """Let others into ``folder``, through those above it, up to one that anybody may enter.

    That one is left alone: the folder for temporary files has a mode of its own.
    """
    for path in (folder, *folder.parents):
        mode = path.stat().st_mode & 0o7777
        if mode & 0o001:
            return
        path.chmod(mode | _ENTER_AND_READ)
