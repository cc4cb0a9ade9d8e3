"""What may not be called where it would start again and again: while a flow is imported, or in a handler.

Every process of a worker imports the flow's module. A module that executes its flow when it is imported
would do so in each of them, and so on. Whoever imports a target does it in ``importing()``; whatever
executes, serves or starts flows asks ``refuse()`` first.

Threads: what is refused is refused to the thread that imports or executes handlers, and to threads that are
started by it, or by those, for as long as it does. Others of the process may have business of their own.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pgflow_mp.errors import FlowDefinitionError, PermanentError

_VARIABLE: Final = "PGFLOW_MP_IMPORTING"
"""Set while a target is imported: commands that the module starts meanwhile inherit it."""
_OURS: Final = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, contextlib.__file__)
"""Where the code is that calls on: ours, and what stands around it as a decorator."""

_is_lane = False
_database: str | None = None
_Start = Callable[[threading.Thread], None]


@dataclass(eq=False)
class _Doing:
    """The import of a target, or of handlers the execution; ``over``: this one has ended."""

    place: str
    """Which target; of handlers nothing."""
    over: bool = False


class _OfThread(threading.local):
    """What this thread does itself, innermost last."""

    def __init__(self) -> None:
        self.doing: list[_Doing] = []


_of_thread: Final = _OfThread()
_INHERITED: Final = "_pgflow_mp_doing"
"""Attribute of a thread: what the one that started it was doing."""
_starting_lock: Final = threading.Lock()
_watchers = 0
_watching: tuple[_Start, _Start] = (threading.Thread.start, threading.Thread.start)
"""What starts threads without us, and what does it while a block is entered."""
_inherited: Final = os.environ.pop(_VARIABLE, "")
"""What was being imported by the process that started this one, at the time."""


@contextlib.contextmanager
def importing(place: str) -> Iterator[None]:
    """In the block a target is imported; ``place`` says which, as messages name it."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = place
    try:
        with _doing(_Doing(place)):
            yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


@contextlib.contextmanager
def executing() -> Iterator[None]:
    """In the block handlers are executed."""
    with _doing(_Doing("")):
        yield


@contextlib.contextmanager
def _doing(what: _Doing) -> Iterator[None]:
    _of_thread.doing.append(what)
    _watch_threads(+1)
    try:
        yield
    finally:
        _watch_threads(-1)
        what.over = True
        _of_thread.doing.remove(what)


def _watch_threads(more: int) -> None:
    """Learn of threads that are started, while any block is entered: they inherit what their starter does.

    Whoever has put something else in the place of ours meanwhile keeps it: ours passes everything on.
    """
    global _watchers, _watching
    with _starting_lock:
        _watchers += more
        if _watchers == 1 and more > 0:
            _watching = (threading.Thread.start, _passing_on(threading.Thread.start))
            threading.Thread.start = _watching[1]  # type: ignore[method-assign, assignment]
        elif _watchers == 0 and threading.Thread.start is _watching[1]:
            threading.Thread.start = _watching[0]  # type: ignore[method-assign, assignment]


def _passing_on(start: _Start) -> _Start:
    def watched_start(thread: threading.Thread) -> None:
        if doing := _present():
            setattr(thread, _INHERITED, doing)
        start(thread)

    return watched_start


def _inherited_doing() -> list[_Doing]:
    doing: list[_Doing] = getattr(threading.current_thread(), _INHERITED, [])
    return [each for each in doing if not each.over]


def _present() -> list[_Doing]:
    return [*_inherited_doing(), *_of_thread.doing]


def become_lane(database: str | None = None) -> None:
    """From here on this process, with all of its threads, imports and executes handlers, nothing else.

    ``database`` is the connection string of the worker's.
    """
    global _is_lane, _database
    _is_lane, _database = True, database


def database() -> str | None:
    """The connection string of the worker's database, in a lane; None elsewhere."""
    return _database


def is_inside() -> bool:
    """Whether a target is being imported here, or handlers are executed."""
    return bool(_is_lane or _present())


def refuse(call: str, *, in_handlers: bool = True) -> None:
    """Raise if ``call`` (``run()``, for messages) is made while a target is imported, or by a handler.

    Raises FlowDefinitionError with the line of the call, or PermanentError: a retry would not help.
    """
    own, inherited = _of_thread.doing, _inherited_doing()
    place = next((each.place for each in inherited if each.place), "")
    if place and not any(each.place for each in own):
        raise FlowDefinitionError(
            f"{call} was called in a thread that was started by importing {place}", hint=_GUARD
        )
    if any(each.place for each in own) or _is_being_spawned():
        where, code = _caller()
        raise FlowDefinitionError(
            f"{where} calls {call} while the file is imported" + (f": {code}" if code else ""),
            hint=_GUARD,
        )
    if _inherited:
        raise FlowDefinitionError(
            f"{call} was called in a process that was started by importing {_inherited}", hint=_GUARD
        )
    if in_handlers and (_is_lane or own or inherited):
        where = _caller()[0] if own or not inherited else "A thread that was started by a handler"
        raise PermanentError(
            f"{where} calls {call} in a handler: a process that executes items cannot execute a run as well",
            hint="Make it a step of this flow; or start the run with Client().start_flow() and leave it to "
            "the workers; or use pgflow_mp.testing.run_inline().",
        )


_GUARD: Final = (
    "Every process of a worker imports the file, and would make the call again. "
    "Put it under a guard:  if __name__ == '__main__':"
)


def _is_being_spawned() -> bool:
    """Whether multiprocessing imports the script of its parent in this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(getattr(process.current_process(), "_inheriting", False))


def _caller() -> tuple[str, str]:
    """``file, line N`` of the innermost line that is not ours, and its code."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}, line {line}", linecache.getline(file, line).strip()
