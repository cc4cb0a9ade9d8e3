"""Stacks of what runs, in plain data, and which part of one is the user's code."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol, runtime_checkable

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent) + os.sep
_OURS: Final = tuple(_PACKAGE + name + os.sep for name in ("executors", "flows", "loading", "values"))
_BEGINNINGS: Final = ("Thread._bootstrap", "Thread._bootstrap_inner", "Thread.run")
_MOST: Final = 100
"""Frames of a stack."""
_WIDEST: Final = 200
"""Characters of a line of source."""


class Frame(NamedTuple):
    """A function that was called: its file, the line it is at (0: not known), its name, that line's text."""

    file: str
    line: int
    function: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class LaneStack:
    """Where a lane's code is, the innermost frame first, and the item that it runs, ``seconds`` long.

    ``note`` says why there are no frames, or what else is to be known.
    """

    lane: int
    pid: int
    frames: Sequence[Frame]
    run: str | None = None
    step: str | None = None
    index: int | None = None
    seconds: float | None = None
    note: str = ""


class ThreadStack(NamedTuple):
    """Where a thread of this process is, the innermost frame first; ``works``: it runs an item."""

    name: str
    frames: Sequence[Frame]
    works: bool = False


@runtime_checkable
class ShowsStacks(Protocol):
    """An Executor may do this, too; of one that does not, only the worker's own threads can be shown."""

    def stacks(self, wait: float) -> Sequence[LaneStack]:
        """Those of all lanes, within ``wait`` seconds; nothing that runs is disturbed. From any thread."""


def is_at_work(frames: Sequence[Frame]) -> bool:
    """Whether a lane runs anything: of a deep stack the outer end is not known."""
    return any(frame.file.startswith(_OURS[0]) for frame in frames) or len(frames) >= _MOST


def users_frames(frames: Sequence[Frame]) -> list[Frame]:
    """Those above the worker's own; where only that is at work, its innermost part."""
    ours = end = next((at for at, frame in enumerate(frames) if frame.file.startswith(_OURS[0])), len(frames))
    while end and frames[end - 1].file.startswith(_OURS):
        end -= 1
    found = [frame for frame in frames[:end] if not frame.file.startswith("<frozen importlib")]
    return found or list(frames[: ours + 1])


def with_source(frames: Sequence[Frame]) -> list[Frame]:
    """The frames with the text of their lines, as far as their files can be read here."""
    return [
        frame._replace(source=linecache.getline(frame.file, frame.line).strip()[:_WIDEST])
        if frame.line and not frame.file.startswith("<")
        else frame
        for frame in frames
    ]


def stacks_of_threads() -> list[ThreadStack]:
    """Those of all Python threads of this process but the one that asks, the main one first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    found = []
    for ident, top in sorted(sys._current_frames().items(), key=lambda each: (each[0] != main, each[0])):
        if ident == threading.get_ident():
            continue
        frames: list[Frame] = []
        frame = top
        while frame is not None and len(frames) < _MOST:
            frames.append(Frame(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_qualname))
            frame = frame.f_back  # type: ignore[assignment]
        while frames and frames[-1].function in _BEGINNINGS and frames[-1].file == threading.__file__:
            frames.pop()
        works = any(each.file.startswith(_OURS[1]) for each in frames)
        shown = users_frames(frames) if works else frames
        found.append(ThreadStack(names.get(ident, f"thread {ident}"), shown, works))
    return found
